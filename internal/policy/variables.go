package policy

import (
	"strings"

	"github.com/sealdesk/sealdesk/internal/arn"
)

// template is a text with policy variables: ${aws:username}, with a default
// ${aws:PrincipalTag/team, 'none'}, and the escapes ${*} ${?} ${$}.
// Source: IAM User Guide, "IAM policy elements: Variables and tags".
type template struct {
	parts []templatePart
}

type templatePart struct {
	arn.Part         // a text, when key is empty
	key      keyRef  // of a variable
	fallback *string // its default
}

// hasVariables tells whether s must be made a template.
func (p *parser) hasVariables(s string) bool { return p.variables && strings.Contains(s, "${") }

func (p *parser) template(s string, pos int) (template, error) {
	var t template
	for s != "" {
		i := strings.Index(s, "${")
		if i < 0 {
			break
		}
		if i > 0 {
			t.parts = append(t.parts, templatePart{Part: arn.Part{Text: s[:i]}})
		}
		end := variableEnd(s[i:])
		if end < 0 {
			return t, p.fail(pos, syntaxErrors, "the policy variable in %q has no closing brace; write ${$}{ for the characters ${", s)
		}
		body := s[i+2 : i+end]
		s = s[i+end+1:]
		switch body {
		case "*", "?", "$":
			t.parts = append(t.parts, templatePart{Part: arn.Part{Text: body, Literal: true}})
			continue
		}
		name, def, hasDefault := strings.Cut(body, ",")
		name = strings.TrimSpace(name)
		part := templatePart{}
		if hasDefault {
			def = strings.TrimSpace(def)
			if len(def) < 2 || def[0] != '\'' || def[len(def)-1] != '\'' {
				return t, p.fail(pos, syntaxErrors, "the default in ${%s} must be in single quotes: ${%s, 'default'}", body, name)
			}
			def = def[1 : len(def)-1]
			part.fallback = &def
		}
		vendor, rest, ok := strings.Cut(name, ":")
		if !ok || !vendorName(vendor) || rest == "" {
			return t, p.fail(pos, syntaxErrors, "${%s} is not a policy variable; want a condition key such as ${aws:username}, or ${*}, ${?}, ${$}", body)
		}
		part.key = makeKey(name)
		p.keys.add(name)
		t.parts = append(t.parts, part)
	}
	if s != "" {
		t.parts = append(t.parts, templatePart{Part: arn.Part{Text: s}})
	}
	return t, nil
}

// variableEnd is the index of the brace that closes the variable s begins with,
// past a brace in a quoted default.
func variableEnd(s string) int {
	quoted := false
	for i := 2; i < len(s); i++ {
		switch s[i] {
		case '\'':
			quoted = !quoted
		case '}':
			if !quoted {
				return i
			}
		}
	}
	return strings.IndexByte(s, '}')
}

func (part *templatePart) value(e *env) (string, bool) {
	v, ok := e.lookup(&part.key)
	if ok && v.len() == 1 {
		return v.at(0), true
	}
	if !ok && part.fallback != nil {
		return *part.fallback, true
	}
	return "", false // missing, or multi-valued
}

// resolves tells whether every variable has a value.
func (t *template) resolves(e *env) bool {
	for i := range t.parts {
		if part := &t.parts[i]; part.key.name != "" {
			if _, ok := part.value(e); !ok {
				return false
			}
		}
	}
	return true
}

// expand puts the values in; they are literal, whatever characters they have.
func (t *template) expand(e *env) ([]arn.Part, bool) {
	out := make([]arn.Part, len(t.parts))
	for i := range t.parts {
		part := &t.parts[i]
		if part.key.name == "" {
			out[i] = part.Part
			continue
		}
		v, ok := part.value(e)
		if !ok {
			return nil, false
		}
		out[i] = arn.Part{Text: v, Literal: true}
	}
	return out, true
}

// text is the expanded text, for operators that know no wildcards.
func (t *template) text(e *env) (string, bool) {
	parts, ok := t.expand(e)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String(), true
}
