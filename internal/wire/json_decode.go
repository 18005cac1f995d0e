package wire

import (
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// maxDepth bounds how deep a request may nest.
const maxDepth = 100

// jsonDecoder reads one JSON text (RFC 8259) into a struct along its plan.
// Null members are absent, the last of equal names wins, unknown members are
// reported and skipped.
type jsonDecoder struct {
	b       []byte
	i       int
	depth   int
	unknown func(path string)
	path    []string // of the member being read, for unknown
	strs    []string // room for *string members, so that each needs no allocation of its own
	scratch []byte
}

func decodeJSON(body []byte, sp *structPlan, p unsafe.Pointer, unknown func(string)) error {
	if !utf8.Valid(body) {
		return serialization("the body is not valid UTF-8")
	}
	d := jsonDecoder{b: body, unknown: unknown}
	d.space()
	if d.i == len(d.b) {
		return nil // an empty body is an empty structure
	}
	if err := d.object(sp, p); err != nil {
		return err
	}
	if d.space(); d.i < len(d.b) {
		return d.syntax()
	}
	return nil
}

func (d *jsonDecoder) space() {
	for d.i < len(d.b) {
		switch d.b[d.i] {
		case ' ', '\t', '\r', '\n':
			d.i++
		default:
			return
		}
	}
}

// next skips space and returns the next byte without taking it, 0 at the end.
func (d *jsonDecoder) next() byte {
	d.space()
	if d.i == len(d.b) {
		return 0
	}
	return d.b[d.i]
}

func (d *jsonDecoder) syntax() error {
	if d.i >= len(d.b) {
		return serialization("the JSON ends too early, at byte " + strconv.Itoa(d.i))
	}
	return serialization("unexpected character " + strconv.QuoteRuneToASCII(rune(d.b[d.i])) + " in the JSON at byte " + strconv.Itoa(d.i))
}

// found names the value that begins at the cursor as AWS does.
func (d *jsonDecoder) found() string {
	switch c := d.next(); {
	case c == '"':
		return "STRING_VALUE"
	case c == 't':
		return "TRUE_VALUE"
	case c == 'f':
		return "FALSE_VALUE"
	case c == '-' || c >= '0' && c <= '9':
		return "NUMBER_VALUE"
	case c == '{':
		return "START_OBJECT"
	case c == '[':
		return "START_ARRAY"
	}
	return ""
}

func (d *jsonDecoder) mismatch(k kind) error {
	f := d.found()
	switch {
	case f == "":
		return d.syntax()
	case f == "START_OBJECT" || f == "START_ARRAY":
		return serialization("Start of structure or map found where not expected.")
	case k == kindList:
		return serialization("Expected list or null")
	case k == kindStruct || k == kindMap || k == kindUnion:
		return serialization("Expected a structure or map or null, found " + f)
	}
	article := "a "
	if k == kindInt32 {
		article = "an "
	}
	return serialization(f + " can not be converted to " + article + k.String())
}

func (d *jsonDecoder) literal(s string) bool {
	if len(d.b)-d.i >= len(s) && string(d.b[d.i:d.i+len(s)]) == s {
		d.i += len(s)
		return true
	}
	return false
}

func (d *jsonDecoder) enter() error {
	d.i++
	if d.depth++; d.depth > maxDepth {
		return serialization("the JSON nests more than " + strconv.Itoa(maxDepth) + " levels deep")
	}
	return nil
}

// member reads `"name" :` and returns the name, valid until the next string.
func (d *jsonDecoder) member() ([]byte, error) {
	if d.next() != '"' {
		return nil, d.syntax()
	}
	name, err := d.str()
	if err != nil {
		return nil, err
	}
	if d.next() != ':' {
		return nil, d.syntax()
	}
	d.i++
	return name, nil
}

// more takes the comma or the closing byte after an element.
func (d *jsonDecoder) more(end byte) (bool, error) {
	switch d.next() {
	case ',':
		d.i++
		return true, nil
	case end:
		d.i++
		d.depth--
		return false, nil
	}
	return false, d.syntax()
}

func (d *jsonDecoder) object(sp *structPlan, p unsafe.Pointer) error {
	if d.next() != '{' {
		return d.mismatch(kindStruct)
	}
	if err := d.enter(); err != nil {
		return err
	}
	if d.next() == '}' {
		d.i++
		d.depth--
		return nil
	}
	for {
		name, err := d.member()
		if err != nil {
			return err
		}
		if idx, ok := sp.byName[string(name)]; ok {
			f := &sp.fields[idx]
			d.path = append(d.path, f.name)
			if err := d.value(f.v, f.at(p)); err != nil {
				return within(err, f.name)
			}
			d.path = d.path[:len(d.path)-1]
		} else {
			if d.unknown != nil && string(name) != "__type" {
				d.unknown(joinPath(d.path, string(name)))
			}
			if err := d.skip(); err != nil {
				return err
			}
		}
		if more, err := d.more('}'); !more {
			return err
		}
	}
}

func (d *jsonDecoder) value(v *value, p unsafe.Pointer) error {
	c := d.next()
	if c == 'n' {
		if !d.literal("null") {
			return d.syntax()
		}
		return nil
	}
	switch v.kind {
	case kindString:
		if c != '"' {
			return d.mismatch(v.kind)
		}
		s, err := d.str()
		if err != nil {
			return err
		}
		if v.ptr {
			if len(d.strs) == cap(d.strs) {
				d.strs = make([]string, 0, 4)
			}
			d.strs = append(d.strs, string(s))
			*(**string)(p) = &d.strs[len(d.strs)-1]
		} else {
			*(*string)(p) = string(s)
		}
	case kindBool:
		var x bool
		switch {
		case d.literal("true"):
			x = true
		case d.literal("false"):
		default:
			return d.mismatch(v.kind)
		}
		*(*bool)(v.hold(p)) = x
	case kindInt32, kindInt64:
		n, err := d.integer(v.kind)
		if err != nil {
			return err
		}
		if v.kind == kindInt64 {
			*(*int64)(v.hold(p)) = n
		} else if n < math.MinInt32 || n > math.MaxInt32 {
			return serialization("NUMBER_VALUE " + strconv.FormatInt(n, 10) + " is out of the range of an Integer")
		} else {
			*(*int32)(v.hold(p)) = int32(n)
		}
	case kindFloat32, kindFloat64:
		x, err := d.float(v.kind)
		if err != nil {
			return err
		}
		if v.kind == kindFloat64 {
			*(*float64)(v.hold(p)) = x
		} else {
			*(*float32)(v.hold(p)) = float32(x)
		}
	case kindBytes:
		if c != '"' {
			return d.mismatch(v.kind)
		}
		s, err := d.str()
		if err != nil {
			return err
		}
		out := make([]byte, base64.StdEncoding.DecodedLen(len(s)))
		n, err := base64.StdEncoding.Decode(out, s)
		if err != nil {
			return serialization("STRING_VALUE can not be converted to a Blob: it is not valid base64")
		}
		*(*[]byte)(v.hold(p)) = out[:n]
	case kindTime:
		if c == '"' {
			return d.mismatch(v.kind)
		}
		x, err := d.float(v.kind)
		if err != nil {
			return err
		}
		if math.IsNaN(x) || math.Abs(x) > 253402300800 { // the year 10000
			return serialization("NUMBER_VALUE can not be converted to a Timestamp: it is out of range")
		}
		*(*time.Time)(v.hold(p)) = epoch(x)
	case kindStruct:
		if c != '{' {
			return d.mismatch(v.kind)
		}
		return d.object(v.st, v.hold(p))
	case kindList:
		return d.list(v, v.hold(p))
	case kindMap:
		return d.mapping(v, v.hold(p))
	case kindUnion:
		return d.union(v, p)
	default:
		return serialization("a stream has no JSON form")
	}
	return nil
}

// epoch converts seconds since 1970 to a time, exact to the millisecond.
func epoch(x float64) time.Time {
	return time.UnixMilli(int64(math.Round(x * 1000))).UTC()
}

func (d *jsonDecoder) list(v *value, p unsafe.Pointer) error {
	if d.next() != '[' {
		return d.mismatch(kindList)
	}
	if err := d.enter(); err != nil {
		return err
	}
	strs := v.elem.kind == kindString && !v.elem.ptr
	rv := reflect.NewAt(v.typ, p).Elem()
	if d.next() == ']' {
		d.i++
		d.depth--
		rv.Set(reflect.MakeSlice(v.typ, 0, 0))
		return nil
	}
	if strs {
		*(*[]string)(p) = nil
	} else {
		rv.SetZero()
	}
	for n := 0; ; n++ {
		if d.next() == 'n' {
			return serialization("null is not allowed within a list")
		}
		if strs {
			if d.next() != '"' {
				return d.mismatch(kindString)
			}
			s, err := d.str()
			if err != nil {
				return err
			}
			l := (*[]string)(p)
			*l = append(*l, string(s))
		} else {
			rv.Grow(1)
			rv.SetLen(n + 1)
			e := rv.Index(n).Addr().UnsafePointer()
			if err := d.value(v.elem, e); err != nil {
				return within(err, strconv.Itoa(n+1))
			}
		}
		if more, err := d.more(']'); !more {
			return err
		}
	}
}

var stringMapType = reflect.TypeFor[map[string]string]()

func (d *jsonDecoder) mapping(v *value, p unsafe.Pointer) error {
	if d.next() != '{' {
		return d.mismatch(kindMap)
	}
	if err := d.enter(); err != nil {
		return err
	}
	simple := v.typ == stringMapType
	var m map[string]string
	var rv, e reflect.Value
	if simple {
		m = make(map[string]string)
		*(*map[string]string)(p) = m
	} else {
		rv = reflect.NewAt(v.typ, p).Elem()
		rv.Set(reflect.MakeMap(v.typ))
		e = reflect.New(v.elem.holder())
	}
	if d.next() == '}' {
		d.i++
		d.depth--
		return nil
	}
	for {
		b, err := d.member()
		if err != nil {
			return err
		}
		name := string(b)
		if d.next() == 'n' {
			return within(serialization("null is not allowed within a map"), name)
		}
		if simple {
			if d.next() != '"' {
				return within(d.mismatch(kindString), name)
			}
			s, err := d.str()
			if err != nil {
				return err
			}
			m[name] = string(s)
		} else {
			e.Elem().SetZero()
			if err := d.value(v.elem, e.UnsafePointer()); err != nil {
				return within(err, name)
			}
			rv.SetMapIndex(reflect.ValueOf(name).Convert(v.typ.Key()), e.Elem())
		}
		if more, err := d.more('}'); !more {
			return err
		}
	}
}

func (d *jsonDecoder) union(v *value, p unsafe.Pointer) error {
	if d.next() != '{' {
		return d.mismatch(kindUnion)
	}
	if err := d.enter(); err != nil {
		return err
	}
	set := false
	if d.next() == '}' {
		d.i++
		d.depth--
		return serialization("a union must have one member, found none")
	}
	for {
		b, err := d.member()
		if err != nil {
			return err
		}
		name := string(b)
		if d.next() == 'n' {
			if !d.literal("null") {
				return d.syntax()
			}
		} else if u := v.union.byName(name); u != nil {
			if set {
				return serialization("a union must have one member, found more than one")
			}
			set = true
			x := reflect.New(u.typ)
			if err := d.value(u.v, x.UnsafePointer()); err != nil {
				return within(err, name)
			}
			reflect.NewAt(v.typ, p).Elem().Set(x)
		} else {
			if d.unknown != nil && name != "__type" {
				d.unknown(joinPath(d.path, name))
			}
			if err := d.skip(); err != nil {
				return err
			}
		}
		if more, err := d.more('}'); !more {
			if err == nil && !set {
				err = serialization("a union must have one member, found none that is known")
			}
			return err
		}
	}
}

func (u *unionPlan) byName(name string) *unionVariant {
	for i := range u.variants {
		if u.variants[i].name == name {
			return &u.variants[i]
		}
	}
	return nil
}

// str reads a string; the cursor is at its opening quote. The bytes are valid
// until the next call.
func (d *jsonDecoder) str() ([]byte, error) {
	d.i++
	start := d.i
	for i := d.i; i < len(d.b); i++ {
		switch c := d.b[i]; {
		case c == '"':
			d.i = i + 1
			return d.b[start:i], nil
		case c == '\\':
			d.i = i
			return d.escaped(start)
		case c < 0x20:
			d.i = i
			return nil, d.syntax()
		}
	}
	d.i = len(d.b)
	return nil, d.syntax()
}

func (d *jsonDecoder) escaped(start int) ([]byte, error) {
	out := append(d.scratch[:0], d.b[start:d.i]...)
	defer func() { d.scratch = out }()
	for d.i < len(d.b) {
		c := d.b[d.i]
		switch {
		case c == '"':
			d.i++
			return out, nil
		case c < 0x20:
			return nil, d.syntax()
		case c != '\\':
			out = append(out, c)
			d.i++
			continue
		}
		d.i++
		if d.i == len(d.b) {
			break
		}
		switch e := d.b[d.i]; e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := d.hex4(d.i + 1)
			if !ok {
				return nil, d.syntax()
			}
			d.i += 4
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if d.i+2 < len(d.b) && d.b[d.i+1] == '\\' && d.b[d.i+2] == 'u' {
					low, ok = d.hex4(d.i + 3)
				}
				if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
					d.i += 6
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, d.syntax()
		}
		d.i++
	}
	return nil, d.syntax()
}

func (d *jsonDecoder) hex4(i int) (rune, bool) {
	if i+4 > len(d.b) {
		return 0, false
	}
	var r rune
	for _, c := range d.b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// number takes a number token (RFC 8259, section 6).
func (d *jsonDecoder) number() ([]byte, error) {
	start := d.i
	digits := func() bool {
		n := d.i
		for d.i < len(d.b) && d.b[d.i] >= '0' && d.b[d.i] <= '9' {
			d.i++
		}
		return d.i > n
	}
	if d.i < len(d.b) && d.b[d.i] == '-' {
		d.i++
	}
	if d.i < len(d.b) && d.b[d.i] == '0' {
		d.i++
	} else if !digits() {
		return nil, d.syntax()
	}
	if d.i < len(d.b) && d.b[d.i] == '.' {
		d.i++
		if !digits() {
			return nil, d.syntax()
		}
	}
	if d.i < len(d.b) && (d.b[d.i] == 'e' || d.b[d.i] == 'E') {
		d.i++
		if d.i < len(d.b) && (d.b[d.i] == '+' || d.b[d.i] == '-') {
			d.i++
		}
		if !digits() {
			return nil, d.syntax()
		}
	}
	return d.b[start:d.i], nil
}

func (d *jsonDecoder) integer(k kind) (int64, error) {
	if d.found() != "NUMBER_VALUE" {
		return 0, d.mismatch(k)
	}
	tok, err := d.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(tok), 10, 64)
	if err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(string(tok), 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) >= 1<<63 {
		return 0, serialization("NUMBER_VALUE " + string(tok[:min(len(tok), 40)]) + " can not be converted to an " + k.String())
	}
	return int64(x), nil
}

func (d *jsonDecoder) float(k kind) (float64, error) {
	switch d.found() {
	case "NUMBER_VALUE":
		tok, err := d.number()
		if err != nil {
			return 0, err
		}
		x, err := strconv.ParseFloat(string(tok), 64)
		if err != nil {
			return 0, serialization("NUMBER_VALUE " + string(tok[:min(len(tok), 40)]) + " is out of the range of a " + k.String())
		}
		return x, nil
	case "STRING_VALUE":
		for _, s := range []string{"NaN", "Infinity", "-Infinity"} {
			if d.literal(`"` + s + `"`) {
				x, err := strconv.ParseFloat(s, 64)
				return x, err
			}
		}
	}
	return 0, d.mismatch(k)
}

// skip passes over any value.
func (d *jsonDecoder) skip() error {
	switch c := d.next(); c {
	case '{', '[':
		if err := d.enter(); err != nil {
			return err
		}
		end := byte('}')
		if c == '[' {
			end = ']'
		}
		if d.next() == end {
			d.i++
			d.depth--
			return nil
		}
		for {
			if c == '{' {
				if _, err := d.member(); err != nil {
					return err
				}
			}
			if err := d.skip(); err != nil {
				return err
			}
			if more, err := d.more(end); !more {
				return err
			}
		}
	case '"':
		_, err := d.str()
		return err
	case 't', 'f', 'n':
		if d.literal("true") || d.literal("false") || d.literal("null") {
			return nil
		}
		return d.syntax()
	case 0:
		return d.syntax()
	default:
		_, err := d.number()
		return err
	}
}

func joinPath(path []string, name string) string {
	n := len(name)
	for _, p := range path {
		n += len(p) + 1
	}
	b := make([]byte, 0, n)
	for _, p := range path {
		b = append(append(b, p...), '.')
	}
	return string(append(b, name...))
}
