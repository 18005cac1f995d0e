package policy

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Context holds the condition keys of a request and their values. Keys may be
// written in any case and match in any case; write them as AWS does
// ("aws:SourceIp", "kms:EncryptionContext:aws:ebs:id"), which is found quickest.
// A key without values counts as missing.
type Context map[string][]string

// Request is what the caller asks for.
//
// The keys that follow from the request itself need not be in Context, and
// Context overrides them: aws:PrincipalArn, aws:PrincipalAccount,
// aws:PrincipalType, aws:PrincipalTag/…, aws:PrincipalIsAWSService,
// aws:PrincipalServiceName, aws:PrincipalServiceNamesList, aws:userid,
// aws:username, aws:ResourceAccount, aws:CurrentTime, aws:EpochTime,
// aws:CalledVia, aws:CalledViaFirst, aws:CalledViaLast, aws:ViaAWSService.
type Request struct {
	Principal Principal
	// Action is service:Name, in any case. A policy may as well use one of
	// ActionAliases for it.
	Action        string
	ActionAliases []string
	// Resource is an ARN, or "*" when the action has no resource. The resource may
	// also go by one of ResourceAliases.
	Resource        string
	ResourceAliases []string
	// ResourceAccount owns the resource; empty: the caller's account.
	ResourceAccount string
	Context         Context
	// Keys, when set, makes the context in the place of Context, the first time that a
	// condition or a variable asks for a key: most documents never do.
	Keys func() Context
	// Time of the request; zero: aws:CurrentTime is missing.
	Time time.Time
	// CalledVia are the services that forwarded the caller's request, first to
	// last ("workspaces.amazonaws.com"): a forward access session. The permissions
	// are the caller's; only the keys aws:CalledVia… differ.
	CalledVia []string
}

// derived keys follow from the request.
type derived uint8

const (
	fromContext derived = iota
	principalARN
	principalAccount
	principalType
	principalTag
	principalIsService
	principalServiceName
	principalServiceNames
	userID
	userName
	resourceAccount
	currentTime
	epochTime
	calledVia
	calledViaFirst
	calledViaLast
	viaService
)

var derivedKeys = map[string]derived{
	"aws:principalarn": principalARN, "aws:principalaccount": principalAccount, "aws:principaltype": principalType,
	"aws:principalisawsservice": principalIsService, "aws:principalservicename": principalServiceName,
	"aws:principalservicenameslist": principalServiceNames, "aws:userid": userID, "aws:username": userName,
	"aws:resourceaccount": resourceAccount, "aws:currenttime": currentTime, "aws:epochtime": epochTime,
	"aws:calledvia": calledVia, "aws:calledviafirst": calledViaFirst, "aws:calledvialast": calledViaLast, "aws:viaawsservice": viaService,
}

// keyRef is a condition key in a document.
type keyRef struct {
	name    string // as written
	derived derived
	tag     string // of aws:PrincipalTag/tag
}

const principalTagPrefix = "aws:principaltag/"

func makeKey(name string) keyRef {
	k := keyRef{name: name}
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, principalTagPrefix) {
		k.derived, k.tag = principalTag, name[len(principalTagPrefix):]
	} else {
		k.derived = derivedKeys[lower]
	}
	return k
}

// values are a key's values: one or many, without allocating for one.
type values struct {
	one  string
	many []string
}

func (v *values) len() int {
	if v.many != nil {
		return len(v.many)
	}
	return 1
}

func (v *values) at(i int) string {
	if v.many != nil {
		return v.many[i]
	}
	return v.one
}

// all is for explanations.
func (v *values) all() []string {
	if v.many != nil {
		return v.many
	}
	return []string{v.one}
}

// env is one evaluation.
type env struct {
	r       *Request
	main    name
	aliases []name
	bounded bool // the caller has a permissions boundary
	context Context
	keys    func() Context // makes context, nil once it has
}

func newEnv(r *Request, l *Layers) *env {
	e := new(env)
	e.init(r, l)
	return e
}

func (e *env) init(r *Request, l *Layers) {
	e.r, e.main, e.bounded = r, makeName(r.Resource), l.Boundary != nil
	e.context, e.keys = r.Context, r.Keys
	for _, a := range r.ResourceAliases {
		e.aliases = append(e.aliases, makeName(a))
	}
}

// lookup finds the values of a key; ok is false when it is missing.
func (e *env) lookup(k *keyRef) (v values, ok bool) {
	if e.keys != nil {
		e.context, e.keys = e.keys(), nil
	}
	if c := e.context; len(c) > 0 {
		if vs, has := c[k.name]; has {
			return values{many: vs}, len(vs) > 0
		}
		// Keys that differ only by case (tags may) are taken in alphabetical order, so
		// that a decision does not change from call to call.
		found := ""
		for name := range c {
			if len(name) == len(k.name) && (found == "" || name < found) && strings.EqualFold(name, k.name) {
				found = name
			}
		}
		if found != "" {
			return values{many: c[found]}, len(c[found]) > 0
		}
	}
	p := &e.r.Principal
	text := func(s string) (values, bool) { return values{one: s}, s != "" }
	switch k.derived {
	case principalARN:
		switch p.Type {
		case Role:
			return text(p.RoleARN)
		case Root, User, Federated:
			return text(p.ARN)
		}
	case principalAccount:
		switch p.Type {
		case Root, User, Role, Federated:
			return text(p.Account)
		}
	case principalType:
		switch p.Type {
		case Root:
			return text("Account")
		case User:
			return text("User")
		case Role:
			return text("AssumedRole")
		case Federated:
			return text("FederatedUser")
		case Anonymous:
			return text("Anonymous")
		}
	case principalTag:
		if s, has := p.Tags[k.tag]; has {
			return values{one: s}, true
		}
		found := ""
		for name := range p.Tags {
			if (found == "" || name < found) && strings.EqualFold(name, k.tag) {
				found = name
			}
		}
		if found != "" {
			return values{one: p.Tags[found]}, true
		}
	case principalIsService:
		if p.Type != Anonymous {
			return text(strconv.FormatBool(p.Type == Service))
		}
	case principalServiceName:
		if p.Type == Service {
			return text(p.Service + ".amazonaws.com")
		}
	case principalServiceNames:
		if p.Type == Service {
			list := []string{p.Service + ".amazonaws.com"}
			if p.ARN != list[0] {
				list = append(list, p.ARN)
			}
			return values{many: list}, true
		}
	case userID:
		return text(p.UserID)
	case userName:
		return text(p.UserName)
	case resourceAccount:
		if e.r.ResourceAccount == "" {
			return text(p.Account)
		}
		return text(e.r.ResourceAccount)
	case currentTime:
		if !e.r.Time.IsZero() {
			return text(e.r.Time.UTC().Format("2006-01-02T15:04:05.999Z"))
		}
	case epochTime:
		if !e.r.Time.IsZero() {
			return text(strconv.FormatInt(e.r.Time.Unix(), 10))
		}
	case calledVia:
		if len(e.r.CalledVia) > 0 {
			return values{many: e.r.CalledVia}, true
		}
	case calledViaFirst:
		if len(e.r.CalledVia) > 0 {
			return text(e.r.CalledVia[0])
		}
	case calledViaLast:
		if n := len(e.r.CalledVia); n > 0 {
			return text(e.r.CalledVia[n-1])
		}
	case viaService:
		return text(strconv.FormatBool(len(e.r.CalledVia) > 0))
	}
	return values{}, false
}

// matchesAction tells whether the patterns match the action or one of its aliases.
func (s *Statement) matchesAction(e *env) bool {
	match := func(name string) bool {
		for i := range s.actions {
			if s.actions[i].match(name) {
				return true
			}
		}
		return false
	}
	if s.notAction {
		// Every name must be outside the list: one name inside excepts the action.
		return !match(e.r.Action) && !slices.ContainsFunc(e.r.ActionAliases, match)
	}
	return match(e.r.Action) || slices.ContainsFunc(e.r.ActionAliases, match)
}

func (s *Statement) matchesResource(e *env) bool {
	if s.noResources {
		return true
	}
	matched, unresolved := false, false
	for i := range s.resources {
		ok, un := s.resources[i].match(e, &e.main)
		for j := 0; !ok && j < len(e.aliases); j++ {
			ok, _ = s.resources[i].match(e, &e.aliases[j])
		}
		unresolved = unresolved || un
		if ok {
			matched = true
			break
		}
	}
	if !s.notResource {
		return matched
	}
	if unresolved && s.Effect == Allow {
		return false // it cannot be said what the statement excepts, so it gives nothing
	}
	return !matched
}

// applies tells whether the statement is about the request, and, in a resource
// policy, how it reaches the caller.
func (s *Statement) applies(e *env) (reach, bool) {
	if !s.matchesAction(e) || !s.matchesResource(e) {
		return unnamed, false
	}
	how := direct
	if s.principals != nil {
		if s.notPrincipal {
			if s.principals.exempts(&e.r.Principal, e.bounded) {
				return unnamed, false
			}
		} else if how = s.principals.reach(&e.r.Principal); how == unnamed {
			return unnamed, false
		}
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(e) {
			return unnamed, false
		}
	}
	return how, true
}
