package wire

import (
	"reflect"
	"sort"
	"strings"
	"time"
	"unsafe"
)

// SetMembers lists the members of an input that are set, by their dotted Go
// names (BlockDeviceMappings.Ebs.VolumeSize), sorted; list numbers are left
// out, map keys too. A structure that is set is listed by its members, or by
// itself when it has none set. Plain booleans and numbers count as set when not zero.
func SetMembers(in any) []string {
	found := map[string]bool{}
	rv := reflect.ValueOf(in)
	for rv.Kind() == reflect.Pointer && !rv.IsNil() {
		rv = rv.Elem()
	}
	if rv.Kind() == reflect.Struct {
		structMembers(rv, "", found)
	}
	names := make([]string, 0, len(found))
	for n := range found {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func structMembers(rv reflect.Value, path string, found map[string]bool) bool {
	any := false
	t := rv.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() || f.Anonymous || f.Name == "ResultMetadata" {
			continue
		}
		fv := rv.Field(i)
		if fv.IsZero() || fv.Kind() == reflect.Slice && fv.Len() == 0 || fv.Kind() == reflect.Map && fv.Len() == 0 {
			continue
		}
		any = true
		setMember(fv, path+f.Name, found)
	}
	return any
}

func setMember(v reflect.Value, path string, found map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.Type().Kind() == reflect.Interface && v.Elem().Kind() == reflect.Pointer && v.Elem().Elem().Kind() == reflect.Struct {
			if _, member, ok := strings.Cut(v.Elem().Elem().Type().Name(), "Member"); ok { // a union
				found[path+"."+member] = true
				return
			}
		}
		if v.Elem().Kind() == reflect.Struct && v.Kind() == reflect.Pointer {
			setMember(v.Elem(), path, found)
			return
		}
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[time.Time]() {
			if !structMembers(v, path+".", found) {
				found[path] = true
			}
			return
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct && v.Type().Elem() != reflect.TypeFor[time.Time]() {
			for i := range v.Len() {
				setMember(v.Index(i), path, found)
			}
			return
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Struct {
			for _, k := range v.MapKeys() {
				setMember(v.MapIndex(k), path, found)
			}
			return
		}
	}
	found[path] = true
}

// UnsupportedSet returns those set members of an input that are not among the
// supported ones. A supported name covers everything beneath it:
// "BlockDeviceMappings" covers BlockDeviceMappings.Ebs.Iops, and
// "BlockDeviceMappings.Ebs.VolumeSize" covers that member only.
func UnsupportedSet(in any, supported ...string) []string {
	var out []string
	for _, name := range SetMembers(in) {
		ok := false
		for _, s := range supported {
			if name == s || strings.HasPrefix(name, s+".") || strings.HasPrefix(s, name+".") {
				ok = true
				break
			}
		}
		if !ok {
			out = append(out, name)
		}
	}
	return out
}

// RefusedSet returns those set members of an input that are among the refused
// ones, or beneath them.
func RefusedSet(in any, refused ...string) []string {
	if len(refused) == 0 {
		return nil
	}
	var out []string
	for _, name := range SetMembers(in) {
		for _, r := range refused {
			if name == r || strings.HasPrefix(name, r+".") {
				out = append(out, name)
				break
			}
		}
	}
	return out
}

// hidden stands in a record for what it must not show, as CloudTrail does.
const hidden = "HIDDEN_DUE_TO_SECURITY_REASONS"

// AppendRecord appends an input or output (*XxxInput, *XxxOutput) to b as
// CloudTrail shows it in requestParameters and responseElements: JSON
// whose member names begin in lower case, timestamps in words, members that the model calls
// sensitive hidden, blobs and streams left out. Sensitive names further members by
// their Go name that are to be left out.
func (o *OperationModel) AppendRecord(b []byte, x any, sensitive ...string) ([]byte, error) {
	t, p, err := structAddr(x)
	if err != nil {
		return b, err
	}
	name := o.input
	if strings.HasSuffix(t.Name(), "Output") {
		name = o.output
	}
	sp, err := o.Service.plan(t, name)
	if err != nil {
		return b, err
	}
	return appendRecordStruct(b, sp, p, sensitive), nil
}

func appendRecordStruct(b []byte, sp *structPlan, p unsafe.Pointer, sensitive []string) []byte {
	b = append(b, '{')
	first := true
	for i := range sp.fields {
		f := &sp.fields[i]
		q, ok := f.v.load(f.at(p))
		if !ok || f.v.kind == kindBytes || f.v.kind == kindReader {
			continue
		}
		skip := false
		for _, s := range sensitive {
			skip = skip || s == f.goName
		}
		if skip {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendJSONString(b, f.path)
		b = append(b, ':')
		b = appendRecordValue(b, f.v, q, sensitive)
	}
	return append(b, '}')
}

func appendRecordValue(b []byte, v *value, p unsafe.Pointer, sensitive []string) []byte {
	if v.shape != nil && v.shape.sensitive {
		return appendJSONString(b, hidden)
	}
	switch v.kind {
	case kindBytes, kindReader:
		return append(b, "null"...)
	case kindTime:
		t := *(*time.Time)(p)
		return appendJSONString(b, t.UTC().Format("Jan 2, 2006, 3:04:05 PM"))
	case kindStruct:
		return appendRecordStruct(b, v.st, p, sensitive)
	case kindList:
		b = append(b, '[')
		v.each(p, func(i int, e unsafe.Pointer) error {
			if i > 0 {
				b = append(b, ',')
			}
			if q, ok := v.elem.load(e); ok || !v.elem.ptr {
				b = appendRecordValue(b, v.elem, q, sensitive)
			} else {
				b = append(b, "null"...)
			}
			return nil
		})
		return append(b, ']')
	case kindMap:
		b = append(b, '{')
		first := true
		eachEntry(v, p, func(k string, e unsafe.Pointer) {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendJSONString(b, k)
			b = append(b, ':')
			if q, ok := v.elem.load(e); ok || !v.elem.ptr {
				b = appendRecordValue(b, v.elem, q, sensitive)
			} else {
				b = append(b, "null"...)
			}
		})
		return append(b, '}')
	case kindUnion:
		b = append(b, '{')
		if u, q := v.variant(p); u != nil {
			b = appendJSONString(b, lowerFirst(u.name))
			b = append(b, ':')
			b = appendRecordValue(b, u.v, q, sensitive)
		}
		return append(b, '}')
	}
	return appendJSONValue(b, v, p)
}
