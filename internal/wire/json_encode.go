package wire

import (
	"encoding/base64"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"
)

// appendJSON writes the set members of a struct that belong in the body.
// Timestamps are seconds since 1970 with a fraction of milliseconds, blobs base64.
func appendJSON(b []byte, sp *structPlan, p unsafe.Pointer) []byte {
	b = append(b, '{')
	b = appendJSONMembers(b, sp, p)
	return append(b, '}')
}

func appendJSONMembers(b []byte, sp *structPlan, p unsafe.Pointer) []byte {
	first := len(b) == 0 || b[len(b)-1] == '{'
	for i := range sp.fields {
		f := &sp.fields[i]
		if f.loc != 0 || f.v.kind == kindReader {
			continue
		}
		q, set := f.v.load(f.at(p))
		if !set {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, f.jsonKey...)
		b = appendJSONValue(b, f.v, q)
	}
	return b
}

func appendJSONValue(b []byte, v *value, p unsafe.Pointer) []byte {
	switch v.kind {
	case kindString:
		return appendJSONString(b, *(*string)(p))
	case kindBool:
		return strconv.AppendBool(b, *(*bool)(p))
	case kindInt32:
		return strconv.AppendInt(b, int64(*(*int32)(p)), 10)
	case kindInt64:
		return strconv.AppendInt(b, *(*int64)(p), 10)
	case kindFloat32:
		return appendJSONFloat(b, float64(*(*float32)(p)), 32)
	case kindFloat64:
		return appendJSONFloat(b, *(*float64)(p), 64)
	case kindBytes:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, *(*[]byte)(p))
		return append(b, '"')
	case kindTime:
		return appendEpoch(b, *(*time.Time)(p))
	case kindStruct:
		return appendJSON(b, v.st, p)
	case kindList:
		b = append(b, '[')
		v.each(p, func(i int, e unsafe.Pointer) error {
			if i > 0 {
				b = append(b, ',')
			}
			if q, ok := v.elem.load(e); ok || !v.elem.ptr {
				b = appendJSONValue(b, v.elem, q)
			} else {
				b = append(b, "null"...)
			}
			return nil
		})
		return append(b, ']')
	case kindMap:
		b = append(b, '{')
		if v.typ == stringMapType {
			m := *(*map[string]string)(p)
			first := true
			for k, x := range m {
				if !first {
					b = append(b, ',')
				}
				first = false
				b = appendJSONString(b, k)
				b = append(b, ':')
				b = appendJSONString(b, x)
			}
			return append(b, '}')
		}
		first := true
		eachEntry(v, p, func(k string, e unsafe.Pointer) {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendJSONString(b, k)
			b = append(b, ':')
			if q, ok := v.elem.load(e); ok || !v.elem.ptr {
				b = appendJSONValue(b, v.elem, q)
			} else {
				b = append(b, "null"...)
			}
		})
		return append(b, '}')
	case kindUnion:
		b = append(b, '{')
		if u, q := v.variant(p); u != nil {
			b = appendJSONString(b, u.name)
			b = append(b, ':')
			b = appendJSONValue(b, u.v, q)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

// eachEntry visits a map by ascending key, with the address of a copy of each
// value.
func eachEntry(v *value, p unsafe.Pointer, f func(key string, e unsafe.Pointer)) {
	rv := reflect.NewAt(v.typ, p).Elem()
	keys := rv.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	for _, k := range keys {
		e := reflect.New(v.elem.holder())
		e.Elem().Set(rv.MapIndex(k))
		f(k.String(), e.UnsafePointer())
	}
}

// variant returns which member of a union is set and where its value is.
func (v *value) variant(p unsafe.Pointer) (*unionVariant, unsafe.Pointer) {
	x := reflect.NewAt(v.typ, p).Elem().Elem()
	if x.Kind() != reflect.Pointer || x.IsNil() {
		return nil, nil
	}
	for i := range v.union.variants {
		if u := &v.union.variants[i]; u.typ == x.Type().Elem() {
			q, ok := u.v.load(x.UnsafePointer())
			if !ok && u.v.ptr {
				return nil, nil
			}
			return u, q
		}
	}
	return nil, nil
}

func appendJSONFloat(b []byte, x float64, bits int) []byte {
	switch {
	case math.IsNaN(x):
		return append(b, `"NaN"`...)
	case math.IsInf(x, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(x, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, x, 'g', -1, bits)
}

// appendEpoch writes seconds since 1970, with milliseconds unless zero.
func appendEpoch(b []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		b = append(b, '-')
		ms = -ms
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms != 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	}
	return b
}

const hexDigits = "0123456789abcdef"

// appendJSONString writes a JSON string; invalid UTF-8 becomes U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\uFFFD"...)
				i++
				start = i
				continue
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func readerOf(v *value, p unsafe.Pointer) io.Reader {
	r, _ := reflect.NewAt(v.typ, p).Elem().Interface().(io.Reader)
	return r
}
