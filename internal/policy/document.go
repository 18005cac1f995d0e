package policy

import (
	"fmt"
	"sort"
	"strings"
)

// Kind is what a document is for; it decides which elements it must and may have.
type Kind uint8

// The kinds of policy document.
const (
	// Identity is a policy of a user, group or role: no Principal.
	Identity Kind = iota
	// Boundary is a permissions boundary: an identity policy used as a limit.
	Boundary
	// Session is a session policy given to AssumeRole or GetFederationToken.
	Session
	// Control is a service control policy: no Principal.
	Control
	// ResourcePolicy is attached to a resource: Principal and Resource required.
	ResourcePolicy
	// Key is a KMS key policy.
	Key
	// Trust is a role trust policy: Principal required, no Resource.
	Trust
)

// String is the kind in words.
func (k Kind) String() string {
	return [...]string{"identity-based policy", "permissions boundary", "session policy", "service control policy", "resource-based policy", "key policy", "role trust policy"}[k]
}

func (k Kind) hasPrincipal() bool { return k >= ResourcePolicy }

// Effect is the outcome of an evaluation, and what a statement says.
type Effect uint8

// The effects. The zero Effect allows nothing.
const (
	ImplicitDeny Effect = iota
	ExplicitDeny
	Allow
)

// String is the effect as SimulatePrincipalPolicy spells it.
func (e Effect) String() string { return [...]string{"implicitDeny", "explicitDeny", "allowed"}[e] }

// The versions of the policy language.
const (
	Version2012 = "2012-10-17"
	Version2008 = "2008-10-17" // the default; has no policy variables
)

// Document is a parsed, validated and compiled policy document. It is immutable.
type Document struct {
	Kind    Kind
	Version string // Version2008 when the document gives none
	ID      string
	// Statements in the order of the text.
	Statements []*Statement

	text          string
	denies, allow []*Statement
	keys          []string
}

// Text is the document as it was given to Parse, byte for byte.
func (d *Document) Text() string { return d.text }

// ContextKeys are the condition keys the document refers to, in conditions and
// as policy variables, sorted, each once, as first written
// (GetContextKeysForCustomPolicy).
func (d *Document) ContextKeys() []string { return append([]string(nil), d.keys...) }

// ContextKeys are the condition keys that any of the documents refers to.
func ContextKeys(docs ...*Document) []string {
	set := keySet{}
	for _, d := range docs {
		if d != nil {
			for _, k := range d.keys {
				set.add(k)
			}
		}
	}
	return set.sorted()
}

// keySet is a set of condition keys, whose case does not matter.
type keySet map[string]string

func (s keySet) add(key string) {
	if l := strings.ToLower(key); s[l] == "" {
		s[l] = key
	}
}

func (s keySet) sorted() []string {
	out := make([]string, 0, len(s))
	for _, k := range s {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Statement is one statement of a document.
type Statement struct {
	Sid    string
	Effect Effect // Allow or ExplicitDeny
	Index  int    // from 0
	// Start and End are the places of the statement's braces in the text; End is
	// just behind the closing one.
	Start, End Position

	principals   *principalSet // nil: the document has no principals
	notPrincipal bool
	actions      []action
	notAction    bool
	resources    []resource // empty with noResources: any resource (trust policies)
	notResource  bool
	noResources  bool
	conditions   []condition
}

// Name is the Sid, or the number of the statement for those that have none.
func (s *Statement) Name() string {
	if s.Sid != "" {
		return s.Sid
	}
	return fmt.Sprintf("statement %d", s.Index+1)
}

// MustParse is Parse for texts that are part of the program.
func MustParse(text string, kind Kind) *Document {
	d, err := Parse([]byte(text), kind)
	if err != nil {
		panic(fmt.Sprintf("policy: %v in %s", err, text))
	}
	return d
}

// Parse reads and validates a document. The error is a *ParseError. Quotas
// (MaxManagedPolicy, …) are the caller's to check, except MaxDocument, and
// MaxKeyPolicy for key policies.
//
// Source: IAM User Guide, "Grammar of the IAM JSON policy language" and "IAM JSON
// policy element reference".
func Parse(text []byte, kind Kind) (*Document, error) {
	p := &parser{text: string(text), kind: kind, keys: keySet{}, doc: &Document{Kind: kind, Version: Version2008, text: string(text)}}
	limit := MaxDocument
	if kind == Key {
		limit = MaxKeyPolicy
	}
	if len(text) > limit {
		return nil, &ParseError{Message: syntaxErrors, Detail: fmt.Sprintf("the %s has %d bytes, the most is %d", kind, len(text), limit), Position: Position{1, 1}}
	}
	root, err := readJSON(p.text)
	if err != nil {
		je := err.(*jsonError)
		message := syntaxErrors
		if kind == Trust {
			message = "This policy contains invalid Json"
		}
		return nil, &ParseError{Message: message, Detail: je.msg, Position: positionAt(p.text, je.pos)}
	}
	if err := p.document(root); err != nil {
		return nil, err
	}
	p.doc.keys = p.keys.sorted()
	return p.doc, nil
}

type parser struct {
	text      string
	kind      Kind
	variables bool // the version has policy variables
	keys      keySet
	doc       *Document
}

func (p *parser) fail(pos int, message, detail string, args ...any) error {
	return &ParseError{Message: message, Detail: fmt.Sprintf(detail, args...), Position: positionAt(p.text, pos)}
}

func (p *parser) want(v *value, k valueKind, element string) error {
	if v.kind != k {
		return p.fail(v.pos, syntaxErrors, "%s must be %s, not %s", element, k, v.kind)
	}
	return nil
}

// strings reads a string or a list of strings.
func (p *parser) strings(v *value, element string) ([]value, error) {
	switch v.kind {
	case isString:
		return []value{*v}, nil
	case isArray:
		for i := range v.items {
			if err := p.want(&v.items[i], isString, "each value of "+element); err != nil {
				return nil, err
			}
		}
		return v.items, nil
	}
	return nil, p.fail(v.pos, syntaxErrors, "%s must be a string or a list of strings, not %s", element, v.kind)
}

var documentElements = []string{"Version", "Id", "Statement"}

func (p *parser) document(root value) error {
	if err := p.want(&root, isObject, "a policy document"); err != nil {
		return err
	}
	var statement *value
	for i := range root.members {
		m := &root.members[i]
		switch m.name {
		case "Version":
			if err := p.want(&m.value, isString, "Version"); err != nil {
				return err
			}
			if m.value.text != Version2012 && m.value.text != Version2008 {
				return p.fail(m.value.pos, syntaxErrors, "Version is %q; write %q", m.value.text, Version2012)
			}
			p.doc.Version = m.value.text
		case "Id":
			if err := p.want(&m.value, isString, "Id"); err != nil {
				return err
			}
			p.doc.ID = m.value.text
		case "Statement":
			statement = &m.value
		default:
			return p.unknown(m, "a policy document", documentElements)
		}
	}
	p.variables = p.doc.Version == Version2012
	if statement == nil {
		return p.fail(root.pos, missing(p.kind, "Statement"), "a policy document needs the element Statement")
	}
	list := []value{*statement}
	switch statement.kind {
	case isObject:
	case isArray:
		if list = statement.items; len(list) == 0 {
			return p.fail(statement.pos, syntaxErrors, "Statement is an empty list; a policy needs at least one statement")
		}
	default:
		return p.fail(statement.pos, syntaxErrors, "Statement must be an object or a list of objects, not %s", statement.kind)
	}
	sids := map[string]int{} // looked at before anything else of the statements, as AWS does
	for i := range list {
		for _, m := range list[i].members {
			if m.name != "Sid" || m.value.kind != isString || m.value.text == "" {
				continue
			}
			if first, dup := sids[m.value.text]; dup {
				return p.fail(list[i].pos, "Statement IDs (SID) in a single policy must be unique.", "statements %d and %d both have the Sid %q", first+1, i+1, m.value.text)
			}
			sids[m.value.text] = i
		}
	}
	for i := range list {
		s, err := p.statement(&list[i], i)
		if err != nil {
			return err
		}
		p.doc.Statements = append(p.doc.Statements, s)
		if s.Effect == Allow {
			p.doc.allow = append(p.doc.allow, s)
		} else {
			p.doc.denies = append(p.doc.denies, s)
		}
	}
	return nil
}

// missing is what the service says of an element that is not there.
func missing(kind Kind, element string) string {
	switch {
	case kind == Trust || kind == ResourcePolicy:
		return "Missing required field " + element
	case kind == Key:
		if element == "Principal" {
			return "Policy contains a statement with no principal."
		}
		return "Missing required field " + element
	case element == "Action":
		return "Policy statement must contain actions."
	case element == "Resource":
		return "Policy statement must contain resources."
	}
	return syntaxErrors
}

func (p *parser) unknown(m *member, where string, known []string) error {
	if n := nearest(m.name, known); n != "" {
		return p.fail(m.pos, syntaxErrors, "unknown element %q in %s; did you mean %q?", m.name, where, n)
	}
	return p.fail(m.pos, syntaxErrors, "unknown element %q in %s; the elements are %s", m.name, where, strings.Join(known, ", "))
}

var statementElements = []string{"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}

func (p *parser) statement(v *value, index int) (*Statement, error) {
	s := &Statement{Index: index, Start: positionAt(p.text, v.pos), End: positionAt(p.text, v.end)}
	where := fmt.Sprintf("statement %d", index+1)
	if err := p.want(v, isObject, where); err != nil {
		return nil, err
	}
	at := map[string]*member{}
	for i := range v.members {
		m := &v.members[i]
		at[m.name] = m
		known := false
		for _, e := range statementElements {
			known = known || e == m.name
		}
		if !known {
			return nil, p.unknown(m, where, statementElements)
		}
	}
	for _, e := range [...]string{"Principal", "Action", "Resource"} {
		if at[e] != nil && at["Not"+e] != nil {
			return nil, p.fail(at["Not"+e].pos, syntaxErrors, "%s has both %s and Not%s; keep one", where, e, e)
		}
	}
	if m := at["Sid"]; m != nil {
		if err := p.want(&m.value, isString, "Sid"); err != nil {
			return nil, err
		}
		if s.Sid = m.value.text; !p.kind.hasPrincipal() || p.kind == Trust {
			for _, c := range s.Sid {
				if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
					return nil, p.fail(m.value.pos, "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*", "the Sid %q has %q", s.Sid, c)
				}
			}
		}
	}
	m := at["Effect"]
	if m == nil {
		return nil, p.fail(v.pos, effectMissing(p.kind), "%s has no Effect; write \"Effect\": \"Allow\" or \"Deny\"", where)
	}
	switch {
	case m.value.kind == isString && m.value.text == "Allow":
		s.Effect = Allow
	case m.value.kind == isString && m.value.text == "Deny":
		s.Effect = ExplicitDeny
	default:
		message := syntaxErrors
		if m.value.kind == isString && (strings.EqualFold(m.value.text, "Allow") || strings.EqualFold(m.value.text, "Deny")) {
			message = legacyParsing
		}
		return nil, p.fail(m.value.pos, message, "Effect must be \"Allow\" or \"Deny\", exactly so written")
	}
	if err := p.principal(s, at["Principal"], at["NotPrincipal"], v, where); err != nil {
		return nil, err
	}
	// As AWS: that both are there, then what is in Resource, then in Action.
	if at["Action"] == nil && at["NotAction"] == nil {
		return nil, p.fail(v.pos, missing(p.kind, "Action"), "%s has neither Action nor NotAction", where)
	}
	if err := p.resource(s, at["Resource"], at["NotResource"], v, where); err != nil {
		return nil, err
	}
	if err := p.action(s, at["Action"], at["NotAction"], where); err != nil {
		return nil, err
	}
	if m := at["Condition"]; m != nil {
		if err := p.condition(s, &m.value); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func effectMissing(k Kind) string {
	if k.hasPrincipal() {
		return "Missing required field Effect"
	}
	return syntaxErrors
}

const noVendor = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."

func (p *parser) action(s *Statement, m, not *member, where string) error {
	element := "Action"
	if m == nil {
		m, s.notAction, element = not, true, "NotAction"
	}
	list, err := p.strings(&m.value, element)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return p.fail(m.value.pos, missing(p.kind, "Action"), "%s of %s is an empty list", element, where)
	}
	for i := range list {
		a, pos := list[i].text, list[i].pos
		if a != "*" {
			vendor, name, ok := strings.Cut(a, ":")
			switch {
			case !ok || vendor == "":
				return p.fail(pos, noVendor, "the action %q has no service prefix; write for example %q", a, "kms:"+strings.TrimPrefix(a, ":"))
			case !vendorName(vendor):
				return p.fail(pos, "Vendor "+vendor+" is not valid", "a service prefix has letters, digits and hyphens, and no wildcards (action %q)", a)
			case strings.Contains(name, ":"):
				return p.fail(pos, "Actions/Condition can contain only one colon.", "the action is %q", a)
			case !actionName(name):
				return p.fail(pos, syntaxErrors, "the action %q is not of the form service:Name; a name has letters, digits, - and _, and the wildcards * and ?", a)
			}
		}
		if p.kind == Trust && !stsAction(a) {
			return p.fail(pos, "AssumeRole policy may only specify STS AssumeRole actions.", "the action %q is not one of a trust policy: sts:AssumeRole, sts:AssumeRoleWithSAML, sts:AssumeRoleWithWebIdentity, sts:TagSession, sts:SetSourceIdentity, sts:SetContext", a)
		}
		s.actions = append(s.actions, compileAction(a))
	}
	return nil
}

func vendorName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return s != ""
}

// actionName takes spaces too: IAM accepts such a name, which no action has.
func actionName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && strings.IndexByte("*?-_ ", s[i]) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func stsAction(a string) bool {
	a = strings.ToLower(a)
	switch a {
	case "sts:tagsession", "sts:setsourceidentity", "sts:setcontext", "sts:*":
		return true
	}
	return strings.HasPrefix(a, "sts:assumerole") || strings.HasPrefix("sts:assumerole", strings.TrimRight(a, "*")) && strings.HasPrefix(a, "sts:") && strings.HasSuffix(a, "*")
}

func (p *parser) resource(s *Statement, m, not *member, v *value, where string) error {
	element := "Resource"
	if m == nil {
		m, s.notResource, element = not, true, "NotResource"
	}
	if p.kind == Trust {
		if m != nil {
			return p.fail(m.pos, "Has prohibited field "+element, "a role trust policy is about its own role; remove %s from %s", element, where)
		}
		s.noResources, s.notResource = true, false
		return nil
	}
	if m == nil {
		return p.fail(v.pos, missing(p.kind, "Resource"), "%s has neither Resource nor NotResource", where)
	}
	list, err := p.strings(&m.value, element)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return p.fail(m.value.pos, missing(p.kind, "Resource"), "%s of %s is an empty list", element, where)
	}
	for i := range list {
		r, err := p.compileResource(&list[i])
		if err != nil {
			return err
		}
		s.resources = append(s.resources, r)
	}
	return nil
}

// AllowsService tells whether a statement allows some action of a service, by its
// prefix ("kms"). What other statements deny does not count.
func (d *Document) AllowsService(service string) bool {
	for _, s := range d.allow {
		all := false // of the service's actions
		for i := range s.actions {
			a := &s.actions[i]
			vendor, name, _ := strings.Cut(a.lower, ":")
			if a.all || vendor == service {
				if !s.notAction {
					return true
				}
				all = all || a.all || a.prefix && name == ""
			}
		}
		if s.notAction && !all {
			return true
		}
	}
	return false
}
