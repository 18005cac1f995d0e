package api

import (
	"context"
	"errors"
	"time"

	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Errors of Identities.Credential. The gateway turns them into the error code
// each protocol documents.
var (
	ErrUnknownAccessKey = errors.New("the access key ID does not exist or is inactive")
	ErrInvalidToken     = errors.New("the security token is invalid")
	ErrExpiredToken     = errors.New("the security token has expired")
)

// Credential is what an access key ID stands for.
type Credential struct {
	SecretAccessKey *secret.Bytes // shared; do not wipe
	Principal       Principal
}

// Policies are the documents that apply to a principal through IAM.
type Policies struct {
	Identity []policy.Source
	Boundary *policy.Source
	// Session policies; Scoped tells that the session was made with some, so that
	// an empty list allows nothing.
	Session []policy.Source
	Scoped  bool
}

// Identities is what the gateway asks of IAM and STS.
type Identities interface {
	// Credential finds an access key. token is the session token, "" for
	// long-term keys. Temporary keys are checked for expiry against now.
	Credential(ctx context.Context, accessKeyID, token string, now time.Time) (*Credential, error)
	// Policies collects what applies to p. A principal that was deleted has none.
	Policies(tx *store.Tx, p *Principal) (Policies, error)
}
