package wire

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"
)

// A plan is the codec of one Go type, built once by reflection together with
// the shape of the model and then followed with pointers: field offsets are
// taken from reflect, every write goes to memory of the type it was planned
// for, and named strings (enums) share the layout of string.

type kind uint8

const (
	kindInvalid kind = iota
	kindString
	kindBool
	kindInt32
	kindInt64
	kindFloat32
	kindFloat64
	kindBytes
	kindTime
	kindStruct
	kindList
	kindMap
	kindUnion
	kindReader
)

var kindNames = [...]string{"?", "String", "Boolean", "Integer", "Long", "Float", "Double", "Blob", "Timestamp", "Structure", "List", "Map", "Union", "Stream"}

func (k kind) String() string { return kindNames[k] }

// A value is the codec of one value: a member, a list element, a map value.
type value struct {
	kind  kind
	ptr   bool         // held through a pointer
	typ   reflect.Type // without that pointer
	shape *shape       // may be nil
	st    *structPlan  // kindStruct
	elem  *value       // kindList, kindMap
	key   *value       // kindMap
	union *unionPlan   // kindUnion
	check bool         // something in here is to be validated
}

type structPlan struct {
	typ     reflect.Type
	shape   *shape // may be nil
	fields  []field
	byName  map[string]int // member name in JSON and Query
	byIn    map[string]int // member name in an EC2 request
	payload int            // index of the payload member, or -1
	check   bool
}

type field struct {
	goName   string
	name     string // JSON, Query
	in, out  string // EC2
	jsonKey  string // `"name":`
	path     string // as validation errors print it
	offset   uintptr
	v        *value
	required bool
	secret   bool
	loc      byte
	locName  string
}

type unionPlan struct {
	variants []unionVariant
}

type unionVariant struct {
	name string
	typ  reflect.Type // of the struct whose field Value holds the value
	v    *value
}

type planKey struct {
	typ   reflect.Type
	shape string
}

type planCache struct {
	done sync.Map // planKey → *structPlan
	mu   sync.Mutex
}

var (
	timeType   = reflect.TypeFor[time.Time]()
	readerType = reflect.TypeFor[io.Reader]()
	bytesType  = reflect.TypeFor[[]byte]()
)

// plan returns the plan of a struct type read with a shape ("" for none).
func (s *Service) plan(t reflect.Type, shapeName string) (*structPlan, error) {
	key := planKey{t, shapeName}
	if p, ok := s.plans.done.Load(key); ok {
		return p.(*structPlan), nil
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("wire: %v is not a struct", t)
	}
	s.plans.mu.Lock()
	defer s.plans.mu.Unlock()
	b := planBuilder{s: s, t: s.table(), made: map[planKey]*structPlan{}}
	p, err := b.structOf(t, shapeName)
	if err != nil {
		return nil, fmt.Errorf("wire: plan of %v: %w", t, err)
	}
	for k, v := range b.made {
		s.plans.done.LoadOrStore(k, v)
	}
	return p, nil
}

type planBuilder struct {
	s    *Service
	t    *table
	made map[planKey]*structPlan
}

func (b *planBuilder) structOf(t reflect.Type, shapeName string) (*structPlan, error) {
	key := planKey{t, shapeName}
	if p, ok := b.s.plans.done.Load(key); ok {
		return p.(*structPlan), nil
	}
	if p, ok := b.made[key]; ok {
		return p, nil
	}
	sh := b.t.shapes[shapeName]
	if sh == nil || sh.kind != shapeStruct {
		sh = b.t.shapes[t.Name()] // a struct newer than the model of its user
		if sh != nil && sh.kind != shapeStruct {
			sh = nil
		}
	}
	// check is true while the plan is being built, so that a recursive shape is
	// never skipped.
	p := &structPlan{typ: t, shape: sh, payload: -1, byName: map[string]int{}, check: true}
	b.made[key] = p
	check := false
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() || f.Anonymous || f.Name == "ResultMetadata" || f.Name == "ErrorCodeOverride" {
			continue
		}
		fp := field{goName: f.Name, name: f.Name, offset: f.Offset}
		var m *member
		if sh != nil {
			m = sh.members[f.Name]
		}
		var memberShape string
		if m != nil {
			fp.name, memberShape, fp.required, fp.loc, fp.locName = m.name, m.shape, m.required, m.loc, m.locName
			fp.in, fp.out = m.in, m.out
			if m.loc == 0 && m.locName != "" {
				fp.name = m.locName
			}
		}
		if fp.in == "" {
			fp.in = upperFirst(fp.goName)
		}
		if fp.out == "" {
			fp.out = lowerFirst(fp.goName)
		}
		fp.path = lowerFirst(fp.name)
		fp.jsonKey = strconv.Quote(fp.name) + ":"
		v, err := b.valueOf(f.Type, memberShape)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", f.Name, err)
		}
		fp.v = v
		fp.secret = v.shape != nil && v.shape.sensitive
		if v.check || fp.required {
			check = true
		}
		if sh != nil && sh.payload != "" && upperFirst(sh.payload) == f.Name {
			p.payload = len(p.fields)
		}
		p.byName[fp.name] = len(p.fields)
		p.fields = append(p.fields, fp)
	}
	if b.s.Protocol == EC2Query {
		p.byIn = make(map[string]int, len(p.fields))
		for i := range p.fields {
			p.byIn[p.fields[i].in] = i
		}
	} else {
		p.byIn = p.byName
	}
	p.check = check
	return p, nil
}

func (b *planBuilder) valueOf(t reflect.Type, shapeName string) (*value, error) {
	v := &value{typ: t}
	if sh := b.t.shapes[shapeName]; sh != nil {
		v.shape = sh
	}
	if t.Kind() == reflect.Pointer {
		v.ptr, v.typ = true, t.Elem()
		t = v.typ
	}
	var err error
	switch {
	case t == timeType:
		v.kind = kindTime
	case t == bytesType:
		v.kind = kindBytes
	case t.Kind() == reflect.String:
		v.kind = kindString
		v.shape = enumShape(t, v.shape)
	case t.Kind() == reflect.Bool:
		v.kind = kindBool
	case t.Kind() == reflect.Int32:
		v.kind = kindInt32
	case t.Kind() == reflect.Int64:
		v.kind = kindInt64
	case t.Kind() == reflect.Float32:
		v.kind = kindFloat32
	case t.Kind() == reflect.Float64:
		v.kind = kindFloat64
	case t.Kind() == reflect.Struct:
		v.kind = kindStruct
		if v.st, err = b.structOf(t, shapeName); err != nil {
			return nil, err
		}
		v.check = v.st.check
	case t.Kind() == reflect.Slice:
		v.kind = kindList
		if v.elem, err = b.valueOf(t.Elem(), b.elemShape(v.shape)); err != nil {
			return nil, err
		}
		v.check = v.elem.check
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		v.kind = kindMap
		if v.elem, err = b.valueOf(t.Elem(), b.elemShape(v.shape)); err != nil {
			return nil, err
		}
		ks := ""
		if v.shape != nil {
			ks = v.shape.key
		}
		if v.key, err = b.valueOf(t.Key(), ks); err != nil {
			return nil, err
		}
		v.check = v.elem.check || v.key.check
	case t.Kind() == reflect.Interface && t.Implements(readerType):
		v.kind = kindReader
	case t.Kind() == reflect.Interface:
		v.kind = kindUnion
		variants, ok := unions[t]
		if !ok {
			return nil, fmt.Errorf("union %v is not registered", t)
		}
		v.union = new(unionPlan)
		var sh *shape
		if v.shape != nil && v.shape.kind == shapeStruct {
			sh = v.shape
		}
		for _, u := range variants {
			ms := ""
			if sh != nil && sh.members[upperFirst(u.name)] != nil {
				ms = sh.members[upperFirst(u.name)].shape
			}
			uv, err := b.valueOf(u.typ.Field(0).Type, ms)
			if err != nil {
				return nil, err
			}
			v.union.variants = append(v.union.variants, unionVariant{name: u.name, typ: u.typ, v: uv})
			v.check = v.check || uv.check
		}
	default:
		return nil, fmt.Errorf("type %v has no wire form", t)
	}
	v.check = v.check || v.shape.constrained()
	return v, nil
}

// enumShape adds to an enumeration the values that the SDK's type knows and the
// model, which may be older, does not.
func enumShape(t reflect.Type, sh *shape) *shape {
	m, ok := t.MethodByName("Values")
	if !ok || m.Type.NumIn() != 1 || m.Type.NumOut() != 1 || m.Type.Out(0) != reflect.SliceOf(t) || sh != nil && sh.enum == "" {
		return sh
	}
	enum := ""
	if sh != nil {
		enum = sh.enum
	}
	vals := m.Func.Call([]reflect.Value{reflect.Zero(t)})[0]
	for i := range vals.Len() {
		if e := vals.Index(i).String(); e != "" && !strings.Contains(e, ",") && !enumHas(enum, e) {
			if enum != "" {
				enum += ","
			}
			enum += e
		}
	}
	if sh != nil && enum == sh.enum || enum == "" {
		return sh
	}
	out := &shape{name: t.Name(), typ: "string", enum: enum}
	if sh != nil {
		out.name, out.sensitive = sh.name, sh.sensitive
	}
	return out
}

func (b *planBuilder) elemShape(sh *shape) string {
	if sh == nil {
		return ""
	}
	return sh.elem
}

// at returns the address of a field.
func (f *field) at(p unsafe.Pointer) unsafe.Pointer { return unsafe.Add(p, f.offset) }

// hold returns where a value of v is to be written, making the pointer's
// target when it is held through one.
func (v *value) hold(p unsafe.Pointer) unsafe.Pointer {
	if !v.ptr {
		return p
	}
	q := reflect.New(v.typ).UnsafePointer()
	*(*unsafe.Pointer)(p) = q
	return q
}

// load returns the address of the value and whether the member is set. Plain
// booleans and numbers count as set, plain strings (enums) when not empty.
func (v *value) load(p unsafe.Pointer) (unsafe.Pointer, bool) {
	if v.ptr {
		p = *(*unsafe.Pointer)(p)
		return p, p != nil
	}
	switch v.kind {
	case kindString:
		return p, *(*string)(p) != ""
	case kindBytes:
		return p, *(*[]byte)(p) != nil
	case kindList:
		return p, *(*unsafe.Pointer)(p) != nil // the array of a nil slice
	case kindMap:
		return p, *(*unsafe.Pointer)(p) != nil
	case kindUnion, kindReader:
		return p, !reflect.NewAt(v.typ, p).Elem().IsNil()
	case kindTime:
		return p, !(*time.Time)(p).IsZero()
	}
	return p, true
}

// each calls f with the address of each element of a list.
func (v *value) each(p unsafe.Pointer, f func(i int, e unsafe.Pointer) error) error {
	h := (*struct {
		data     unsafe.Pointer
		len, cap int
	})(p)
	size := v.elem.holder().Size()
	for i := range h.len {
		if err := f(i, unsafe.Add(h.data, uintptr(i)*size)); err != nil {
			return err
		}
	}
	return nil
}

// holder is the type a value has where it is held.
func (v *value) holder() reflect.Type {
	if v.ptr {
		return reflect.PointerTo(v.typ)
	}
	return v.typ
}

// structAddr checks that x is a non-nil pointer to a struct and returns both.
func structAddr(x any) (reflect.Type, unsafe.Pointer, error) {
	rv := reflect.ValueOf(x)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || rv.Elem().Kind() != reflect.Struct {
		return nil, nil, fmt.Errorf("wire: %T is not a pointer to a struct", x)
	}
	return rv.Type().Elem(), rv.UnsafePointer(), nil
}
