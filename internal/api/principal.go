package api

import (
	"time"

	"github.com/sealdesk/sealdesk/internal/audit"
)

// PrincipalType is the userIdentity type of a caller.
type PrincipalType string

// The types of principal that can make a call.
const (
	Root          PrincipalType = "Root"
	IAMUser       PrincipalType = "IAMUser"
	AssumedRole   PrincipalType = "AssumedRole"
	FederatedUser PrincipalType = "FederatedUser"
	AWSService    PrincipalType = "AWSService"
	// Anonymous is the caller of an operation that takes no signature.
	Anonymous PrincipalType = "Anonymous"
)

// Principal is an authenticated caller. It is a plain value that may be stored
// (a reconciler keeps the principal on whose behalf it works) and holds no secret.
type Principal struct {
	Type    PrincipalType
	Account string // 12 digits; for a service, the account it works in
	// ARN as policies and GetCallerIdentity show it: for an assumed role the
	// session ARN arn:aws:sts::ACCT:assumed-role/ROLE/SESSION, for a service its host.
	ARN string
	// ID is the unique ID: AIDA…, AROA…:session, the account for root.
	ID string
	// UserName is the IAM user's name.
	UserName string
	// RoleARN, RoleName and SessionName are set for assumed roles.
	RoleARN, RoleName, SessionName string
	AccessKeyID                    string
	// IssuerARN, IssuerID and IssuerName are the user (or root) who asked for a
	// federated user's session.
	IssuerARN, IssuerID, IssuerName string
	// Service is a service's name ("workspaces") for type AWSService.
	Service string

	// The session, for temporary credentials.
	SessionPolicies   []string // JSON documents
	SessionPolicyARNs []string
	SessionTags       map[string]string
	TransitiveTags    []string
	SourceIdentity    string
	SessionIssued     time.Time // zero for long-term credentials
	MFA               bool
	FromConsole       bool

	// Tags of the user or role, for aws:PrincipalTag.
	Tags map[string]string
}

// UserIdentity is the principal as CloudTrail records it.
func (p *Principal) UserIdentity() audit.UserIdentity {
	u := audit.UserIdentity{Type: string(p.Type), PrincipalID: p.ID, ARN: p.ARN, AccountID: p.Account, AccessKeyID: p.AccessKeyID, UserName: p.UserName}
	if p.Type == AWSService {
		return audit.UserIdentity{Type: string(AWSService), InvokedBy: p.Service + ".amazonaws.com"}
	}
	if !p.SessionIssued.IsZero() {
		mfa := "false"
		if p.MFA {
			mfa = "true"
		}
		u.SessionContext = &audit.SessionContext{Attributes: map[string]string{
			"creationDate": p.SessionIssued.UTC().Format(time.RFC3339), "mfaAuthenticated": mfa}}
		if p.Type == AssumedRole {
			id := p.ID
			for i := range id {
				if id[i] == ':' {
					id = id[:i]
					break
				}
			}
			u.SessionContext.SessionIssuer = &audit.SessionIssuer{Type: "Role", PrincipalID: id, ARN: p.RoleARN, AccountID: p.Account, UserName: p.RoleName}
		}
		if p.Type == FederatedUser {
			u.SessionContext.SessionIssuer = &audit.SessionIssuer{Type: "IAMUser", PrincipalID: p.IssuerID, ARN: p.IssuerARN, AccountID: p.Account, UserName: p.IssuerName}
			if p.IssuerID == p.Account {
				u.SessionContext.SessionIssuer.Type = "Root"
			}
		}
	}
	return u
}
