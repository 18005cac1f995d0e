package kms

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// grantOf is the grant that a CreateGrant input asks for, without ID, seed and time.
func grantOf(c *api.Call, in *kms.CreateGrantInput) *Grant {
	g := &Grant{Name: str(in.Name), IssuingAccount: c.Principal.Account, Grantee: str(in.GranteePrincipal), Retiring: str(in.RetiringPrincipal)}
	if in.GranteeServicePrincipal != nil {
		g.Grantee, g.GranteeService = *in.GranteeServicePrincipal, true
	}
	if in.RetiringServicePrincipal != nil {
		g.Retiring, g.RetiringService = *in.RetiringServicePrincipal, true
	}
	for _, o := range in.Operations {
		if !contains(g.Operations, string(o)) {
			g.Operations = append(g.Operations, string(o))
		}
	}
	sort.Strings(g.Operations)
	if in.Constraints != nil {
		g.Equals, g.Subset, g.SourceARN = pairsOf(in.Constraints.EncryptionContextEquals), pairsOf(in.Constraints.EncryptionContextSubset), str(in.Constraints.SourceArn)
	}
	return g
}

// nameHash identifies a named grant's parameters: a repeated CreateGrant with the
// same ones is answered with the same grant.
func (g *Grant) nameHash() string {
	h := sha256.New()
	put := func(s string) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	put(g.Name)
	put(g.Grantee)
	put(g.Retiring)
	put(g.IssuingAccount)
	put(strings.Join(g.Operations, ","))
	h.Write(appendContext(nil, g.Equals.asMap()))
	h.Write(appendContext(nil, g.Subset.asMap()))
	put(g.SourceARN)
	return hex.EncodeToString(h.Sum(nil))
}

// narrows tells whether a child grant is no wider than g, which must allow
// CreateGrant. Source: KMS developer guide, "Granting CreateGrant permission".
func (g *Grant) narrows(child *Grant) bool {
	for _, o := range child.Operations {
		if !contains(g.Operations, o) {
			return false
		}
	}
	if g.SourceARN != "" && child.SourceARN != g.SourceARN {
		return false
	}
	if len(g.Equals) > 0 {
		return len(child.Equals) == len(g.Equals) && g.contextAllows(child.Equals.asMap())
	}
	limit, _ := child.constraint()
	return g.contextAllows(limit.asMap())
}

// parent finds a grant under which the caller may make the child.
func (s *Service) parent(tx *store.Tx, c *api.Call, k *Key, child *Grant) (*Grant, policy.Grant) {
	limit, _ := child.constraint()
	return s.findGrant(tx, c, k, "CreateGrant", limit.asMap(), false, func(g *Grant) bool { return g.narrows(child) })
}

// constraint are the keys of CreateGrant and RetireGrant that say how the grant is limited.
func (k conditions) constraint(g *Grant) {
	limit, exact := g.constraint()
	if len(limit) == 0 {
		return
	}
	k.text("kms:GrantConstraintType", "EncryptionContextSubset")
	if exact {
		k.text("kms:GrantConstraintType", "EncryptionContextEquals")
	}
	k.context(limit.asMap())
}

func (s *Service) onCreateGrant(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CreateGrantInput) ([]api.Target, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byForeignKey)
	if err != nil {
		return nil, err
	}
	if err := s.checkTokens(tx, c); err != nil {
		return nil, err
	}
	g := grantOf(c, in)
	t, err := s.askLater(c, f, "CreateGrant", func() map[string][]string {
		k := s.about(f, c)
		k.flag("kms:GrantIsForAWSResource", len(c.Via) > 0)
		k.set("kms:GrantOperations", g.Operations...)
		k.text("kms:GranteePrincipal", str(in.GranteePrincipal))
		k.text("kms:GranteeServicePrincipal", str(in.GranteeServicePrincipal))
		k.text("kms:RetiringPrincipal", str(in.RetiringPrincipal))
		k.text("kms:RetiringServicePrincipal", str(in.RetiringServicePrincipal))
		k.text("kms:GrantConstraintSourceArn", g.SourceARN)
		k.constraint(g)
		return k
	}, func() (policy.Grant, string) {
		if p, how := s.parent(tx, c, f.Key, g); p != nil {
			return how, "grant " + p.id()
		}
		return policy.NoGrant, "no grant with CreateGrant allows making one this wide"
	})
	return []api.Target{t}, err
}

const maxConstraintPairs = 8

// createGrant is CreateGrant.
func (s *Service) createGrant(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CreateGrantInput) (*kms.CreateGrantOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byForeignKey)
	if err != nil {
		return nil, err
	}
	g := grantOf(c, in)
	if err := s.validateGrant(tx, f.Key, g, in); err != nil {
		return nil, err
	}
	if err := granting.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	if in.DryRun != nil && *in.DryRun {
		return nil, errDryRun()
	}
	kp := f.path()
	var named string
	if g.Name != "" {
		named = grantKey(kp, g.nameHash())
		if n := s.names.Get(tx, named); n != nil {
			if old := s.grants.Get(tx, grantKey(kp, n.GrantID.String())); old != nil {
				token, err := newToken(f.Account, f.ID, old)
				return &kms.CreateGrantOutput{GrantId: ptr(old.id()), GrantToken: &token}, err
			}
		}
	}
	if f.Service == "" && s.index.on(kp) >= s.cfg.Quotas.GrantsPerKey {
		return nil, errLimit("The key %s already has %d grants, the most a key can have. Retire or revoke grants that are no longer needed.", f.arn(), s.cfg.Quotas.GrantsPerKey)
	}
	if p, _ := s.parent(tx, c, f.Key, g); p != nil {
		g.Parent = p.packed()
	}
	g.key, g.Created = grantKey(kp, newMaterialID()), c.Time
	_, _ = rand.Read(g.Seed[:])
	if err := s.grants.Put(tx, g.key, g); err != nil {
		return nil, err
	}
	if named != "" {
		if err := s.names.Put(tx, named, &grantName{GrantID: g.packed()}); err != nil {
			return nil, err
		}
	}
	token, err := newToken(f.Account, f.ID, g)
	return &kms.CreateGrantOutput{GrantId: ptr(g.id()), GrantToken: &token}, err
}

// validateGrant refuses what no grant can be, and binds the principals it names.
func (s *Service) validateGrant(tx *store.Tx, k *Key, g *Grant, in *kms.CreateGrantInput) error {
	switch {
	case in.GranteePrincipal != nil && in.GranteeServicePrincipal != nil:
		return errValidation("GranteePrincipal and GranteeServicePrincipal are mutually exclusive: give one.")
	case g.Grantee == "":
		return errValidation("A grant needs a grantee: give GranteePrincipal or GranteeServicePrincipal.")
	case in.RetiringPrincipal != nil && in.RetiringServicePrincipal != nil:
		return errValidation("RetiringPrincipal and RetiringServicePrincipal are mutually exclusive: give one.")
	case g.GranteeService && g.SourceARN == "":
		return errValidation("A grant to a service principal (GranteeServicePrincipal) needs the SourceArn constraint.")
	case g.GranteeService && g.Retiring == "":
		return errValidation("A grant to a service principal (GranteeServicePrincipal) needs a retiring principal.")
	case len(g.Operations) == 0:
		return errValidation("A grant needs at least one operation.")
	case len(g.Equals) > 0 && len(g.Subset) > 0:
		return errValidation("More than one constraint supplied: a grant has either EncryptionContextEquals or EncryptionContextSubset.")
	}
	for _, x := range []struct {
		principal *string
		service   bool
	}{{&g.Grantee, g.GranteeService}, {&g.Retiring, g.RetiringService}} {
		if *x.principal == "" || serviceHost(*x.principal) {
			continue
		}
		if x.service {
			return errValidation("%s is not a service principal.", *x.principal)
		}
		stored, ok := s.bind(tx, *x.principal)
		if !strings.HasPrefix(*x.principal, "arn:") || !ok {
			return errInvalidARN("ARN does not refer to a valid principal: " + *x.principal)
		}
		*x.principal = stored
	}
	supported := k.grantOperations()
	for _, o := range g.Operations {
		if !contains(supported, o) {
			return errValidation("The operation %s is not supported by the key %s (%s, %s): a grant on it can list %s.", o, k.arn(), k.Spec, k.Usage, strings.Join(supported, ", "))
		}
	}
	limit, _ := g.constraint()
	if len(limit) > 0 && k.Spec != specSymmetric {
		return errValidation("An encryption context constraint is valid only in a grant on a symmetric encryption key; %s is %s.", k.arn(), k.Spec)
	}
	if len(limit) > maxConstraintPairs {
		return errValidation("An encryption context constraint has at most %d pairs.", maxConstraintPairs)
	}
	for _, x := range limit {
		if len(x.name) > 384 || len(x.value) > 384 {
			return errValidation("A name or value in an encryption context constraint has at most 384 characters.")
		}
	}
	return nil
}

// entry is the grant as lists show it.
func (s *Service) entry(tx *store.Tx, g *Grant, keyPath string) types.GrantListEntry {
	account, region, id := splitPath(keyPath)
	e := types.GrantListEntry{GrantId: ptr(g.id()), KeyId: ptr(keyARN(account, region, id)), CreationDate: ptr(g.Created),
		IssuingAccount: ptr("arn:aws:iam::" + g.IssuingAccount + ":root")}
	if g.Name != "" {
		e.Name = ptr(g.Name)
	}
	if g.GranteeService {
		e.GranteeServicePrincipal = ptr(g.Grantee)
	} else {
		e.GranteePrincipal = ptr(s.shown(tx, g.Grantee))
	}
	if g.Retiring != "" {
		if g.RetiringService {
			e.RetiringServicePrincipal = ptr(g.Retiring)
		} else {
			e.RetiringPrincipal = ptr(s.shown(tx, g.Retiring))
		}
	}
	for _, o := range g.Operations {
		e.Operations = append(e.Operations, types.GrantOperation(o))
	}
	if len(g.Equals)+len(g.Subset) > 0 || g.SourceARN != "" {
		e.Constraints = &types.GrantConstraints{EncryptionContextEquals: g.Equals.asMap(), EncryptionContextSubset: g.Subset.asMap()}
		if g.SourceARN != "" {
			e.Constraints.SourceArn = ptr(g.SourceARN)
		}
	}
	return e
}

// listGrants is ListGrants.
func (s *Service) listGrants(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ListGrantsInput) (*kms.ListGrantsOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byForeignKey)
	if err != nil {
		return nil, err
	}
	if in.GranteePrincipal != nil && in.GranteeServicePrincipal != nil {
		return nil, errValidation("GranteePrincipal and GranteeServicePrincipal are mutually exclusive: give one.")
	}
	pg, err := newPage(c, "ListGrants", grantPrefix(f.path()), in.Limit, 50, 100, in.Marker)
	if err != nil {
		return nil, err
	}
	if in.GranteePrincipal != nil {
		stored, _ := s.bind(tx, *in.GranteePrincipal)
		in = &kms.ListGrantsInput{KeyId: in.KeyId, GrantId: in.GrantId, GranteePrincipal: &stored}
	}
	out := &kms.ListGrantsOutput{}
	if in.GrantId != nil {
		if !validGrantID(*in.GrantId) {
			return nil, &types.InvalidGrantIdException{Message: ptr("The grant ID is not valid: it has 64 hexadecimal digits.")}
		}
		if g := s.grants.Get(tx, grantKey(f.path(), *in.GrantId)); g != nil && g.listed(in) {
			out.Grants = append(out.Grants, s.entry(tx, g, f.path()))
		}
		return out, nil
	}
	add := func(p string, g *Grant) bool {
		if !g.listed(in) {
			return true
		}
		if !pg.more(p) {
			return false
		}
		out.Grants = append(out.Grants, s.entry(tx, g, f.path()))
		return true
	}
	if paths, few := s.index.held(f.path(), cmp.Or(str(in.GranteePrincipal), str(in.GranteeServicePrincipal))); few {
		for _, p := range paths {
			if g := s.grants.Get(tx, p); p > pg.after && g != nil && !add(p, g) {
				break
			}
		}
	} else {
		s.grants.Scan(tx, grantPrefix(f.path()), pg.after, add)
	}
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}

func (g *Grant) listed(in *kms.ListGrantsInput) bool {
	if in.GranteePrincipal != nil && (g.GranteeService || g.Grantee != *in.GranteePrincipal) {
		return false
	}
	return in.GranteeServicePrincipal == nil || g.GranteeService && g.Grantee == *in.GranteeServicePrincipal
}

// listRetirableGrants is ListRetirableGrants: grants on keys of any account that
// a principal of the caller's account may retire.
func (s *Service) listRetirableGrants(_ context.Context, tx *store.Tx, c *api.Call, in *kms.ListRetirableGrantsInput) (*kms.ListRetirableGrantsOutput, error) {
	retiring := str(in.RetiringPrincipal)
	switch {
	case in.RetiringPrincipal != nil && in.RetiringServicePrincipal != nil:
		return nil, errValidation("RetiringPrincipal and RetiringServicePrincipal are mutually exclusive: give one.")
	case in.RetiringServicePrincipal != nil:
		retiring = *in.RetiringServicePrincipal
	case retiring == "":
		return nil, errValidation("Give RetiringPrincipal or RetiringServicePrincipal.")
	}
	service := serviceHost(retiring)
	if !service {
		p := strings.SplitN(retiring, ":", 6)
		if len(p) != 6 || p[0] != "arn" {
			return nil, errInvalidARN("Invalid arn " + retiring)
		}
		if p[4] != c.Account {
			return nil, errAccessDenied("You can list the retirable grants of principals of your own account only; %s is not.", retiring)
		}
	}
	if !service {
		retiring, _ = s.bind(tx, retiring)
	}
	pg, err := newPage(c, "ListRetirableGrants", "", in.Limit, 50, 100, in.Marker)
	if err != nil {
		return nil, err
	}
	if _, _, ok := grantRegion(pg.after); pg.after != "" && !ok {
		return nil, errMarker()
	}
	out := &kms.ListRetirableGrantsOutput{}
	after := pg.after
scan:
	for {
		paths := s.index.retirable(retiring, c.Region, after, 256)
		for _, p := range paths {
			after = p
			g := s.grants.Get(tx, p)
			if g == nil || in.RetiringServicePrincipal != nil && !g.RetiringService {
				continue
			}
			// A service's grants on other accounts' keys are no business of this one.
			keyPath := keyPathOf(p)
			if account, _, _ := splitPath(keyPath); service && account != c.Account {
				continue
			}
			if !pg.more(p) {
				break scan
			}
			out.Grants = append(out.Grants, s.entry(tx, g, keyPath))
		}
		if len(paths) < 256 {
			break
		}
	}
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}

func validGrantID(id string) bool { return len(id) == 64 && isHex(id) }

func errNoGrant(id string) error { return errNotFound("Grant ID %s not found", id) }

// grantToRetire finds the grant of a RetireGrant call.
func (s *Service) grantToRetire(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.RetireGrantInput) (*Key, *Grant, error) {
	switch {
	case in.GrantToken != nil && (in.GrantId != nil || in.KeyId != nil):
		return nil, nil, errValidation("Name the grant by its token, or by its key and grant ID, not both.")
	case in.GrantToken != nil:
		return s.tokenGrant(tx, c, *in.GrantToken)
	case in.GrantId == nil || in.KeyId == nil:
		return nil, nil, errValidation("Name the grant by its token, or by its key and grant ID.")
	}
	if !validGrantID(*in.GrantId) {
		return nil, nil, &types.InvalidGrantIdException{Message: ptr("The grant ID is not valid: it has 64 hexadecimal digits.")}
	}
	f, err := s.find(ctx, tx, c, in.KeyId, byForeignKey)
	if err != nil {
		return nil, nil, err
	}
	g := s.grants.Get(tx, grantKey(f.path(), *in.GrantId))
	if g == nil {
		if f.Account != c.Account {
			return nil, nil, errAccessDenied("User: %s is not authorized to perform: kms:RetireGrant on resource: %s", c.Principal.ARN, f.arn())
		}
		return nil, nil, errNoGrant(*in.GrantId)
	}
	return f.Key, g, nil
}

// onRetireGrant: who may retire is up to the grant: the retiring principal; the
// grantee, when RetireGrant is among its operations; and, by IAM policy, the
// account that made the grant (or that retires it, when that is an account).
// Key policies have no say. Source: KMS developer guide, "Retiring and revoking grants".
func (s *Service) onRetireGrant(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.RetireGrantInput) ([]api.Target, error) {
	k, g, err := s.grantToRetire(ctx, tx, c, in)
	if err != nil {
		return nil, err
	}
	note(c, k.arn())
	if c.Record != nil {
		if c.Record.AdditionalEventData == nil {
			c.Record.AdditionalEventData = map[string]any{}
		}
		c.Record.AdditionalEventData["grantId"] = g.id()
	}
	keys := func() map[string][]string {
		keys := s.about(found{Key: k}, c)
		keys.constraint(g)
		return keys
	}
	t := api.Target{Action: "kms:RetireGrant", ARN: k.arn(), Account: k.Account, KeysOf: keys, PolicyID: "the retiring rules of grant " + g.id(),
		Granted: func() (policy.Grant, string) {
			who := grantees(&c.Principal)
			if slices.Contains(who, g.Retiring) {
				return policy.GrantCaller, "the retiring principal of grant " + g.id()
			}
			if contains(g.Operations, "RetireGrant") {
				if slices.Contains(who, g.Grantee) {
					return policy.GrantCaller, "grant " + g.id()
				}
				if g.Grantee == accountGrantee(&c.Principal) {
					return policy.GrantAccount, "grant " + g.id()
				}
			}
			return policy.NoGrant, "the caller is neither the retiring principal of grant " + g.id() + " nor its grantee with RetireGrant among the operations"
		}}
	if account := c.Principal.Account; c.Principal.Type != api.AWSService && (account == g.IssuingAccount || g.Retiring == "arn:aws:iam::"+account+":root") {
		t.Account = "" // IAM of the caller's account decides
		t.Mode = policy.ModeStandard
	} else {
		t.Mode = policy.ModeKMS
		t.Policy = denyAll
	}
	return []api.Target{t}, nil
}

// retireGrant is RetireGrant.
func (s *Service) retireGrant(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.RetireGrantInput) (*kms.RetireGrantOutput, error) {
	_, g, err := s.grantToRetire(ctx, tx, c, in)
	if err != nil {
		return nil, err
	}
	if in.DryRun != nil && *in.DryRun {
		return nil, errDryRun()
	}
	return &kms.RetireGrantOutput{}, s.dropGrant(tx, g)
}

// revokeGrant is RevokeGrant.
func (s *Service) revokeGrant(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.RevokeGrantInput) (*kms.RevokeGrantOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byForeignKey)
	if err != nil {
		return nil, err
	}
	if !validGrantID(str(in.GrantId)) {
		return nil, &types.InvalidGrantIdException{Message: ptr("The grant ID is not valid: it has 64 hexadecimal digits.")}
	}
	g := s.grants.Get(tx, grantKey(f.path(), *in.GrantId))
	if g == nil {
		return nil, errNoGrant(*in.GrantId)
	}
	if in.DryRun != nil && *in.DryRun {
		return nil, errDryRun()
	}
	return &kms.RevokeGrantOutput{}, s.dropGrant(tx, g)
}

func (s *Service) dropGrant(tx *store.Tx, g *Grant) error {
	if g.Name != "" {
		if err := s.names.Delete(tx, grantKey(keyPathOf(g.key), g.nameHash())); err != nil {
			return err
		}
	}
	return s.grants.Delete(tx, g.key)
}

// auditCreateGrant: the key by its ARN, the grant by its ID, never the token.
func auditCreateGrant(_ *api.Call, _ *kms.CreateGrantInput, out *kms.CreateGrantOutput, r *audit.Record) {
	arn := keyOf(r)
	if arn == "" {
		return
	}
	if r.RequestParameters != nil {
		r.RequestParameters["keyId"] = arn
	}
	if out != nil {
		r.ResponseElements = map[string]any{"grantId": str(out.GrantId), "keyId": arn}
	}
}

// auditRetireGrant: what was retired is in additionalEventData and resources.
func auditRetireGrant(_ *api.Call, _ *kms.RetireGrantInput, _ *kms.RetireGrantOutput, r *audit.Record) {
	r.RequestParameters, r.ResponseElements = nil, nil
}

// keyOf is the ARN of the first key in a record's resources.
func keyOf(r *audit.Record) string {
	for _, x := range r.Resources {
		if x.Type == "AWS::KMS::Key" {
			return x.ARN
		}
	}
	return ""
}
