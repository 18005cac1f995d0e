package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/iam"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/sts"
)

// rootCredentials of the first account.
type rootCredentials struct{ account, accessKeyID, secret string }

func (c *Config) credentialsFile() string { return filepath.Join(c.DataDir, "root-credentials") }

// account makes sure that the first account and its root access key exist: as
// configured, else as kept, else new.
func (a *App) account(ctx context.Context) error {
	kept, err := readCredentials(a.cfg.credentialsFile())
	if err != nil {
		return err
	}
	if kept.account != "" && kept.accessKeyID == "" && a.cfg.RootAccessKeyID == "" {
		a.root = kept // restored from a backup: its access keys are those of before
		return nil
	}
	r := rootCredentials{a.cfg.AccountID, a.cfg.RootAccessKeyID, a.cfg.RootSecretAccessKey}
	if r.account == "" {
		r.account = kept.account
	}
	if r.account == "" {
		// A second server of a cluster: the account is there already.
		if existing := a.iam.Accounts(a.store.Snapshot()); len(existing) > 0 {
			r.account = existing[0]
		} else {
			r.account = ids.Account()
		}
	}
	if r.accessKeyID == "" && kept.account == r.account {
		r.accessKeyID, r.secret = kept.accessKeyID, kept.secret
	}
	if r.accessKeyID == "" {
		r.accessKeyID, r.secret, a.fresh = ids.IAM("AKIA", 16), ids.SecretAccessKey(), true
	}
	if r != kept {
		text := fmt.Sprintf("# Root credentials of account %s. Whoever reads this file owns the account.\n[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n# account = %s\n",
			r.account, r.accessKeyID, r.secret, r.account)
		if err := durable.WriteFile(a.cfg.credentialsFile(), []byte(text), 0o600); err != nil {
			return err
		}
	}
	a.root = r
	return a.iam.Bootstrap(ctx, r.account, r.accessKeyID, r.secret)
}

// readCredentials reads what account wrote; all empty when there is no file.
func readCredentials(path string) (r rootCredentials, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read the root credentials: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), "=")
		switch strings.TrimSpace(k) {
		case "aws_access_key_id":
			r.accessKeyID = strings.TrimSpace(v)
		case "aws_secret_access_key":
			r.secret = strings.TrimSpace(v)
		case "account":
			r.account = strings.TrimSpace(v)
		}
	}
	return r, nil
}

// identities asks IAM for long-term keys and STS for temporary ones.
type identities struct {
	iam *iam.Service
	sts *sts.Service
	// revoked tells whether a temporary key's console session was signed out.
	revoked func(accessKeyID string) bool
}

func (i *identities) Credential(ctx context.Context, accessKeyID, token string, now time.Time) (*api.Credential, error) {
	if strings.HasPrefix(accessKeyID, "ASIA") {
		if i.revoked(accessKeyID) {
			return nil, api.ErrExpiredToken
		}
		return i.sts.Credential(ctx, accessKeyID, token, now)
	}
	return i.iam.Credential(ctx, accessKeyID, token, now)
}

func (i *identities) Policies(tx *store.Tx, p *api.Principal) (api.Policies, error) {
	return i.iam.Policies(tx, p)
}

// CreateAccount makes a further account, with a root access key of its own that
// is shown this once. id "" draws one.
func (a *App) CreateAccount(ctx context.Context, id, alias string) (accountID, accessKeyID, secretAccessKey string, err error) {
	return a.iam.CreateAccount(ctx, id, alias)
}

// Used keeps the last-used dates of access keys and roles, and of services by
// users and roles.
func (i *identities) Used(p *api.Principal, service, region string, at time.Time) {
	if p.Type == api.AssumedRole {
		id, _, _ := strings.Cut(p.ID, ":")
		i.iam.RoleUsed(p.Account, id, service, region, at)
		i.iam.ServiceUsed(p.Account, id, service, region, at)
		return
	}
	if p.Type == api.IAMUser {
		i.iam.ServiceUsed(p.Account, p.ID, service, region, at)
	}
	if p.SessionIssued.IsZero() {
		i.iam.Used(p.Account, p.AccessKeyID, service, region, at)
	}
}

func shortHash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:6])
}
