package policy

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sealdesk/sealdesk/internal/arn"
)

// PrincipalType is what makes a request.
type PrincipalType uint8

// The types of principal. The zero type is nobody.
const (
	// Anonymous brings no credentials; only "*" names it.
	Anonymous PrincipalType = iota
	Root
	User
	// Role is a session of an assumed role.
	Role
	// Federated is a session made by GetFederationToken.
	Federated
	// Service is an AWS service acting as itself.
	Service
	// Provider is an identity that a SAML or OpenID Connect provider vouches for,
	// calling AssumeRoleWithSAML or AssumeRoleWithWebIdentity.
	Provider
)

// Principal is who makes the request.
type Principal struct {
	Type    PrincipalType
	Account string
	// ARN of the user, of the role session (arn:aws:sts::A:assumed-role/R/S), of the
	// federated session, of root; of a service its host name.
	ARN string
	// UserID is the unique ID, aws:userid: AIDA…, AROA…:session, ACCOUNT:name for a
	// federated session, the account for root.
	UserID string
	// UserName is the IAM user's name, aws:username.
	UserName string
	// RoleARN is the role of a role session.
	RoleARN string
	// SessionName is the role session's name.
	SessionName string
	// UserARN and IssuerID are the user who made a federated session, by ARN and
	// by unique ID.
	UserARN, IssuerID string
	// Service is a service's name, such as "workspaces".
	Service string
	// Provider is the ARN of a SAML or OIDC provider, or a name such as
	// "accounts.google.com".
	Provider string
	// CanonicalUser is the canonical ID of the account (S3).
	CanonicalUser string
	// Tags are aws:PrincipalTag.
	Tags map[string]string
}

// PrincipalName is one principal that a policy names, for checks that it exists.
type PrincipalName struct {
	Type  string // "AWS", "Service", "Federated", "CanonicalUser"
	Value string // "*", an account ID, an ARN, a unique ID, a host name
	Sid   string
	Position

	pos, end int // the JSON string's bytes in the text
}

// IsAccount tells an account, by its ID or the ARN of its root. Accounts of other
// installations may be named: none but the account itself can say whether it exists,
// and nobody here speaks for it.
func (p PrincipalName) IsAccount() bool {
	id := p.Value
	if rest, ok := strings.CutPrefix(id, "arn:aws:iam::"); ok {
		if id, ok = strings.CutSuffix(rest, ":root"); !ok {
			return false
		}
	}
	return p.Type == "AWS" && len(id) == 12 && strings.Trim(id, "0123456789") == ""
}

// Principals are the principals the document names, in order.
func (d *Document) Principals() []PrincipalName {
	var out []PrincipalName
	for _, s := range d.Statements {
		if s.principals != nil {
			out = append(out, s.principals.names...)
		}
	}
	return out
}

// WithPrincipals is the document's text with every principal that f gives
// another name under that name. Nothing else of the text changes.
func (d *Document) WithPrincipals(f func(PrincipalName) string) string {
	var b strings.Builder
	done := 0
	for _, p := range d.Principals() {
		v := f(p)
		if v == p.Value {
			continue
		}
		quoted, _ := json.Marshal(v)
		b.WriteString(d.text[done:p.pos])
		b.Write(quoted)
		done = p.end
	}
	if done == 0 {
		return d.text
	}
	b.WriteString(d.text[done:])
	return b.String()
}

// reach is how a resource policy's statement names the caller.
type reach uint8

const (
	unnamed reach = iota
	// byAccount delegates to the account's IAM policies.
	byAccount
	// byRole names the role of a session, or the user behind a federated one; the
	// boundary and session policies still limit.
	byRole
	// direct names the caller itself, or everybody.
	direct
)

type principalSet struct {
	all       bool
	accounts  []string
	arns      []string
	ids       []string
	services  []string
	federated []string
	canonical []string
	names     []PrincipalName
}

var principalTypes = []string{"AWS", "Service", "Federated", "CanonicalUser"}

func (p *parser) principal(s *Statement, m, not *member, v *value, where string) error {
	element := "Principal"
	if m == nil && not != nil {
		m, s.notPrincipal, element = not, true, "NotPrincipal"
	}
	if !p.kind.hasPrincipal() {
		if m != nil {
			return p.fail(m.pos, "Policy document should not specify a principal.", "a %s applies to whom it is attached to; remove %s from %s", p.kind, element, where)
		}
		return nil
	}
	if m == nil {
		return p.fail(v.pos, missing(p.kind, "Principal"), "%s does not say whom it is about; write for example \"Principal\": {\"AWS\": \"arn:aws:iam::111122223333:root\"}", where)
	}
	if s.notPrincipal {
		if p.kind == Trust {
			return p.fail(m.pos, "Has prohibited field NotPrincipal", "a role trust policy names principals by Principal only")
		}
		if s.Effect == Allow {
			return p.fail(m.pos, syntaxErrors, "NotPrincipal must be used with \"Effect\": \"Deny\"")
		}
	}
	set := &principalSet{}
	s.principals = set
	if m.value.kind == isString {
		if m.value.text != "*" {
			return p.badPrincipal(&m.value, "", `want "*" or an object such as {"AWS": "111122223333"}`)
		}
		set.all = true
		set.names = append(set.names, PrincipalName{"AWS", "*", s.Sid, positionAt(p.text, m.value.pos), m.value.pos, m.value.end})
		return nil
	}
	if m.value.kind != isObject {
		return p.fail(m.value.pos, syntaxErrors, "%s must be \"*\" or an object, not %s", element, m.value.kind)
	}
	if len(m.value.members) == 0 {
		return p.fail(m.value.pos, missing(p.kind, "Principal"), "%s of %s names nobody", element, where)
	}
	for i := range m.value.members {
		t := &m.value.members[i]
		if !slices.Contains(principalTypes, t.name) {
			return p.unknown(t, element, principalTypes)
		}
		list, err := p.strings(&t.value, element+"."+t.name)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return p.badPrincipal(&t.value, t.name, "the list is empty")
		}
		for j := range list {
			item := &list[j]
			if why := set.add(t.name, item.text); why != "" {
				return p.badPrincipal(item, t.name, why)
			}
			set.names = append(set.names, PrincipalName{t.name, item.text, s.Sid, positionAt(p.text, item.pos), item.pos, item.end})
		}
	}
	return nil
}

func (p *parser) badPrincipal(v *value, typ, why string) error {
	message := "Invalid principal in policy: "
	if typ != "" {
		message += `"` + typ + `":`
	}
	if v.kind == isString {
		message += `"` + v.text + `"`
	}
	if p.kind == Key {
		message = "Policy contains a statement with one or more invalid principals."
		if v.kind == isString {
			why = v.text + ": " + why
		}
	}
	return p.fail(v.pos, message, "%s", why)
}

// add adds a principal; why is not empty when it is none.
func (ps *principalSet) add(typ, v string) (why string) {
	switch typ {
	case "AWS":
		switch {
		case v == "*":
			ps.all = true
		case arn.IsAccount(v):
			ps.accounts = append(ps.accounts, v)
		case uniqueID(v):
			ps.ids = append(ps.ids, v)
		default:
			return ps.addARN(v)
		}
	case "Service":
		if v != "*" && !hostName(v) {
			return "want a service such as workspaces.amazonaws.com"
		}
		if v == "*" {
			return "a service is named whole; wildcards are not for principals"
		}
		ps.services = append(ps.services, strings.ToLower(v))
	case "Federated":
		if strings.ContainsAny(v, "*?") || v == "" {
			return "a provider is named whole; wildcards are not for principals"
		}
		if !hostName(v) {
			a, err := arn.Parse(v)
			if err != nil {
				return err.Error()
			}
			if a.Service != "iam" || a.Type() != "saml-provider" && a.Type() != "oidc-provider" {
				return "want the ARN of a saml-provider or oidc-provider, or a host name"
			}
		}
		ps.federated = append(ps.federated, v)
	case "CanonicalUser":
		if v == "" || strings.Trim(v, "0123456789abcdefABCDEF") != "" {
			return "want a canonical user ID in hexadecimal"
		}
		ps.canonical = append(ps.canonical, strings.ToLower(v))
	}
	return ""
}

func (ps *principalSet) addARN(v string) (why string) {
	if strings.ContainsAny(v, "*?") {
		return `a principal is named whole; wildcards are not for principals. Name the account and limit it by a condition on aws:PrincipalArn, or write "*"`
	}
	a, err := arn.Parse(v)
	if err != nil {
		return err.Error()
	}
	if !arn.IsAccount(a.Account) || a.Region != "" {
		return "the ARN of a principal has an account and no region"
	}
	switch {
	case a.Service == "iam" && a.Resource == "root":
		ps.accounts = append(ps.accounts, a.Account)
		return ""
	case a.Service == "iam" && (a.Type() == "user" || a.Type() == "role") && a.Name() != "",
		a.Service == "sts" && a.Type() == "federated-user" && a.Name() != "",
		a.Service == "sts" && a.Type() == "assumed-role" && strings.Count(a.Name(), "/") == 1:
		ps.arns = append(ps.arns, v)
		return ""
	case a.Service == "iam" && a.Type() == "group":
		return "a group is no principal; name its users, or the account"
	}
	return "want a user, a role, a role session, a federated user, or the account's root"
}

// uniqueID tells whether s is the unique ID of a user or role, which IAM shows
// in the place of a principal that was deleted.
func uniqueID(s string) bool {
	s, session, has := strings.Cut(s, ":")
	if len(s) < 16 || len(s) > 128 || has && session == "" {
		return false
	}
	if !strings.HasPrefix(s, "AIDA") && !strings.HasPrefix(s, "AROA") {
		return false
	}
	for i := range len(s) {
		if (s[i] < 'A' || s[i] > 'Z') && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return true
}

func hostName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return strings.Contains(s, ".") && s[0] != '.' && s[len(s)-1] != '.'
}

// reach tells how far the set names p.
func (ps *principalSet) reach(p *Principal) reach {
	if ps.all {
		return direct
	}
	switch p.Type {
	case Anonymous:
		return unnamed
	case Service:
		if slices.ContainsFunc(ps.services, func(s string) bool { return p.isService(s) }) {
			return direct
		}
		return unnamed
	case Provider:
		if p.Provider != "" && slices.Contains(ps.federated, p.Provider) {
			return direct
		}
		return unnamed
	}
	best := unnamed
	if p.Account != "" && slices.Contains(ps.accounts, p.Account) || p.CanonicalUser != "" && slices.Contains(ps.canonical, p.CanonicalUser) {
		if p.Type == Root {
			return direct
		}
		best = byAccount
	}
	for _, a := range ps.arns {
		switch {
		case a == p.ARN:
			return direct
		case a == p.RoleARN || a == p.UserARN:
			best = byRole
		}
	}
	for _, id := range ps.ids {
		switch {
		case id == p.UserID:
			return direct
		case id == p.IssuerID:
			best = byRole
		case p.Type == Role && strings.HasPrefix(p.UserID, id) && len(p.UserID) > len(id) && p.UserID[len(id)] == ':':
			best = byRole
		}
	}
	return best
}

// isService tells whether a lower-case host name, with or without a region, is p's.
func (p *Principal) isService(host string) bool {
	if host == p.ARN {
		return true
	}
	name, ok := strings.CutSuffix(host, ".amazonaws.com")
	if !ok {
		name, ok = strings.CutSuffix(host, ".amazonaws.com.cn")
	}
	return ok && p.Service != "" && name == p.Service
}

// exempts tells whether a NotPrincipal of this set leaves p out of the denial. A
// caller is left out only when each of the names it goes by is listed: the
// account, the role, and the session or user. One who has a permissions
// boundary never is.
// Source: IAM User Guide, "AWS JSON policy elements: NotPrincipal", key points.
func (ps *principalSet) exempts(p *Principal, bounded bool) bool {
	if ps.all {
		return true
	}
	switch p.Type {
	case Anonymous, Service, Provider:
		return ps.reach(p) == direct
	}
	if bounded || !slices.Contains(ps.accounts, p.Account) {
		return false
	}
	listed := func(a string) bool { return slices.Contains(ps.arns, a) }
	switch p.Type {
	case Root:
		return true
	case Role:
		id, _, _ := strings.Cut(p.UserID, ":")
		return (listed(p.ARN) || slices.Contains(ps.ids, p.UserID)) && (listed(p.RoleARN) || slices.Contains(ps.ids, id))
	}
	return listed(p.ARN) || slices.Contains(ps.ids, p.UserID)
}
