package wire

import (
	"encoding/base64"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"
)

const (
	maxParams   = 20000 // of one form
	maxSegments = 32    // of one parameter's name
)

// A node is a form seen as a tree: Filter.1.Value.2=x is the value of the
// path Filter, 1, Value, 2.
type node struct {
	value string
	set   bool
	kids  map[string]*node
}

func (n *node) kid(name string) *node {
	if n == nil {
		return nil
	}
	return n.kids[name]
}

func parseForm(root *node, form string, count *int) error {
	for form != "" {
		var pair string
		pair, form, _ = strings.Cut(form, "&")
		if pair == "" {
			continue
		}
		if *count++; *count > maxParams {
			return serialization("the request has more than " + strconv.Itoa(maxParams) + " parameters")
		}
		k, v, _ := strings.Cut(pair, "=")
		k, err := url.QueryUnescape(k)
		if err != nil {
			return &Error{Kind: MalformedQuery, Message: "The query string contains a syntax error: " + err.Error()}
		}
		if v, err = url.QueryUnescape(v); err != nil {
			return &Error{Kind: MalformedQuery, Message: "The query string contains a syntax error: " + err.Error()}
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return serialization("the parameter " + strconv.QuoteToASCII(clip(k)) + " is not valid UTF-8")
		}
		n := root
		for depth := 0; ; depth++ {
			seg, rest, more := strings.Cut(k, ".")
			if depth == maxSegments {
				return serialization("the name of a parameter has more than " + strconv.Itoa(maxSegments) + " parts")
			}
			next := n.kids[seg]
			if next == nil {
				next = new(node)
				if n.kids == nil {
					n.kids = map[string]*node{}
				}
				n.kids[seg] = next
			}
			n, k = next, rest
			if !more {
				break
			}
		}
		n.value, n.set = v, true
	}
	return nil
}

// commonParam tells parameters that are members of no input: those of every request, and the Region that boto3 and the AWS
// CLI add to a CopySnapshot by themselves, which means something in its presigned URL only (EC2 API Reference, CopySnapshot).
func commonParam(name string) bool {
	switch name {
	case "Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SecurityToken", "Timestamp", "Expires", "DestinationRegion":
		return true
	}
	return strings.HasPrefix(name, "X-Amz-")
}

type formDecoder struct {
	protocol Protocol
	unknown  func(string)
}

func decodeForm(r *http.Request, body []byte, protocol Protocol, sp *structPlan, p unsafe.Pointer, unknown func(string)) error {
	root, count := new(node), 0
	if err := parseForm(root, r.URL.RawQuery, &count); err != nil {
		return err
	}
	if len(body) > 0 {
		if !isForm(r) {
			return serialization("the body must be of type application/x-www-form-urlencoded, found " + quote(r.Header.Get("Content-Type")))
		}
		if err := parseForm(root, string(body), &count); err != nil {
			return err
		}
	}
	d := formDecoder{protocol, unknown}
	return d.object(sp, p, root, "")
}

func (d *formDecoder) object(sp *structPlan, p unsafe.Pointer, n *node, path string) error {
	for name, kid := range n.kids {
		idx, ok := sp.byIn[name]
		if !ok {
			if path == "" && commonParam(name) {
				continue
			}
			if d.unknown != nil {
				kid.leaves(path+name, d.unknown)
			}
			continue
		}
		f := &sp.fields[idx]
		if err := d.value(f.v, f.at(p), kid, path+name); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) leaves(path string, f func(string)) {
	if n.set {
		f(path)
	}
	for name, kid := range n.kids {
		kid.leaves(path+"."+name, f)
	}
}

func (d *formDecoder) value(v *value, p unsafe.Pointer, n *node, path string) error {
	switch v.kind {
	case kindStruct:
		if n.set && n.value != "" {
			return within(serialization("a value was found where a structure is expected"), path)
		}
		if len(n.kids) == 0 {
			v.hold(p)
			return nil
		}
		return d.object(v.st, v.hold(p), n, path+".")
	case kindList:
		return d.list(v, v.hold(p), n, path)
	case kindMap:
		return d.mapping(v, v.hold(p), n, path)
	case kindUnion:
		for name, kid := range n.kids {
			u := v.union.byName(name)
			if u == nil {
				if d.unknown != nil {
					kid.leaves(path+"."+name, d.unknown)
				}
				continue
			}
			if len(n.kids) > 1 {
				return within(serialization("a union must have one member, found more than one"), path)
			}
			x := reflect.New(u.typ)
			if err := d.value(u.v, x.UnsafePointer(), kid, path+"."+name); err != nil {
				return err
			}
			reflect.NewAt(v.typ, p).Elem().Set(x)
		}
		return nil
	}
	if !n.set {
		return within(serialization("Start of structure or map found where not expected."), path)
	}
	if err := v.scalar(p, n.value); err != nil {
		e := err.(*Error)
		if d.protocol == EC2Query {
			return &Error{Kind: Validation, Message: "Invalid value '" + clip(n.value) + "' for " + path + ": " + e.Message}
		}
		return within(err, path)
	}
	return nil
}

// numbered returns the children of a list in the order of their numbers.
func numbered(n *node, path string) ([]*node, error) {
	type item struct {
		i int
		n *node
	}
	items := make([]item, 0, len(n.kids))
	for name, kid := range n.kids {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 {
			return nil, within(serialization("the list elements must be numbered, found "+quote(name)), path)
		}
		items = append(items, item{i, kid})
	}
	sort.Slice(items, func(a, b int) bool { return items[a].i < items[b].i })
	out := make([]*node, len(items))
	for i := range items {
		out[i] = items[i].n
	}
	return out, nil
}

func (d *formDecoder) list(v *value, p unsafe.Pointer, n *node, path string) error {
	if d.protocol == Query {
		if m := n.kid("member"); m != nil {
			n, path = m, path+".member"
		}
	}
	rv := reflect.NewAt(v.typ, p).Elem()
	if len(n.kids) == 0 {
		if n.value != "" {
			return within(serialization("the list elements must be numbered: "+path+".1=…"), path)
		}
		rv.Set(reflect.MakeSlice(v.typ, 0, 0)) // "Names=" is an empty list
		return nil
	}
	kids, err := numbered(n, path)
	if err != nil {
		return err
	}
	rv.Set(reflect.MakeSlice(v.typ, len(kids), len(kids)))
	for i, kid := range kids {
		if err := d.value(v.elem, rv.Index(i).Addr().UnsafePointer(), kid, path+"."+strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	return nil
}

func (d *formDecoder) mapping(v *value, p unsafe.Pointer, n *node, path string) error {
	if e := n.kid("entry"); e != nil {
		n, path = e, path+".entry"
	}
	rv := reflect.NewAt(v.typ, p).Elem()
	rv.Set(reflect.MakeMap(v.typ))
	if len(n.kids) == 0 {
		return nil
	}
	kids, err := numbered(n, path)
	if err != nil {
		return err
	}
	for i, kid := range kids {
		at := path + "." + strconv.Itoa(i+1)
		k, val := kid.kid("key"), kid.kid("value")
		if k == nil || !k.set || val == nil {
			return within(serialization("a map entry must have a key and a value"), at)
		}
		e := reflect.New(v.elem.holder())
		if err := d.value(v.elem, e.UnsafePointer(), val, at+".value"); err != nil {
			return err
		}
		rv.SetMapIndex(reflect.ValueOf(k.value).Convert(v.typ.Key()), e.Elem())
	}
	return nil
}

// scalar reads the text form of a scalar: of a form parameter, a header, a
// label. Its errors are *Error of kind Serialization.
func (v *value) scalar(p unsafe.Pointer, s string) error {
	switch v.kind {
	case kindString:
		if v.ptr {
			*(**string)(p) = &s
		} else {
			*(*string)(p) = s
		}
	case kindBool:
		var x bool
		switch {
		case strings.EqualFold(s, "true") || s == "1":
			x = true
		case strings.EqualFold(s, "false") || s == "0":
		default:
			return serialization(quote(s) + " is not a boolean: true or false is expected")
		}
		*(*bool)(v.hold(p)) = x
	case kindInt32:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return serialization(quote(s) + " is not an integer of 32 bits")
		}
		*(*int32)(v.hold(p)) = int32(n)
	case kindInt64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return serialization(quote(s) + " is not an integer of 64 bits")
		}
		*(*int64)(v.hold(p)) = n
	case kindFloat32, kindFloat64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return serialization(quote(s) + " is not a number")
		}
		if v.kind == kindFloat64 {
			*(*float64)(v.hold(p)) = x
		} else {
			*(*float32)(v.hold(p)) = float32(x)
		}
	case kindBytes:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return serialization("the value is not valid base64")
		}
		*(*[]byte)(v.hold(p)) = b
	case kindTime:
		t, err := parseTime(s)
		if err != nil {
			return err
		}
		*(*time.Time)(v.hold(p)) = t
	default:
		return serialization("Start of structure or map found where not expected.")
	}
	return nil
}

// parseTime reads ISO 8601 as clients write it, or seconds since 1970.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02", "20060102T150405Z"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	if x, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(x) < 253402300800 {
		return epoch(x), nil
	}
	return time.Time{}, serialization(quote(s) + " is not a timestamp: the form 2006-01-02T15:04:05Z is expected")
}
