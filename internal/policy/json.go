package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A policy document needs the place of everything it holds, for error messages
// and for SimulatePrincipalPolicy's positions, and must not have a member
// twice; encoding/json gives neither. Hence this reader. It accepts exactly RFC
// 8259, with unique names, up to maxDepth.

type valueKind uint8

const (
	isNull valueKind = iota
	isBool
	isNumber
	isString
	isArray
	isObject
)

func (k valueKind) String() string {
	return [...]string{"null", "true or false", "a number", "a string", "a list", "an object"}[k]
}

// value is a JSON value with its place: bytes [pos, end) of the text.
type value struct {
	kind     valueKind
	text     string // a string's characters; the literal of a number or boolean
	items    []value
	members  []member
	pos, end int
}

type member struct {
	name  string
	pos   int
	value value
}

const maxDepth = 16

type jsonError struct {
	pos int
	msg string
}

func (e *jsonError) Error() string { return e.msg }

type reader struct {
	s     string
	pos   int
	depth int
}

func readJSON(s string) (v value, err error) {
	r := &reader{s: s}
	if !utf8.ValidString(s) {
		for i, c := range s {
			if c == utf8.RuneError {
				if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
					return v, &jsonError{i, "the text is not UTF-8"}
				}
			}
		}
	}
	r.space()
	if v, err = r.value(); err != nil {
		return v, err
	}
	r.space()
	if r.pos < len(s) {
		return v, &jsonError{r.pos, fmt.Sprintf("unexpected %s after the end of the document", r.found())}
	}
	return v, nil
}

func (r *reader) space() {
	for r.pos < len(r.s) {
		switch r.s[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

// found describes the next character for an error.
func (r *reader) found() string {
	if r.pos >= len(r.s) {
		return "end of the text"
	}
	c, _ := utf8.DecodeRuneInString(r.s[r.pos:])
	return strconv.QuoteRune(c)
}

func (r *reader) fail(format string, args ...any) error {
	return &jsonError{r.pos, fmt.Sprintf(format, args...)}
}

func (r *reader) value() (v value, err error) {
	v.pos = r.pos
	if r.pos >= len(r.s) {
		return v, r.fail("the text ends where a value is expected")
	}
	switch c := r.s[r.pos]; {
	case c == '{' || c == '[':
		if r.depth++; r.depth > maxDepth {
			return v, r.fail("nested deeper than %d levels", maxDepth)
		}
		if c == '{' {
			v.kind, err = isObject, r.object(&v)
		} else {
			v.kind, err = isArray, r.array(&v)
		}
		r.depth--
	case c == '"':
		v.kind = isString
		v.text, err = r.str()
	case c == '-' || c >= '0' && c <= '9':
		v.kind = isNumber
		v.text, err = r.number()
	default:
		for _, lit := range [...]struct {
			s string
			k valueKind
		}{{"true", isBool}, {"false", isBool}, {"null", isNull}} {
			if strings.HasPrefix(r.s[r.pos:], lit.s) {
				r.pos += len(lit.s)
				v.kind, v.text, v.end = lit.k, lit.s, r.pos
				return v, nil
			}
		}
		return v, r.fail("unexpected %s where a value is expected", r.found())
	}
	v.end = r.pos
	return v, err
}

func (r *reader) object(v *value) error {
	r.pos++
	r.space()
	if r.pos < len(r.s) && r.s[r.pos] == '}' {
		r.pos++
		return nil
	}
	var seen map[string]bool
	for {
		r.space()
		if r.pos >= len(r.s) || r.s[r.pos] != '"' {
			return r.fail("expected a name in double quotes, found %s", r.found())
		}
		m := member{pos: r.pos}
		var err error
		if m.name, err = r.str(); err != nil {
			return err
		}
		dup := false
		if len(v.members) < 8 {
			for i := range v.members {
				dup = dup || v.members[i].name == m.name
			}
		} else {
			if seen == nil {
				seen = map[string]bool{}
				for i := range v.members {
					seen[v.members[i].name] = true
				}
			}
			dup = seen[m.name]
			seen[m.name] = true
		}
		if dup {
			return &jsonError{m.pos, fmt.Sprintf("%q is given twice; put both values in one list", m.name)}
		}
		r.space()
		if r.pos >= len(r.s) || r.s[r.pos] != ':' {
			return r.fail("expected : after %q, found %s", m.name, r.found())
		}
		r.pos++
		r.space()
		if m.value, err = r.value(); err != nil {
			return err
		}
		v.members = append(v.members, m)
		r.space()
		switch {
		case r.pos < len(r.s) && r.s[r.pos] == ',':
			r.pos++
		case r.pos < len(r.s) && r.s[r.pos] == '}':
			r.pos++
			return nil
		default:
			return r.fail("expected , or } after the value of %q, found %s", m.name, r.found())
		}
	}
}

func (r *reader) array(v *value) error {
	r.pos++
	r.space()
	if r.pos < len(r.s) && r.s[r.pos] == ']' {
		r.pos++
		return nil
	}
	for {
		r.space()
		item, err := r.value()
		if err != nil {
			return err
		}
		v.items = append(v.items, item)
		r.space()
		switch {
		case r.pos < len(r.s) && r.s[r.pos] == ',':
			r.pos++
		case r.pos < len(r.s) && r.s[r.pos] == ']':
			r.pos++
			return nil
		default:
			return r.fail("expected , or ] after a value of the list, found %s", r.found())
		}
	}
}

func (r *reader) number() (string, error) {
	start := r.pos
	digits := func() bool {
		from := r.pos
		for r.pos < len(r.s) && r.s[r.pos] >= '0' && r.s[r.pos] <= '9' {
			r.pos++
		}
		return r.pos > from
	}
	if r.s[r.pos] == '-' {
		r.pos++
	}
	zero := r.pos < len(r.s) && r.s[r.pos] == '0'
	first := r.pos
	if !digits() || zero && r.pos > first+1 {
		return "", &jsonError{start, "malformed number"}
	}
	if r.pos < len(r.s) && r.s[r.pos] == '.' {
		r.pos++
		if !digits() {
			return "", &jsonError{start, "malformed number"}
		}
	}
	if r.pos < len(r.s) && (r.s[r.pos] == 'e' || r.s[r.pos] == 'E') {
		r.pos++
		if r.pos < len(r.s) && (r.s[r.pos] == '+' || r.s[r.pos] == '-') {
			r.pos++
		}
		if !digits() {
			return "", &jsonError{start, "malformed number"}
		}
	}
	return r.s[start:r.pos], nil
}

func (r *reader) str() (string, error) {
	r.pos++ // the quote
	start := r.pos
	for r.pos < len(r.s) {
		switch c := r.s[r.pos]; {
		case c == '"':
			s := r.s[start:r.pos]
			r.pos++
			return s, nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return "", r.fail("control character %#02x in a string; write it as an escape", c)
		default:
			r.pos++
		}
	}
	return "", &jsonError{start - 1, "the string that begins here does not end"}
}

// escaped reads a string that has an escape at r.pos.
func (r *reader) escaped(start int) (string, error) {
	var b strings.Builder
	b.WriteString(r.s[start:r.pos])
	for r.pos < len(r.s) {
		c := r.s[r.pos]
		switch {
		case c == '"':
			r.pos++
			return b.String(), nil
		case c < ' ':
			return "", r.fail("control character %#02x in a string; write it as an escape", c)
		case c != '\\':
			b.WriteByte(c)
			r.pos++
			continue
		}
		if r.pos+1 >= len(r.s) {
			break
		}
		if i := strings.IndexByte(`"\/bfnrt`, r.s[r.pos+1]); i >= 0 {
			b.WriteByte("\"\\/\b\f\n\r\t"[i])
			r.pos += 2
			continue
		}
		u, ok := r.hex4(r.pos)
		if !ok {
			return "", r.fail(`unknown escape in a string; want one of \" \\ \/ \b \f \n \r \t \u followed by 4 hexadecimal digits`)
		}
		if utf16.IsSurrogate(u) {
			low, ok := r.hex4(r.pos + 6)
			if u = utf16.DecodeRune(u, low); !ok || u == utf8.RuneError {
				return "", r.fail("half of a surrogate pair in a string")
			}
			r.pos += 6
		}
		r.pos += 6
		b.WriteRune(u)
	}
	return "", &jsonError{start - 1, "the string that begins here does not end"}
}

// hex4 reads \uXXXX at pos.
func (r *reader) hex4(pos int) (rune, bool) {
	if pos+6 > len(r.s) || r.s[pos] != '\\' || r.s[pos+1] != 'u' {
		return 0, false
	}
	n := rune(0)
	for _, c := range []byte(r.s[pos+2 : pos+6]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		n = n<<4 | rune(c)
	}
	return n, true
}
