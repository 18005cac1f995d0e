package api

import "github.com/sealdesk/sealdesk/internal/policy"

// Role is what STS needs to know of an IAM role.
type Role struct {
	Account, Name, ID, ARN string
	Trust                  *policy.Document
	MaxSession             int32 // seconds
	Tags                   map[string]string
}

// IdentityProvider is an OpenID Connect or SAML provider of an account.
type IdentityProvider struct {
	ARN string
	// Name is an OIDC issuer's URL without https:// and slash at the end.
	Name                   string
	ClientIDs, Thumbprints []string // OIDC
	Metadata               string   // SAML
}
