package wire

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// decodeREST reads a REST-JSON request: labels of the path, query parameters,
// headers, and the body as JSON or, where the input has a payload member, as that.
func (o *OperationModel) decodeREST(r *http.Request, body []byte, sp *structPlan, p unsafe.Pointer, unknown func(string)) error {
	if sp.payload >= 0 {
		f := &sp.fields[sp.payload]
		switch f.v.kind {
		case kindReader:
			var src io.Reader = r.Body
			if body != nil || r.Body == nil {
				src = io.NopCloser(bytes.NewReader(body))
			}
			rv := reflect.ValueOf(src)
			if !rv.Type().AssignableTo(f.v.typ) {
				return fmt.Errorf("wire: %v cannot hold the body of a request", f.v.typ)
			}
			reflect.NewAt(f.v.typ, f.at(p)).Elem().Set(rv)
		case kindStruct:
			if len(body) > 0 {
				if err := decodeJSON(body, f.v.st, f.v.hold(f.at(p)), unknown); err != nil {
					return within(err, f.name)
				}
			}
		default:
			return fmt.Errorf("wire: payload %s of %s has no wire form", f.goName, o.Name)
		}
	} else if err := decodeJSON(body, sp, p, unknown); err != nil {
		return err
	}

	labels := map[string]string{}
	if !o.match(r.URL.EscapedPath(), func(n, v string) { labels[n] = v }) {
		return &Error{Kind: UnknownOperation, Message: "The path " + quote(r.URL.Path) + " is not one of " + o.Name}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return serialization("the query string is malformed: " + err.Error())
	}
	for i := range sp.fields {
		f := &sp.fields[i]
		var text string
		var ok bool
		switch f.loc {
		case 'u':
			text, ok = labels[f.locName]
		case 'q':
			if list := query[f.locName]; len(list) > 0 && f.v.kind == kindList {
				if slices.ContainsFunc(list, func(v string) bool { return !utf8.ValidString(v) }) {
					return within(serialization("the value is not valid UTF-8"), f.name)
				}
				// Lists in a query string are lists of strings (restJson1, httpQuery).
				*(*[]string)(f.at(p)) = list
				continue
			}
			if ok = query.Has(f.locName); ok {
				text = query.Get(f.locName)
			}
		case 'h':
			vs := r.Header.Values(f.locName)
			if ok = len(vs) > 0; ok {
				text = vs[0]
			}
		}
		if !ok {
			// A member bound elsewhere may not come in by the body.
			if f.loc != 0 {
				reflect.NewAt(f.v.holder(), f.at(p)).Elem().SetZero()
			}
			continue
		}
		if !utf8.ValidString(text) {
			return within(serialization("the value is not valid UTF-8"), f.name)
		}
		if err := f.v.scalar(f.at(p), strings.TrimSpace(text)); err != nil {
			return within(err, f.name)
		}
	}
	return nil
}

// encodeHeaders sets the headers a reply's members are bound to.
func encodeHeaders(h http.Header, sp *structPlan, p unsafe.Pointer) error {
	for i := range sp.fields {
		f := &sp.fields[i]
		if f.loc != 'h' {
			continue
		}
		if q, ok := f.v.load(f.at(p)); ok {
			text, err := f.v.text(q)
			if err != nil {
				return fmt.Errorf("header %s: %w", f.locName, err)
			}
			h.Set(f.locName, text)
		}
	}
	return nil
}

// text is the form of a scalar in a header, path or query string.
func (v *value) text(q unsafe.Pointer) (string, error) {
	switch v.kind {
	case kindString:
		return *(*string)(q), nil
	case kindBool:
		return strconv.FormatBool(*(*bool)(q)), nil
	case kindInt32:
		return strconv.FormatInt(int64(*(*int32)(q)), 10), nil
	case kindInt64:
		return strconv.FormatInt(*(*int64)(q), 10), nil
	}
	return "", fmt.Errorf("wire: a %v cannot be sent outside of the body", v.kind)
}
