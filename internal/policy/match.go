package policy

import (
	"slices"
	"strings"

	"github.com/sealdesk/sealdesk/internal/arn"
)

// action is a compiled Action pattern; actions match whatever their case.
type action struct {
	raw   string
	lower string
	// all: "*". prefix: the only wildcard is a * at the end, and lower is what is before it.
	all, prefix, wild bool
	glob              arn.Wildcard // when wild
}

func compileAction(a string) action {
	c := action{raw: a, lower: strings.ToLower(a)}
	switch i := strings.IndexAny(a, "*?"); {
	case a == "*":
		c.all = true
	case i < 0:
	case i == len(a)-1 && a[i] == '*':
		c.prefix, c.lower = true, c.lower[:i]
	default:
		c.wild, c.glob = true, arn.CompileWildcard(c.lower)
	}
	return c
}

func (a *action) match(name string) bool {
	switch {
	case a.all:
		return true
	case a.prefix:
		return len(name) >= len(a.lower) && equalFold(name[:len(a.lower)], a.lower)
	case a.wild:
		return a.glob.MatchString(strings.ToLower(name))
	}
	return len(name) == len(a.lower) && equalFold(name, a.lower)
}

// equalFold compares s with a lower-case ASCII string of the same length.
func equalFold(s, lower string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// resource is a compiled Resource pattern: field by field, so that a wildcard
// stays in its field of the ARN.
type resource struct {
	raw     string
	all     bool // "*"
	literal bool // raw has neither wildcard nor variable
	fields  [6]arn.Wildcard
	vars    *[6]template // when it has policy variables
}

func (p *parser) compileResource(v *value) (resource, error) {
	r := resource{raw: v.text}
	if v.text == "*" || v.text != "" && strings.Trim(v.text, "*") == "" {
		r.all = true
		return r, nil
	}
	fields, ok := splitFields(v.text, p.variables)
	short := !ok && p.kind < ResourcePolicy && strings.Count(v.text, ":") > 1 && !strings.Contains(v.text, "::")
	if short {
		// IAM takes arn:aws:sqs:* and fills the fields that are left out with "*".
		for full := v.text; !ok && strings.HasPrefix(full, "arn:"); {
			full += ":*"
			fields, ok = splitFields(full, p.variables)
		}
	}
	if !ok {
		return r, p.fail(v.pos, notARN(v.text), "an ARN is arn:partition:service:region:account:resource, six fields; wildcards do not stand for the colons between them")
	}
	if f := fields[1]; !strings.ContainsAny(f, "*?$") && !arn.IsPartition(f) {
		return r, p.fail(v.pos, "Partition \""+f+"\" is not valid for resource \""+v.text+"\".", "the partition of this installation is \"aws\"")
	}
	if p.kind < ResourcePolicy {
		if message := unusual(&fields, v.text); message != "" {
			return r, p.fail(v.pos, message, "the ARN is %q", v.text)
		}
	}
	if f := fields[2]; f == "" {
		return r, p.fail(v.pos, legacyParsing, "the service field of %q is empty", v.text)
	} else if strings.ContainsAny(f, "*?") {
		return r, p.fail(v.pos, "Resource vendor must be fully qualified and cannot contain regexes.", "the service field of %q is %q", v.text, f)
	}
	r.literal = !short && !strings.ContainsAny(v.text, "*?")
	for i, f := range fields {
		if p.variables && strings.Contains(f, "${") {
			t, err := p.template(f, v.pos)
			if err != nil {
				return r, err
			}
			if r.vars == nil {
				r.vars = new([6]template)
			}
			r.vars[i] = t
			r.literal = false
			continue
		}
		r.fields[i] = arn.CompileWildcard(f)
	}
	return r, nil
}

// notARN is what IAM says of a resource that has not the six fields of an ARN.
func notARN(s string) string {
	fields := strings.Split(s, ":")
	switch {
	case len(fields) == 1:
		return "Resource " + s + " must be in ARN format or \"*\"."
	case !arn.IsPartition(fields[1]):
		// It looks for the partition in the second field, whatever the first is.
		fields[0] = "arn"
		for len(fields) < 6 {
			fields = append(fields, "*")
		}
		return "Partition \"" + fields[1] + "\" is not valid for resource \"" + strings.Join(fields, ":") + "\"."
	case fields[0] != "arn":
		return "Resource " + s + " must be in ARN format or \"*\"."
	case len(fields) == 2:
		return "Resource vendor must be fully qualified and cannot contain regexes."
	}
	return legacyParsing
}

// iamPaths are the kinds of IAM resource an identity policy may name.
var iamPaths = []string{"user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/", "policy/", "sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/"}

// unusual is what IAM says of an ARN of its own or of S3 that cannot be one, or "".
func unusual(f *[6]string, text string) string {
	wild := func(s string) bool { return strings.ContainsAny(s, "*?$") }
	switch f[2] {
	case "iam":
		if f[3] != "" && !wild(f[3]) {
			return "IAM resource " + text + " cannot contain region information."
		}
		kind, _, _ := strings.Cut(f[5], "/")
		if f[5] != "root" && !wild(kind) && !slices.ContainsFunc(iamPaths, func(p string) bool { return strings.HasPrefix(f[5], p) }) {
			return "IAM resource path must either be \"*\", root, or start with " + strings.Join(iamPaths, ", ") + "."
		}
	case "s3":
		if f[3] != "" && !wild(f[3]) && f[4] == "" { // access points have an account as well
			return "Resource " + text + " can not contain region information."
		}
	}
	return ""
}

// splitFields cuts an ARN pattern into its fields; colons in ${…} do not count.
func splitFields(s string, variables bool) (f [6]string, ok bool) {
	if !strings.HasPrefix(s, "arn:") {
		return f, false
	}
	f[0] = "arn"
	n, from, inside := 1, 4, false
	for i := 4; i < len(s) && n < 5; i++ {
		switch {
		case variables && s[i] == '$' && i+1 < len(s) && s[i+1] == '{':
			inside = true
		case s[i] == '}':
			inside = false
		case s[i] == ':' && !inside:
			f[n] = s[from:i]
			n, from = n+1, i+1
		}
	}
	f[5] = s[from:]
	return f, n == 5
}

// name is the name of a resource in the request, split once.
type name struct {
	s      string
	fields [6]string
	isARN  bool
}

func makeName(s string) name {
	n := name{s: s}
	n.fields, n.isARN = arn.Split(s)
	return n
}

// match tells whether n matches; unresolved, that the pattern has a variable
// without a value, so that it matches nothing.
func (r *resource) match(e *env, n *name) (ok, unresolved bool) {
	if r.all {
		return true, false
	}
	if r.literal {
		return r.raw == n.s, false
	}
	if r.vars != nil {
		// Resolve first, so that a missing variable is known whatever the name is.
		for i := range r.vars {
			if t := &r.vars[i]; t.parts != nil && !t.resolves(e) {
				return false, true
			}
		}
	}
	if !n.isARN {
		return false, false
	}
	for i := 5; i > 0; i-- { // the last field tells most
		if r.vars != nil && r.vars[i].parts != nil {
			parts, _ := r.vars[i].expand(e)
			w := arn.CompileParts(parts...)
			if !w.MatchString(n.fields[i]) {
				return false, false
			}
			continue
		}
		if !r.fields[i].MatchString(n.fields[i]) {
			return false, false
		}
	}
	return true, false
}
