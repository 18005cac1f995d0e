package iam

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	keyIDPattern   = regexp.MustCompile(`^[A-Za-z0-9_]{16,128}$`)
	aliasPattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9]|-[a-z0-9]){2,62}$`)
)

// Bootstrap makes sure that the account exists and that its root user has this
// access key with this secret. Another root access key that an earlier Bootstrap
// or CreateAccount made stays; a changed secret for the same ID replaces the old one.
func (s *Service) Bootstrap(ctx context.Context, accountID, rootAccessKeyID, rootSecret string) error {
	if !accountPattern.MatchString(accountID) {
		return fmt.Errorf("account ID %q: want 12 digits", accountID)
	}
	if !keyIDPattern.MatchString(rootAccessKeyID) || strings.HasPrefix(rootAccessKeyID, "ASIA") {
		return fmt.Errorf("root access key ID %q: want 16 to 128 letters, digits or _, not beginning with ASIA", rootAccessKeyID)
	}
	if len(rootSecret) < 16 {
		return errors.New("root secret access key: want at least 16 characters")
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		a := s.accounts.Edit(tx, accountID)
		if a == nil {
			a = &account{ID: accountID, Created: s.now(nil)}
		}
		tk := accountID + "/" + rootAccessKeyID
		if other, otherKey := s.findKey(tx, rootAccessKeyID); other != nil && (otherKey != tk || other.User != "") {
			return fmt.Errorf("access key ID %s is in use by another principal; choose another", rootAccessKeyID)
		}
		k := s.keys.Get(tx, tk)
		if k != nil && k.Active {
			have, err := s.open(tk, k)
			if err != nil {
				return err
			}
			want := secret.New([]byte(rootSecret))
			same := have.Equal(want)
			want.Wipe()
			if same {
				return nil
			}
		}
		if k == nil {
			a.AccessKeys = append(a.AccessKeys, rootAccessKeyID)
		}
		if err := s.accounts.Put(tx, accountID, a); err != nil {
			return err
		}
		return s.putKey(tx, &accessKey{Account: accountID, ID: rootAccessKeyID, UserID: accountID, Active: true, Created: s.now(nil)}, rootSecret)
	})
}

// putKey wraps the secret into k and stores it.
func (s *Service) putKey(tx *store.Tx, k *accessKey, secretAccessKey string) error {
	tk := k.Account + "/" + k.ID
	sec := secret.New([]byte(secretAccessKey))
	defer sec.Wipe()
	var err error
	if k.Wrapped, err = s.root.Wrap(secretPurpose, sec, []byte(tk)); err != nil {
		return fmt.Errorf("wrap the secret of access key %s: %w", k.ID, err)
	}
	return s.keys.Put(tx, tk, k)
}

// CreateAccount makes a further account with a root access key of its own. id ""
// draws one; alias may be "". An account that exists is an error.
func (s *Service) CreateAccount(ctx context.Context, id, alias string) (accountID, accessKeyID, secretAccessKey string, err error) {
	if id != "" && !accountPattern.MatchString(id) {
		return "", "", "", fmt.Errorf("account ID %q: want 12 digits", id)
	}
	if alias != "" && !aliasPattern.MatchString(alias) {
		return "", "", "", fmt.Errorf("account alias %q: want 3 to 63 lower-case letters, digits and single dashes", alias)
	}
	secretAccessKey = ids.SecretAccessKey()
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		accountID = id
		if accountID == "" {
			accountID = ids.Account()
		}
		accessKeyID = ids.AccessKey("AKIA", accountID)
		if s.accounts.Get(tx, accountID) != nil {
			return fmt.Errorf("account %s exists already", accountID)
		}
		if alias != "" {
			if s.aliases.Get(tx, alias) != nil {
				return fmt.Errorf("the account alias %s is taken", alias)
			}
			if err := s.aliases.Put(tx, alias, &aliasOf{accountID}); err != nil {
				return err
			}
		}
		a := &account{ID: accountID, Alias: alias, Created: s.now(nil), AccessKeys: []string{accessKeyID}}
		if err := s.accounts.Put(tx, accountID, a); err != nil {
			return err
		}
		return s.putKey(tx, &accessKey{Account: accountID, ID: accessKeyID, UserID: accountID, Active: true, Created: a.Created}, secretAccessKey)
	})
	if err != nil {
		return "", "", "", err
	}
	return accountID, accessKeyID, secretAccessKey, nil
}

// Accounts lists the account IDs of this installation.
func (s *Service) Accounts(tx *store.Tx) []string {
	var out []string
	s.accounts.Scan(tx, "", "", func(id string, _ *account) bool {
		out = append(out, id)
		return true
	})
	return out
}
