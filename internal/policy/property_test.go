package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestEveryCombination compares Evaluate with the rules as prose has them, over
// every combination of layers, callers and modes.
func TestEveryCombination(t *testing.T) {
	const (
		none  = ""
		allow = "Allow"
		deny  = "Deny"
		off   = "off"
	)
	doc := func(kind Kind, effect string) *Source {
		switch effect {
		case off:
			return nil
		case none:
			return src(t, kind, allowEncrypt)
		}
		return src(t, kind, `{"Effect":"`+effect+`","Action":"kms:Decrypt","Resource":"*"}`)
	}
	callers := map[string]Principal{"user": user("bob"), "role": role("Ops", "s1"), "root": root()}
	// What each principal of a resource policy is to each caller.
	names := map[string]string{"account": toAccount, "all": toAll, "user": toBob, "role": toRole, "session": toSession, "else": toFed}
	is := map[string]map[string]reach{
		"user": {"account": byAccount, "all": direct, "user": direct, "role": unnamed, "session": unnamed, "else": unnamed},
		"role": {"account": byAccount, "all": direct, "user": unnamed, "role": byRole, "session": direct, "else": unnamed},
		"root": {"account": direct, "all": direct, "user": unnamed, "role": unnamed, "session": unnamed, "else": unnamed},
	}
	docs := map[string]*Source{}
	for _, e := range []string{off, none, allow, deny} {
		docs["i"+e], docs["b"+e], docs["s"+e] = doc(Identity, e), doc(Boundary, e), doc(Session, e)
	}
	n := 0
	for callerName, who := range callers {
		for resource, principal := range names {
			for _, resourceEffect := range []string{off, allow, deny} {
				var rp *Source
				if resourceEffect != off {
					rp = src(t, ResourcePolicy, to(principal, resourceEffect))
				}
				for _, i := range []string{off, none, allow, deny} {
					for _, b := range []string{off, none, allow, deny} {
						for _, s := range []string{off, none, allow, deny} {
							for bits := range 8 {
								cross, kms, grant := bits&1 != 0, bits&2 != 0, bits&4 != 0
								how := unnamed
								if resourceEffect != off {
									how = is[callerName][resource]
								}
								owner := acct
								if cross {
									// The policy's account is the caller's; the resource is somebody else's.
									owner = other
								}
								l := &Layers{Resource: rp, Boundary: docs["b"+b]}
								if d := docs["i"+i]; d != nil {
									l.Identity = []Source{*d}
								}
								if d := docs["s"+s]; d != nil {
									l.Session = []Source{*d}
								}
								if kms {
									l.Mode = ModeKMS
								}
								if grant {
									l.Granted = func() (Grant, string) { return GrantCaller, "grant" }
								}
								r := &Request{Principal: who, Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: owner}
								got := Evaluate(r, l)
								n++

								// The rules, as the package doc has them.
								denied := i == deny || b == deny || s == deny || resourceEffect == deny && how != unnamed
								named := resourceEffect == allow && how != unnamed
								iam := i == allow || callerName == "root"
								limits := (b == off || b == allow) && (s == off || s == allow)
								named1 := resourceEffect == allow && how == direct && !(callerName == "root" && s != off)
								roleNamed := resourceEffect == allow && (how == byRole || how == direct)
								var want bool
								switch {
								case denied:
								case grant:
									want = true
								case cross:
									want = named && iam && limits
								case named1:
									want = true
								case kms:
									want = (named && iam || roleNamed) && limits
								default:
									want = (iam || roleNamed) && limits
								}
								wantEffect := ImplicitDeny
								if denied {
									wantEffect = ExplicitDeny
								} else if want {
									wantEffect = Allow
								}
								if got.Effect != wantEffect {
									t.Fatalf("%s, resource policy %s %s, identity %q, boundary %q, session %q, cross %v, kms %v, grant %v: %v (%s), want %v",
										callerName, resourceEffect, resource, i, b, s, cross, kms, grant, got.Effect, got.Reason, wantEffect)
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations", n)
}

// world is a random set of policies and a random request.
type world struct {
	identity, session    [][]string // statements of each document, in JSON
	boundary, resource   []string   // nil: none
	scoped               bool
	mode                 Mode
	granted              bool
	who                  Principal
	action, res, account string
	ctx                  Context
}

func drawStatement(t *rapid.T, kind Kind, effect string) string {
	actions := []string{"*", "kms:*", "kms:Decrypt", "kms:De*", "KMS:decrypt", "kms:Encrypt", "iam:GetUser", "kms:*crypt"}
	resources := []string{"*", keyARN, "arn:aws:kms:*:*:key/*", "arn:aws:kms:*:111122223333:alias/*", "arn:aws:kms:us-west-2:${aws:PrincipalAccount}:key/*", "arn:aws:kms:us-west-2:111122223333:key/${aws:username}"}
	if effect == "" {
		effect = rapid.SampledFrom([]string{"Allow", "Allow", "Deny"}).Draw(t, "effect")
	}
	m := map[string]any{"Effect": effect}
	not := func(name string) string {
		if rapid.IntRange(0, 5).Draw(t, "not") == 0 {
			return "Not" + name
		}
		return name
	}
	m[not("Action")] = rapid.SliceOfN(rapid.SampledFrom(actions), 1, 2).Draw(t, "action")
	m[not("Resource")] = rapid.SliceOfN(rapid.SampledFrom(resources), 1, 2).Draw(t, "resource")
	if kind == ResourcePolicy {
		p := rapid.SampledFrom([]string{"*", acct, other, "arn:aws:iam::111122223333:user/bob", "arn:aws:iam::111122223333:role/Ops", "arn:aws:sts::111122223333:assumed-role/Ops/s1", "arn:aws:sts::111122223333:federated-user/fred"}).Draw(t, "principal")
		element := "Principal"
		if effect == "Deny" {
			element = not("Principal")
		}
		m[element] = map[string]any{"AWS": []string{p}}
	}
	if rapid.IntRange(0, 2).Draw(t, "conditional") == 0 {
		op := rapid.SampledFrom([]string{"StringEquals", "StringNotEquals", "ForAllValues:StringEquals", "ForAnyValue:StringLike", "StringEqualsIfExists", "Null"}).Draw(t, "operator")
		value := rapid.SampledFrom([]string{"a", "b", "*", "${aws:username}"}).Draw(t, "value")
		if op == "Null" {
			value = "true"
		}
		m["Condition"] = map[string]any{op: map[string]any{rapid.SampledFrom([]string{"x:a", "x:b", "aws:username"}).Draw(t, "key"): value}}
	}
	return quote(m)
}

func drawWorld(t *rapid.T) *world {
	w := &world{}
	doc := func(kind Kind) []string {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawStatement(t, kind, "") }), 1, 3).Draw(t, "statements")
	}
	for range rapid.IntRange(0, 3).Draw(t, "identities") {
		w.identity = append(w.identity, doc(Identity))
	}
	for range rapid.IntRange(0, 2).Draw(t, "sessions") {
		w.session = append(w.session, doc(Session))
	}
	if rapid.Bool().Draw(t, "bounded") {
		w.boundary = doc(Boundary)
	}
	if rapid.Bool().Draw(t, "has resource policy") {
		w.resource = doc(ResourcePolicy)
	}
	w.scoped = rapid.Bool().Draw(t, "scoped") && len(w.session) > 0
	w.mode = rapid.SampledFrom([]Mode{ModeStandard, ModeKMS, ModeTrust}).Draw(t, "mode")
	w.granted = rapid.IntRange(0, 5).Draw(t, "granted") == 0
	w.who = rapid.SampledFrom([]Principal{user("bob"), role("Ops", "s1"), root(), federated("fred"), service("ec2"), userOf(other, "bob"), {}}).Draw(t, "who")
	w.action = rapid.SampledFrom([]string{"kms:Decrypt", "kms:Encrypt", "iam:GetUser"}).Draw(t, "request action")
	w.res = rapid.SampledFrom([]string{keyARN, "*", "arn:aws:kms:us-west-2:111122223333:alias/x", "arn:aws:kms:us-west-2:111122223333:key/bob"}).Draw(t, "request resource")
	w.account = rapid.SampledFrom([]string{"", acct}).Draw(t, "owner")
	w.ctx = Context{}
	for _, k := range []string{"x:a", "X:B"} {
		if rapid.Bool().Draw(t, "has") {
			w.ctx[k] = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "bob"}), 0, 2).Draw(t, "values")
		}
	}
	return w
}

func parsed(statements []string, kind Kind) Source {
	d, err := Parse([]byte(`{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`), kind)
	if err != nil {
		panic(fmt.Sprintf("%v: %s", err, statements))
	}
	return Source{ID: kind.String(), Document: d}
}

func (w *world) layers() *Layers {
	l := &Layers{Mode: w.mode, Scoped: w.scoped}
	for _, d := range w.identity {
		l.Identity = append(l.Identity, parsed(d, Identity))
	}
	for _, d := range w.session {
		l.Session = append(l.Session, parsed(d, Session))
	}
	if w.boundary != nil {
		s := parsed(w.boundary, Boundary)
		l.Boundary = &s
	}
	if w.resource != nil {
		s := parsed(w.resource, ResourcePolicy)
		l.Resource = &s
	}
	if w.granted {
		l.Granted = func() (Grant, string) { return GrantCaller, "grant" }
	}
	return l
}

func (w *world) request() *Request {
	return &Request{Principal: w.who, Action: w.action, Resource: w.res, ResourceAccount: w.account, Context: w.ctx}
}

func (w *world) effect() Effect {
	d := Evaluate(w.request(), w.layers())
	return d.Effect
}

// add puts a statement into one of the documents there are, or none.
func (w *world) add(t *rapid.T, effect string) (layer string) {
	type place struct {
		name string
		doc  *[]string
		kind Kind
	}
	var places []place
	for i := range w.identity {
		places = append(places, place{"identity", &w.identity[i], Identity})
	}
	for i := range w.session {
		places = append(places, place{"session", &w.session[i], Session})
	}
	if w.boundary != nil {
		places = append(places, place{"boundary", &w.boundary, Boundary})
	}
	if w.resource != nil {
		places = append(places, place{"resource", &w.resource, ResourcePolicy})
	}
	if len(places) == 0 {
		return ""
	}
	p := rapid.SampledFrom(places).Draw(t, "where")
	*p.doc = append(slices.Clone(*p.doc), drawStatement(t, p.kind, effect))
	return p.name
}

func TestDenyNeverWidens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.effect()
		layer := w.add(t, "Deny")
		if after := w.effect(); after == Allow && before != Allow || before == ExplicitDeny && after != ExplicitDeny {
			t.Fatalf("a Deny in %s turned %v into %v", layer, before, after)
		}
	})
}

func TestAllowNeverNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.effect()
		layer := w.add(t, "Allow")
		if after := w.effect(); after != before && (before != ImplicitDeny || after != Allow) {
			t.Fatalf("an Allow in %s turned %v into %v", layer, before, after)
		}
	})
}

// A boundary and session policies only ever take away.
func TestLimitsNeverWiden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.effect()
		free := *w
		free.boundary, free.session, free.scoped = nil, nil, false
		if after := free.effect(); before == Allow && after != Allow {
			t.Fatalf("without boundary and session policies %v became %v", before, after)
		}
		if w.mode == ModeStandard && w.resource == nil && !w.granted && before == Allow {
			// All that limits must allow by itself.
			for _, limit := range [][][]string{{w.boundary}, w.session} {
				one := *w
				one.boundary, one.session, one.scoped, one.identity = nil, nil, false, nil
				for _, d := range limit {
					if d != nil {
						one.identity = append(one.identity, d)
					}
				}
				if len(one.identity) > 0 && one.effect() != Allow {
					t.Fatalf("allowed, but the limit %v does not allow", limit)
				}
			}
		}
	})
}

// The order of documents and statements, and how they are cut up, mean nothing.
func TestOrderMeansNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.effect()
		other := *w
		other.identity = nil
		for _, d := range w.identity {
			for _, s := range d {
				other.identity = append(other.identity, []string{s})
			}
		}
		slices.Reverse(other.identity)
		if w.resource != nil {
			other.resource = slices.Clone(w.resource)
			slices.Reverse(other.resource)
		}
		if after := other.effect(); after != before {
			t.Fatalf("in another order %v became %v", before, after)
		}
	})
}

// A grant cannot pass an explicit deny, and a decision names what decided.
func TestDecisionIsAccountedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		l, r := w.layers(), w.request()
		d := Evaluate(r, l)
		denies, allows := 0, 0
		l.each(func(_ Layer, s *Source) {
			for _, st := range s.Document.Statements {
				if _, ok := st.applies(newEnv(r, l)); ok && st.Effect == ExplicitDeny {
					denies++
				} else if ok {
					allows++
				}
			}
		})
		if (denies > 0) != (d.Effect == ExplicitDeny) {
			t.Fatalf("%d denies apply and the decision is %v", denies, d.Effect)
		}
		if d.Effect == Allow && allows == 0 && d.Layer != LayerGrant && d.Layer != LayerRoot {
			t.Fatalf("allowed by %v, but no statement allows", d.Layer)
		}
		x := Explain(r, l, &d)
		applied := map[*Statement]bool{}
		for _, c := range x.Statements {
			applied[c.Statement] = c.Applies
			if !c.Applies && c.Why == "" {
				t.Fatalf("%v does not apply, and no word why", c)
			}
		}
		for _, m := range d.Matched {
			if !applied[m.Statement] {
				t.Fatalf("%s decided, but Explain says it does not apply", m.Statement.Name())
			}
		}
		sim := Simulate(r, l, []string{w.action}, []string{w.res})[0]
		if sim.Decision.Effect != d.Effect {
			t.Fatalf("Simulate says %v, Evaluate %v", sim.Decision.Effect, d.Effect)
		}
		for _, m := range d.Matched {
			if !slices.Contains(sim.Matched, m) {
				t.Fatalf("%s decided, but Simulate does not list it", m.Statement.Name())
			}
		}
	})
}
