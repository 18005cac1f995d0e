package wire

import (
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unsafe"
)

// maxViolations bounds how many violations one error tells.
const maxViolations = 20

// A violation is one broken constraint.
type violation struct {
	path       string
	shown      string // "Value 'x' at 'path'", or without the value
	constraint string
	missing    bool
	value      string
}

type validator struct {
	found []violation
	// terse: values are not shown, as IAM does.
	terse bool
}

// show is how a violation names the member and, where the service does, its value.
func (c *validator) show(path, value string, secret bool) string {
	if secret || c.terse {
		return "Value at '" + path + "'"
	}
	return "Value " + value + " at '" + path + "'"
}

// validate checks the struct at p. Awsjson, Query and REST-JSON report in the words of
// AWS's framework ("1 validation error detected: …"), EC2 in its own.
func validate(s *Service, sp *structPlan, p unsafe.Pointer) error {
	if !sp.check {
		return nil
	}
	c := validator{terse: s.Name == "iam"}
	c.members(sp, p, "", s.Protocol == EC2Query)
	if len(c.found) == 0 {
		return nil
	}
	first := c.found[0]
	if s.Protocol == EC2Query {
		if first.missing {
			return &Error{Kind: MissingParameter, Member: first.path, Message: "The request must contain the parameter " + first.path}
		}
		return &Error{Kind: Validation, Member: first.path, Message: "Value (" + first.value + ") for parameter " + first.path + " is invalid. " + first.constraint}
	}
	if c.terse {
		if msg := c.plain(); msg != "" {
			return &Error{Kind: Validation, Member: first.path, Message: msg}
		}
	}
	var b strings.Builder
	n := len(c.found)
	b.WriteString(strconv.Itoa(n))
	b.WriteString(" validation error")
	if n > 1 {
		b.WriteByte('s')
	}
	b.WriteString(" detected: ")
	for i, f := range c.found {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.shown)
		b.WriteString(" failed to satisfy constraint: ")
		b.WriteString(f.constraint)
	}
	return &Error{Kind: Validation, Member: first.path, Message: b.String()}
}

// missingAs are members of EC2 that MissingParameter names otherwise than the request does.
var missingAs = map[string]string{"Resources": "resourceIdSet", "Tags": "tagSet"}

func (c *validator) members(sp *structPlan, p unsafe.Pointer, path string, ec2 bool) {
	for i := range sp.fields {
		f := &sp.fields[i]
		if !f.required && !f.v.check {
			continue
		}
		if len(c.found) >= maxViolations {
			return
		}
		name := f.path
		if ec2 {
			name = f.in
		}
		q, set := f.v.load(f.at(p))
		if !set {
			if f.required {
				if ec2 && missingAs[f.name] != "" {
					name = missingAs[f.name]
				}
				c.found = append(c.found, violation{path: path + name, missing: true,
					shown: c.show(path+name, "null", false), constraint: "Member must not be null"})
			}
			continue
		}
		if f.v.check {
			c.value(f.v, q, path+name, ec2)
		}
	}
}

func (c *validator) value(v *value, p unsafe.Pointer, path string, ec2 bool) {
	if v.shape.constrained() {
		if con := violated(v, v.shape, p, ec2); con != "" {
			val, secret := show(v, p)
			viol := violation{path: path, constraint: con, value: val, shown: c.show(path, "'"+val+"'", secret)}
			if secret {
				viol.value = "***"
			}
			c.found = append(c.found, viol)
		}
	}
	switch v.kind {
	case kindStruct:
		if v.st.check {
			c.members(v.st, p, path+".", ec2)
		}
	case kindList:
		if !v.elem.check {
			return
		}
		// Elements that are plain values are judged as one; structures one by one.
		simple := v.elem.kind != kindStruct && v.elem.kind != kindList && v.elem.kind != kindMap && v.elem.kind != kindUnion
		bad := false
		v.each(p, func(i int, e unsafe.Pointer) error {
			q, ok := v.elem.load(e)
			if !ok && v.elem.ptr || len(c.found) >= maxViolations {
				return nil
			}
			if !simple {
				at := path + "." + strconv.Itoa(i+1)
				if !ec2 {
					at += ".member"
				}
				c.value(v.elem, q, at, ec2)
			} else if ec2 {
				c.value(v.elem, q, path+"."+strconv.Itoa(i+1), ec2)
			} else if violated(v.elem, v.elem.shape, q, ec2) != "" {
				bad = true
			}
			return nil
		})
		if bad {
			c.whole(v, v.elem, p, path, "Member must satisfy constraint: ")
		}
	case kindMap:
		if !v.elem.check && !v.key.check {
			return
		}
		badKey, badValue := false, false
		eachEntry(v, p, func(k string, e unsafe.Pointer) {
			if v.key.shape.constrained() && violated(v.key, v.key.shape, unsafe.Pointer(&k), ec2) != "" {
				badKey = true
			}
			if v.elem.kind == kindStruct || v.elem.kind == kindList || v.elem.kind == kindMap || v.elem.kind == kindUnion {
				if q, ok := v.elem.load(e); ok {
					c.value(v.elem, q, path+"."+clip(k)+".member", ec2)
				}
			} else if v.elem.shape.constrained() && violated(v.elem, v.elem.shape, e, ec2) != "" {
				badValue = true
			}
		})
		if badKey {
			c.whole(v, v.key, p, path, "Map keys must satisfy constraint: ")
		}
		if badValue {
			c.whole(v, v.elem, p, path, "Map value must satisfy constraint: ")
		}
	case kindUnion:
		if u, q := v.variant(p); u != nil && u.v.check {
			c.value(u.v, q, path+"."+lowerFirst(u.name), ec2)
		}
	}
}

// whole reports a list or map some part of which is bad, with all the
// constraints of that part.
func (c *validator) whole(v, part *value, p unsafe.Pointer, path, lead string) {
	val, secret := show(v, p)
	all := constraints(part)
	if c.terse && part.shape.pattern != "" {
		all = append(all, "Member must not be null")
	}
	c.found = append(c.found, violation{path: path, shown: c.show(path, "'"+val+"'", secret), value: val,
		constraint: lead + "[" + strings.Join(all, ", ") + "]"})
}

// plain is what IAM says, in words of its own, of names and paths that do not
// match their pattern when nothing else is wrong; "" otherwise.
func (c *validator) plain() string {
	const pattern = "Member must satisfy regular expression pattern: "
	for _, f := range c.found {
		if f.constraint != pattern+namePattern && f.constraint != pattern+pathPattern {
			return ""
		}
	}
	if f := c.found[0]; f.constraint == pattern+namePattern {
		return "The specified value for " + f.path + " is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-"
	}
	return "The specified value for " + c.found[0].path + " is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters."
}

// The patterns of IAM's names and paths.
const (
	namePattern = `[\w+=,.@-]+`
	pathPattern = `(\u002F)|(\u002F[\u0021-\u007E]+\u002F)`
)

// constraints lists all that a value must satisfy, in AWS's words.
func constraints(v *value) []string {
	sh := v.shape
	if !sh.constrained() {
		return nil
	}
	var out []string
	if sh.enum != "" {
		return []string{enumText(sh)}
	}
	length := lengthy(v.kind)
	if sh.max != "" {
		out = append(out, maxText(sh, length))
	}
	if sh.min != "" {
		out = append(out, minText(sh, length))
	}
	if sh.pattern != "" {
		out = append(out, "Member must satisfy regular expression pattern: "+sh.pattern)
	}
	return out
}

func lengthy(k kind) bool {
	switch k {
	case kindString, kindBytes, kindList, kindMap:
		return true
	}
	return false
}

func enumText(sh *shape) string {
	return "Member must satisfy enum value set: [" + strings.ReplaceAll(sh.enum, ",", ", ") + "]"
}

func maxText(sh *shape, length bool) string {
	if length {
		return "Member must have length less than or equal to " + sh.max
	}
	return "Member must have value less than or equal to " + sh.max
}

func minText(sh *shape, length bool) string {
	if length {
		return "Member must have length greater than or equal to " + sh.min
	}
	return "Member must have value greater than or equal to " + sh.min
}

// worded are enums for which EC2's operations have errors of their own.
var worded = map[string]bool{"VolumeType": true, "ResourceType": true}

// violated returns the first constraint that the value breaks, or "".
func violated(v *value, sh *shape, p unsafe.Pointer, ec2 bool) string {
	if sh == nil {
		return ""
	}
	var n float64
	switch v.kind {
	case kindString:
		s := *(*string)(p)
		if sh.enum != "" {
			if enumHas(sh.enum, s) || ec2 && worded[sh.name] {
				return ""
			}
			if ec2 {
				return "Expected: '" + strings.ReplaceAll(sh.enum, ",", "', '") + "'"
			}
			return enumText(sh)
		}
		if sh.min != "" || sh.max != "" {
			n = float64(stringLength(s))
			if con := bounds(sh, n, true, ec2); con != "" {
				return con
			}
		}
		if sh.pattern != "" {
			if !sh.matches(s) {
				return "Member must satisfy regular expression pattern: " + sh.pattern
			}
		}
		return ""
	case kindBytes:
		n = float64(len(*(*[]byte)(p)))
	case kindList:
		n = float64(reflect.NewAt(v.typ, p).Elem().Len())
	case kindMap:
		if v.typ == stringMapType {
			n = float64(len(*(*map[string]string)(p)))
		} else {
			n = float64(reflect.NewAt(v.typ, p).Elem().Len())
		}
	case kindInt32:
		n = float64(*(*int32)(p))
	case kindInt64:
		n = float64(*(*int64)(p))
	case kindFloat32:
		n = float64(*(*float32)(p))
	case kindFloat64:
		n = *(*float64)(p)
	default:
		return ""
	}
	return bounds(sh, n, lengthy(v.kind), ec2)
}

func bounds(sh *shape, n float64, length, ec2 bool) string {
	switch {
	case sh.min != "" && n < sh.minN:
		if ec2 && !length {
			return "Expecting a value greater than or equal to " + sh.min + "."
		}
		return minText(sh, length)
	case sh.max != "" && n > sh.maxN:
		if ec2 && !length {
			return "Expecting a value less than or equal to " + sh.max + "."
		}
		return maxText(sh, length)
	}
	return ""
}

func enumHas(enum, s string) bool {
	if s == "" || strings.Contains(s, ",") {
		return false
	}
	for e := range strings.SplitSeq(enum, ",") {
		if e == s {
			return true
		}
	}
	return false
}

// stringLength counts as AWS's Java does: UTF-16 units.
func stringLength(s string) int {
	n := 0
	for _, r := range s {
		n += max(utf16.RuneLen(r), 1)
	}
	return n
}

// show prints a value as AWS does in validation errors; secret is set for what
// must not be shown: sensitive members and blobs.
func show(v *value, p unsafe.Pointer) (text string, secret bool) {
	if v.shape != nil && v.shape.sensitive {
		return "", true
	}
	switch v.kind {
	case kindString:
		return clipTo(*(*string)(p), 2048), false
	case kindInt32:
		return strconv.FormatInt(int64(*(*int32)(p)), 10), false
	case kindInt64:
		return strconv.FormatInt(*(*int64)(p), 10), false
	case kindFloat32:
		return strconv.FormatFloat(float64(*(*float32)(p)), 'g', -1, 32), false
	case kindFloat64:
		return strconv.FormatFloat(*(*float64)(p), 'g', -1, 64), false
	case kindList:
		var parts []string
		v.each(p, func(_ int, e unsafe.Pointer) error {
			q, ok := v.elem.load(e)
			if !ok && v.elem.ptr {
				return nil
			}
			t, s := show(v.elem, q)
			if s {
				secret = true
			} else if len(parts) < 50 {
				parts = append(parts, t)
			}
			return nil
		})
		return clipTo("["+strings.Join(parts, ", ")+"]", 2048), secret
	case kindMap:
		var parts []string
		eachEntry(v, p, func(k string, e unsafe.Pointer) {
			q, ok := v.elem.load(e)
			if !ok && v.elem.ptr {
				return
			}
			t, s := show(v.elem, q)
			if s {
				secret = true
			} else if len(parts) < 50 {
				parts = append(parts, k+"="+t)
			}
		})
		return clipTo("{"+strings.Join(parts, ", ")+"}", 2048), secret
	}
	return "", true
}

func clipTo(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
