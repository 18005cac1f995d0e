package kms

import (
	"strings"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// A grant or a key policy means the user or role that has the ARN at the moment
// it is written. It is stored with the unique ID in the ARN's place (AIDA… of a
// user, AROA… of a role, AROA…:SESSION of a role session), and shown with the
// ARN again while that principal exists. Who comes later under the same name
// holds nothing of it; a user who is renamed keeps it.
// Source: IAM User Guide, "AWS JSON policy elements: Principal".

// Principals is what the key service asks of IAM.
type Principals interface {
	// PrincipalID is the unique ID behind a principal that stands in a key policy or
	// a grant: the ARN of an account root, user, role, role session or federated
	// user, an account ID, or a unique ID. ok is false when there is none.
	PrincipalID(tx *store.Tx, principal string) (id string, ok bool)
	// PrincipalARN is the ARN that the unique ID has now.
	PrincipalARN(tx *store.Tx, id string) (arn string, ok bool)
}

// isUniqueID tells the unique ID of a user, role or role session.
func isUniqueID(s string) bool { return strings.HasPrefix(s, "AIDA") || strings.HasPrefix(s, "AROA") }

// bind is the form in which a principal is stored; ok is false when it does not exist.
func (s *Service) bind(tx *store.Tx, principal string) (stored string, ok bool) {
	id, ok := s.cfg.Principals.PrincipalID(tx, principal)
	if ok && isUniqueID(id) {
		return id, true
	}
	return principal, ok
}

// shown is a stored principal as the API shows it.
func (s *Service) shown(tx *store.Tx, stored string) string {
	if isUniqueID(stored) {
		if arn, ok := s.cfg.Principals.PrincipalARN(tx, stored); ok {
			return arn
		}
	}
	return stored
}

// reportUnbound names, in the log, grants that builds from before the binding wrote
// with the ARN of a user, role or session in place of the unique ID. Who that was cannot be
// known any more: such a grant allows nothing, and can be listed and revoked.
func (s *Service) reportUnbound() {
	s.grants.Scan(s.store.Snapshot(), "", "", func(p string, g *Grant) bool {
		for _, stored := range []string{g.Grantee, g.Retiring} {
			if strings.HasPrefix(stored, "arn:") && (strings.Contains(stored, ":user/") || strings.Contains(stored, ":role/") || strings.Contains(stored, ":assumed-role/")) {
				account, region, id := splitPath(keyPathOf(p))
				s.log.Error("a grant of an older build names a principal that is not bound to a unique ID, and does not serve it: revoke the grant and make it again",
					"key", keyARN(account, region, id), "grant", g.id(), "principal", stored)
			}
		}
		return true
	})
}

// bindPolicy is a checked key policy in the form in which it is stored.
func (s *Service) bindPolicy(tx *store.Tx, doc *policy.Document) string {
	return doc.WithPrincipals(func(p policy.PrincipalName) string {
		if p.Type != "AWS" || !strings.HasPrefix(p.Value, "arn:") {
			return p.Value
		}
		stored, _ := s.bind(tx, p.Value)
		return stored
	})
}

// shownPolicy is a key's policy as GetKeyPolicy shows it.
func (s *Service) shownPolicy(tx *store.Tx, k *Key) (string, error) {
	doc, err := k.document()
	if err != nil {
		return "", err
	}
	return doc.WithPrincipals(func(p policy.PrincipalName) string { return s.shown(tx, p.Value) }), nil
}

// grantees are the names under which a caller holds grants, its account apart.
func grantees(p *api.Principal) []string {
	switch p.Type {
	case api.AWSService:
		return []string{p.ARN, p.Service + ".amazonaws.com"}
	case api.AssumedRole:
		role, _, _ := strings.Cut(p.ID, ":")
		return []string{role, p.ID}
	case api.IAMUser:
		return []string{p.ID}
	default:
		return []string{p.ARN}
	}
}

// accountGrantee is the name under which the account of the caller holds grants,
// "" when the caller is the account itself (root) or of none.
func accountGrantee(p *api.Principal) string {
	switch p.Type {
	case api.IAMUser, api.AssumedRole, api.FederatedUser:
		return "arn:aws:iam::" + p.Account + ":root"
	}
	return ""
}
