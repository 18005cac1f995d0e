package wire

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"
)

const xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// appendQueryReply wraps the members as Query does:
// XResponse > XResult, ResponseMetadata > RequestId. The result is left out where
// the model has no output.
func (o *OperationModel) appendQueryReply(b []byte, requestID string, sp *structPlan, p unsafe.Pointer) []byte {
	b = append(b, '<')
	b = append(b, o.Name...)
	b = append(b, `Response xmlns="`...)
	b = append(b, o.Service.XMLNamespace...)
	b = append(b, `">`...)
	if o.output != "" {
		b = append(b, '<')
		b = append(b, o.Name...)
		b = append(b, "Result>"...)
		x := xmlEncoder{b: b}
		x.members(sp, p)
		b = append(x.b, "</"...)
		b = append(b, o.Name...)
		b = append(b, "Result>"...)
	}
	b = append(b, "<ResponseMetadata><RequestId>"...)
	b = appendXMLText(b, requestID)
	b = append(b, "</RequestId></ResponseMetadata></"...)
	b = append(b, o.Name...)
	return append(b, "Response>"...)
}

// appendEC2Reply puts the request ID and the members directly into XResponse;
// operations without output say <return>true</return>.
func (o *OperationModel) appendEC2Reply(b []byte, requestID string, sp *structPlan, p unsafe.Pointer) []byte {
	b = append(b, xmlHeader...)
	b = append(b, '<')
	b = append(b, o.Name...)
	b = append(b, `Response xmlns="`...)
	b = append(b, o.Service.XMLNamespace...)
	b = append(b, `"><requestId>`...)
	b = appendXMLText(b, requestID)
	b = append(b, "</requestId>"...)
	if o.output == "" {
		b = append(b, "<return>true</return>"...)
	} else {
		x := xmlEncoder{b: b, ec2: true}
		x.members(sp, p)
		b = x.b
	}
	b = append(b, "</"...)
	b = append(b, o.Name...)
	return append(b, "Response>"...)
}

type xmlEncoder struct {
	b   []byte
	ec2 bool
}

func (x *xmlEncoder) open(name string) {
	x.b = append(x.b, '<')
	x.b = append(x.b, name...)
	x.b = append(x.b, '>')
}

func (x *xmlEncoder) close(name string) {
	x.b = append(x.b, '<', '/')
	x.b = append(x.b, name...)
	x.b = append(x.b, '>')
}

func (x *xmlEncoder) members(sp *structPlan, p unsafe.Pointer) {
	for i := range sp.fields {
		f := &sp.fields[i]
		q, ok := f.v.load(f.at(p))
		if !ok {
			continue
		}
		name := f.name
		if x.ec2 {
			name = f.out
		}
		x.open(name)
		x.value(f.v, q)
		x.close(name)
	}
}

func (x *xmlEncoder) element(name string, v *value, p unsafe.Pointer) {
	x.open(name)
	if q, ok := v.load(p); ok || !v.ptr {
		x.value(v, q)
	}
	x.close(name)
}

func (x *xmlEncoder) value(v *value, p unsafe.Pointer) {
	switch v.kind {
	case kindString:
		x.b = appendXMLText(x.b, *(*string)(p))
	case kindBool:
		x.b = strconv.AppendBool(x.b, *(*bool)(p))
	case kindInt32:
		x.b = strconv.AppendInt(x.b, int64(*(*int32)(p)), 10)
	case kindInt64:
		x.b = strconv.AppendInt(x.b, *(*int64)(p), 10)
	case kindFloat32:
		x.b = appendXMLFloat(x.b, float64(*(*float32)(p)), 32)
	case kindFloat64:
		x.b = appendXMLFloat(x.b, *(*float64)(p), 64)
	case kindBytes:
		x.b = base64.StdEncoding.AppendEncode(x.b, *(*[]byte)(p))
	case kindTime:
		x.b = appendISO(x.b, *(*time.Time)(p), x.ec2)
	case kindStruct:
		x.members(v.st, p)
	case kindList:
		item := "member"
		if x.ec2 {
			item = "item"
			if v.shape != nil && v.shape.item != "" {
				item = v.shape.item
			}
		}
		v.each(p, func(_ int, e unsafe.Pointer) error {
			x.element(item, v.elem, e)
			return nil
		})
	case kindMap:
		eachEntry(v, p, func(k string, e unsafe.Pointer) {
			x.open("entry")
			x.open("key")
			x.b = appendXMLText(x.b, k)
			x.close("key")
			x.element("value", v.elem, e)
			x.close("entry")
		})
	case kindUnion:
		if u, q := v.variant(p); u != nil {
			x.open(u.name)
			x.value(u.v, q)
			x.close(u.name)
		}
	}
}

func appendXMLFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	return strconv.AppendFloat(b, f, 'f', -1, bits)
}

// appendISO writes ISO 8601 in UTC: EC2 always with milliseconds, the others
// when there are some.
func appendISO(b []byte, t time.Time, ms bool) []byte {
	t = t.UTC()
	if ms || t.Nanosecond() >= 1e6 {
		return t.AppendFormat(b, "2006-01-02T15:04:05.000Z")
	}
	return t.AppendFormat(b, "2006-01-02T15:04:05Z")
}

// appendXMLText escapes character data; characters that XML 1.0 does not allow become
// U+FFFD.
func appendXMLText(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		n := 1
		var esc string
		switch {
		case c == '&':
			esc = "&amp;"
		case c == '<':
			esc = "&lt;"
		case c == '>':
			esc = "&gt;"
		case c == '"':
			esc = "&quot;"
		case c == '\r':
			esc = "&#xD;"
		case c == '\n' || c == '\t':
		case c < 0x20:
			esc = "\uFFFD"
		case c >= utf8.RuneSelf:
			var r rune
			r, n = utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
				esc = "\uFFFD"
			}
		}
		if esc != "" {
			b = append(b, s[start:i]...)
			b = append(b, esc...)
			start = i + n
		}
		i += n
	}
	return append(b, s[start:]...)
}
