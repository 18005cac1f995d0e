package policy

// Source is a document and where it comes from.
type Source struct {
	// ID names the policy in explanations: its ARN, or "inline policy x of user y".
	ID string
	// Type is the SourcePolicyType of SimulatePrincipalPolicy: "user", "group",
	// "role", "aws-managed", "user-managed", "resource"; may be empty.
	Type     string
	Document *Document
}

// Mode says how the resource policy and IAM combine.
type Mode uint8

const (
	// ModeStandard is AWS's rule for most resources: within an account, the
	// resource policy or the identity policies.
	ModeStandard Mode = iota
	// ModeKMS makes the resource policy, a key policy, the gate: identity policies
	// count only where it allows the account. Not for actions without a key
	// (kms:ListKeys), nor for aliases: those are ModeStandard.
	ModeKMS
	// ModeTrust is for sts:AssumeRole…: the resource policy is the role's trust
	// policy, a gate like a key policy. The root user can assume no role.
	ModeTrust
)

// Grant is how far a grant allows a request.
type Grant uint8

// What a grant says.
const (
	NoGrant Grant = iota
	// GrantAccount: the grantee is the caller's account, whose IAM policies decide.
	GrantAccount
	// GrantCaller: the grantee is the caller; no policy need allow it.
	GrantCaller
)

// Layers are the policies that apply to a request.
type Layers struct {
	Identity []Source
	// Boundary is the permissions boundary of the user or role, nil for none.
	Boundary *Source
	// Session policies; one of them must allow. Scoped tells that the session was
	// made with session policies, so that none at all allows nothing
	// (GetFederationToken without policies); it is implied by a non-empty Session.
	Session []Source
	Scoped  bool
	// Resource is the policy of the resource, nil for none.
	Resource *Source
	Mode     Mode
	// Granted, when set, is asked last: whether a KMS grant allows the request, and
	// why. It cannot override an explicit deny.
	Granted func() (how Grant, why string)
	// ServiceControl and ResourceControl are the organization's policies, a list
	// for every level from the root to the account; at each level one policy must
	// allow. Leave them nil where there is no organization.
	ServiceControl, ResourceControl [][]Source
}

// Layer is the kind of policy that decided.
type Layer uint8

// The layers.
const (
	LayerNone Layer = iota
	LayerIdentity
	LayerBoundary
	LayerSession
	LayerResource
	LayerGrant
	LayerServiceControl
	LayerResourceControl
	// LayerRoot is the right of the root user in its own account.
	LayerRoot
)

// String is the layer in words.
func (l Layer) String() string {
	return [...]string{"no policy", "identity-based policy", "permissions boundary", "session policy", "resource-based policy", "grant", "service control policy", "resource control policy", "account root user"}[l]
}

// Match is a statement that decided.
type Match struct {
	Layer     Layer
	Source    string // Source.ID
	Type      string // Source.Type
	Statement *Statement
}

// Decision is the answer to a request. The zero Decision is an implicit deny.
type Decision struct {
	Effect Effect
	// Layer is the layer that allowed, denied, or failed to allow.
	Layer Layer
	// Reason is a clause in plain words: "grant 0a1b…", "an identity-based policy allows it".
	Reason string
	// Matched are the statements that decided: for Allow those that allowed (one a
	// layer), for ExplicitDeny the one that denied. Empty for ImplicitDeny.
	Matched []Match
	// Cross tells that the caller and the resource are of two accounts.
	Cross bool
}

// Allowed tells whether the request is allowed.
func (d *Decision) Allowed() bool { return d.Effect == Allow }

// outcome is what one layer says.
type outcome struct {
	allow bool
	reach reach
	match Match
}

// scan looks at the statements of one source. It is false on an explicit deny,
// whose statement is then in deny.
func (o *outcome) scan(e *env, layer Layer, src *Source, deny *Match) bool {
	d := src.Document
	if d == nil {
		return true
	}
	for _, s := range d.denies {
		if _, ok := s.applies(e); ok {
			*deny = Match{layer, src.ID, src.Type, s}
			return false
		}
	}
	for _, s := range d.allow {
		if o.reach == direct {
			break
		}
		if how, ok := s.applies(e); ok && how > o.reach {
			o.allow, o.reach, o.match = true, how, Match{layer, src.ID, src.Type, s}
		}
	}
	return true
}

func (o *outcome) scanAll(e *env, layer Layer, list []Source, deny *Match) bool {
	for i := range list {
		if !o.scan(e, layer, &list[i], deny) {
			return false
		}
	}
	return true
}

// Evaluate decides a request. Neither argument is kept or changed.
func Evaluate(r *Request, l *Layers) Decision {
	var on env // stays on the stack
	e := &on
	e.init(r, l)
	p := &r.Principal
	var id, boundary, session, resource outcome
	var deny Match
	cross := r.ResourceAccount != "" && r.ResourceAccount != p.Account
	switch p.Type {
	case Service, Anonymous, Provider:
		cross = false // of no account: the resource's owner decides
	}

	// An explicit deny wins wherever it is.
	scpMissing, clear := scanLevels(e, LayerServiceControl, l.ServiceControl, &deny)
	rcpMissing := false
	if clear {
		rcpMissing, clear = scanLevels(e, LayerResourceControl, l.ResourceControl, &deny)
	}
	if !clear || !id.scanAll(e, LayerIdentity, l.Identity, &deny) ||
		l.Resource != nil && !resource.scan(e, LayerResource, l.Resource, &deny) ||
		l.Boundary != nil && !boundary.scan(e, LayerBoundary, l.Boundary, &deny) ||
		!session.scanAll(e, LayerSession, l.Session, &deny) {
		return Decision{Effect: ExplicitDeny, Layer: deny.Layer, Reason: "an explicit deny", Matched: []Match{deny}, Cross: cross}
	}
	switch {
	case scpMissing:
		return Decision{Layer: LayerServiceControl, Reason: "no service control policy allows it", Cross: cross}
	case rcpMissing:
		return Decision{Layer: LayerResourceControl, Reason: "no resource control policy allows it", Cross: cross}
	case r.Action == "":
		return Decision{Reason: "the request names no action", Cross: cross}
	case l.Mode == ModeTrust && p.Type == Root:
		return Decision{Layer: LayerResource, Reason: "roles may not be assumed by root accounts", Cross: cross}
	}

	scoped := l.Scoped || len(l.Session) > 0
	within := (l.Boundary == nil || boundary.allow) && (!scoped || session.allow)
	identity := id.allow || p.Type == Root && p.Account != ""
	how := resource.reach
	if how == direct && p.Type == Root && scoped {
		how = byRole // a limited session of root stays limited
	}
	d := Decision{Cross: cross}
	gate := l.Mode != ModeStandard
	base := identity
	if gate {
		base = identity && how >= byAccount
	}
	base = base || how == byRole
	switch {
	case !cross && how == direct:
		d.allow(LayerResource, "a resource-based policy allows it", &resource)
	case !cross && base && within:
		switch {
		case !identity:
			d.allow(LayerResource, "a resource-based policy allows it", &resource)
		case id.allow:
			d.allow(LayerIdentity, "an identity-based policy allows it", &id)
		default:
			d.allow(LayerRoot, "root may do everything in its account")
		}
		if gate && identity {
			d.Matched = append(d.Matched, resource.match)
		}
		d.limits(l, &boundary, scoped, &session)
	case cross && how >= byAccount && identity && within:
		if d.allow(LayerResource, "a resource-based policy and the caller's account allow it", &resource); id.allow {
			d.Matched = append(d.Matched, id.match)
		}
		d.limits(l, &boundary, scoped, &session)
	}
	if d.Effect == Allow {
		return d
	}
	grant := ""
	if l.Granted != nil {
		how, why := l.Granted()
		if how == GrantCaller || how == GrantAccount && identity && within {
			d := Decision{Effect: Allow, Layer: LayerGrant, Reason: why, Cross: cross}
			if how == GrantAccount && id.allow {
				d.Matched = append(d.Matched, id.match)
			}
			return d
		}
		grant = why
	}
	// Which layer failed to allow. In one account the key policy or trust policy
	// comes first, as nothing counts without it; across accounts the caller's own side.
	failed := func(layer Layer) {
		d.Layer, d.Reason = layer, "no "+layer.String()+" allows it"
		if grant != "" {
			d.Reason += "; " + grant
		}
	}
	switch {
	case !cross && gate && how == unnamed:
		failed(LayerResource)
	case !identity && how != byRole, cross && !identity:
		failed(LayerIdentity)
	case l.Boundary != nil && !boundary.allow:
		failed(LayerBoundary)
	case scoped && !session.allow:
		failed(LayerSession)
	default:
		failed(LayerResource)
	}
	return d
}

func (d *Decision) allow(layer Layer, reason string, by ...*outcome) {
	d.Effect, d.Layer, d.Reason, d.Matched = Allow, layer, reason, make([]Match, 0, 4)
	for _, o := range by {
		d.Matched = append(d.Matched, o.match)
	}
}

// limits adds the statements of the boundary and the session that let the request through.
func (d *Decision) limits(l *Layers, boundary *outcome, scoped bool, session *outcome) {
	if l.Boundary != nil {
		d.Matched = append(d.Matched, boundary.match)
	}
	if scoped {
		d.Matched = append(d.Matched, session.match)
	}
}

// scanLevels looks at an organization's policies. missing tells that a level
// does not allow; clear is false on an explicit deny.
func scanLevels(e *env, layer Layer, levels [][]Source, deny *Match) (missing, clear bool) {
	for _, level := range levels {
		var o outcome
		if !o.scanAll(e, layer, level, deny) {
			return false, false
		}
		missing = missing || !o.allow
	}
	return missing, true
}
