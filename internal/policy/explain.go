package policy

import (
	"fmt"
	"strings"
)

// Explanation says why a request was decided as it was.
type Explanation struct {
	// Message is AWS's sentence, to be answered to the caller as the message of
	// AccessDenied(Exception). Clients match on it.
	Message string
	// Statements are those that are about the action, layer by layer, and why each
	// applied or not. It shows policies: it is for the log and for the owner of the
	// account, not for callers of another account.
	Statements []Considered
	// Truncated tells that there were more than MaxConsidered.
	Truncated bool
}

// MaxConsidered is the most statements that an Explanation lists.
const MaxConsidered = 50

// Considered is a statement that names the action of the request.
type Considered struct {
	Match
	Applies bool
	Why     string // "its Condition does not hold: …"
}

// String is the considered statement on one line.
func (c Considered) String() string {
	verb := "does not apply"
	switch {
	case c.Applies && c.Statement.Effect == Allow:
		verb = "allows"
	case c.Applies:
		verb = "denies"
	}
	s := fmt.Sprintf("%s %q, %s (line %d): %s", c.Layer, c.Source, c.Statement.Name(), c.Statement.Start.Line, verb)
	if c.Why != "" {
		s += ": " + c.Why
	}
	return s
}

// String is the message and, a line each, the statements considered.
func (x Explanation) String() string {
	var b strings.Builder
	b.WriteString(x.Message)
	for _, c := range x.Statements {
		b.WriteString("\n  ")
		b.WriteString(c.String())
	}
	if len(x.Statements) == 0 {
		b.WriteString("\n  no statement in any policy names the action")
	}
	if x.Truncated {
		b.WriteString("\n  …")
	}
	return b.String()
}

// ForeignKey ends the refusal of a KMS key of another account, which does not tell whether there is such a key.
const ForeignKey = " on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"

// Message is the sentence that AWS answers to a caller who is refused; for an
// allowed request it says so.
//
// Source: IAM User Guide, "Troubleshoot access denied error messages"; for keys of
// another account, KMS Developer Guide, "Troubleshooting key access", which does
// not tell whether the key exists.
func Message(r *Request, l *Layers, d *Decision) string {
	who := r.Principal.ARN
	if who == "" {
		who = "anonymous"
		if r.Principal.Provider != "" {
			who = r.Principal.Provider
		}
	}
	var b strings.Builder
	b.WriteString("User: ")
	b.WriteString(who)
	if d.Effect == Allow {
		b.WriteString(" is authorized to perform: ")
	} else {
		b.WriteString(" is not authorized to perform: ")
	}
	b.WriteString(r.Action)
	if d.Effect != Allow && d.Layer == LayerResource && l.Mode == ModeKMS && d.Cross {
		b.WriteString(ForeignKey)
		return b.String()
	}
	if r.Resource != "" {
		b.WriteString(" on resource: ")
		b.WriteString(r.Resource)
	}
	layer := d.Layer.String()
	article := "a "
	switch {
	case d.Layer == LayerIdentity:
		article = "an "
	case d.Layer == LayerResource && l.Mode == ModeTrust:
		layer, article = "role trust policy", "the "
	}
	switch {
	case d.Effect == Allow:
		b.WriteString(" because " + d.Reason)
	case d.Effect == ExplicitDeny:
		b.WriteString(" with an explicit deny in " + article + layer)
	case d.Layer == LayerNone:
		b.WriteString(" because " + d.Reason)
	case l.Mode == ModeTrust && r.Principal.Type == Root:
		b.WriteString(" because roles may not be assumed by root accounts")
	default:
		b.WriteString(" because no " + layer + " allows the " + r.Action + " action")
	}
	return b.String()
}

// Explain says why d is the decision for r under l. It evaluates once more,
// statement by statement; use it for refusals, not on the hot path.
func Explain(r *Request, l *Layers, d *Decision) Explanation {
	x := Explanation{Message: Message(r, l, d)}
	e := newEnv(r, l)
	l.each(func(layer Layer, src *Source) {
		for _, s := range src.Document.Statements {
			if !s.matchesAction(e) {
				continue
			}
			if len(x.Statements) == MaxConsidered {
				x.Truncated = true
				return
			}
			c := Considered{Match: Match{layer, src.ID, src.Type, s}}
			c.Applies, c.Why = s.explain(e, l)
			x.Statements = append(x.Statements, c)
		}
	})
	return x
}

// each calls f with every document that applies.
func (l *Layers) each(f func(Layer, *Source)) {
	list := func(layer Layer, sources []Source) {
		for i := range sources {
			if sources[i].Document != nil {
				f(layer, &sources[i])
			}
		}
	}
	one := func(layer Layer, s *Source) {
		if s != nil && s.Document != nil {
			f(layer, s)
		}
	}
	for _, level := range l.ServiceControl {
		list(LayerServiceControl, level)
	}
	for _, level := range l.ResourceControl {
		list(LayerResourceControl, level)
	}
	one(LayerResource, l.Resource)
	list(LayerIdentity, l.Identity)
	one(LayerBoundary, l.Boundary)
	list(LayerSession, l.Session)
}

func (s *Statement) explain(e *env, l *Layers) (applies bool, why string) {
	if !s.matchesResource(e) {
		patterns := make([]string, len(s.resources))
		for i := range s.resources {
			patterns[i] = s.resources[i].raw
			if _, un := s.resources[i].match(e, &e.main); un {
				return false, fmt.Sprintf("a policy variable in its Resource %s has no value in this request", patterns[i])
			}
		}
		element := "Resource"
		if s.notResource {
			element = "NotResource"
		}
		return false, fmt.Sprintf("its %s is %s", element, strings.Join(patterns, ", "))
	}
	how := direct
	if s.principals != nil {
		if s.notPrincipal {
			if s.principals.exempts(&e.r.Principal, e.bounded) {
				return false, "its NotPrincipal excepts the caller"
			}
		} else if how = s.principals.reach(&e.r.Principal); how == unnamed {
			names := make([]string, len(s.principals.names))
			for i, n := range s.principals.names {
				names[i] = n.Value
			}
			return false, "its Principal is " + strings.Join(names, ", ")
		}
	}
	for i := range s.conditions {
		c := &s.conditions[i]
		if c.holds(e) {
			continue
		}
		if got, ok := e.lookup(&c.key); ok {
			return false, fmt.Sprintf("its condition %s does not hold: the request has %q", c, got.all())
		}
		return false, fmt.Sprintf("its condition %s does not hold: the request has no %s", c, c.key.name)
	}
	if s.Effect == Allow {
		switch how {
		case byAccount:
			return true, "it names the account, which leaves it to the account's IAM policies"
		case byRole:
			if l.Boundary != nil || l.Scoped || len(l.Session) > 0 {
				return true, "it names the role, within the boundary and session policies"
			}
		}
	}
	return true, ""
}
