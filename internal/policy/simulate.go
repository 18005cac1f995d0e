package policy

// Simulated is the answer for one action and one resource: an EvaluationResult of
// SimulatePrincipalPolicy and SimulateCustomPolicy.
type Simulated struct {
	Action, Resource string
	Decision         Decision
	// Matched are the statements that determine the result: every deny statement
	// that applies when there is one, else every allow statement when the request
	// is allowed, else none. Match.Source and Type name the policy, and
	// Match.Statement has Start and End.
	Matched []Match
	// Missing are the condition keys that the documents refer to and the request
	// does not have, sorted.
	Missing []string
	// Layers is what each layer that has policies says by itself
	// (EvalDecisionDetails, PermissionsBoundaryDecisionDetail,
	// OrganizationsDecisionDetail).
	Layers map[Layer]Effect
}

// Simulate evaluates each action on each resource; r gives the rest of the
// request. Without resources it asks about "*". Results are in the order
// resources within actions, as IAM returns them.
//
// Source: IAM API Reference, SimulateCustomPolicy and EvaluationResult.
func Simulate(r *Request, l *Layers, actions, resources []string) []Simulated {
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	out := make([]Simulated, 0, len(actions)*len(resources))
	missing := Missing(r, l)
	for _, a := range actions {
		for _, res := range resources {
			one := *r
			one.Action, one.Resource = a, res
			out = append(out, simulate(&one, l, missing))
		}
	}
	return out
}

func simulate(r *Request, l *Layers, missing []string) Simulated {
	s := Simulated{Action: r.Action, Resource: r.Resource, Decision: Evaluate(r, l), Missing: missing, Layers: map[Layer]Effect{}}
	e := newEnv(r, l)
	for _, present := range []struct {
		layer Layer
		is    bool
	}{{LayerBoundary, l.Boundary != nil}, {LayerSession, l.Scoped}, {LayerServiceControl, len(l.ServiceControl) > 0}, {LayerResourceControl, len(l.ResourceControl) > 0}} {
		if present.is {
			s.Layers[present.layer] = ImplicitDeny
		}
	}
	l.each(func(layer Layer, src *Source) {
		effect := s.Layers[layer]
		for _, st := range src.Document.Statements {
			if _, ok := st.applies(e); !ok {
				continue
			}
			if st.Effect == ExplicitDeny {
				effect = ExplicitDeny
			} else if effect == ImplicitDeny {
				effect = Allow
			}
			if st.Effect == s.Decision.Effect {
				s.Matched = append(s.Matched, Match{layer, src.ID, src.Type, st})
			}
		}
		s.Layers[layer] = effect
	})
	for layer, levels := range map[Layer][][]Source{LayerServiceControl: l.ServiceControl, LayerResourceControl: l.ResourceControl} {
		var deny Match
		if s.Layers[layer] == Allow {
			if missing, _ := scanLevels(e, layer, levels, &deny); missing {
				s.Layers[layer] = ImplicitDeny
			}
		}
	}
	return s
}

// Missing are the condition keys that the documents of l refer to and r does not
// have, sorted (MissingContextValues).
func Missing(r *Request, l *Layers) []string {
	set := keySet{}
	e := newEnv(r, l)
	l.each(func(_ Layer, src *Source) {
		for _, name := range src.Document.keys {
			k := makeKey(name)
			if _, ok := e.lookup(&k); !ok {
				set.add(name)
			}
		}
	})
	return set.sorted()
}
