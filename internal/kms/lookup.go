package kms

import (
	"context"
	"errors"
	"strings"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/store"
)

// accepts says which forms of key reference an operation takes.
type accepts int

const (
	// byKey: key ID or key ARN, of the caller's account.
	byKey accepts = iota
	// byForeignKey: key ID or key ARN, of any account.
	byForeignKey
	// byAny: key ID, key ARN, alias name or alias ARN, of any account.
	byAny
)

// reference is a parsed KeyId parameter.
type reference struct {
	account, region string
	id              string // key ID or "alias/…"
}

func (r reference) alias() bool { return strings.HasPrefix(r.id, "alias/") }

func (r reference) arn() string {
	if r.alias() {
		return aliasARN(r.account, r.region, r.id)
	}
	return keyARN(r.account, r.region, r.id)
}

// isKeyID tells whether s is a UUID in lower case, or mrk- and 32 hexadecimal digits.
func isKeyID(s string) bool {
	if rest, ok := strings.CutPrefix(s, "mrk-"); ok {
		return len(rest) == 32 && isHex(rest)
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	return isHex(s[:8]) && isHex(s[9:13]) && isHex(s[14:18]) && isHex(s[19:23]) && isHex(s[24:])
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// parseRef reads a key reference. Source: KMS developer guide, "Key identifiers (KeyId)".
func parseRef(c *api.Call, s string, how accepts) (reference, error) {
	if !strings.HasPrefix(s, "arn:") {
		r := reference{account: c.Account, region: c.Region, id: s}
		if r.alias() {
			if how != byAny && !serviceAlias(s) {
				return r, errNotFound("Invalid keyId '%s'", s)
			}
			return r, nil
		}
		if !isKeyID(s) {
			return r, errNotFound("Invalid keyId '%s'", s)
		}
		return r, nil
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[1] != "aws" || parts[2] != "kms" || parts[3] == "" || !isAccount(parts[4]) {
		return reference{}, errInvalidARN("Invalid arn " + s)
	}
	r := reference{account: parts[4], region: parts[3], id: parts[5]}
	if id, ok := strings.CutPrefix(parts[5], "key/"); ok {
		r.id = id
		if !isKeyID(id) {
			return r, errInvalidARN("Invalid arn " + s)
		}
	} else if !r.alias() || len(r.id) == len("alias/") {
		return r, errInvalidARN("Invalid arn " + s)
	} else if how != byAny {
		return r, errInvalidARN("Invalid arn " + s + ": this operation takes a key ID or key ARN, not an alias")
	}
	if r.region != c.Region {
		// AWS's words, which name the Region of the ARN.
		return r, errNotFound("Invalid arn %s", r.region)
	}
	return r, nil
}

// found is a key that a call referred to.
type found struct {
	*Key
	// alias is the name the call used, "" when it used the key's ID or ARN.
	alias string
}

// errForeign: the reference names another account's key, and there is none.
var errForeign = errors.New("kms: no such key in the other account")

// find looks up the key a call refers to. AWS managed keys are made when their
// alias is used for the first time. A missing key of another account is errForeign.
func (s *Service) find(ctx context.Context, tx *store.Tx, c *api.Call, id *string, how accepts) (found, error) {
	r, err := parseRef(c, str(id), how)
	if err != nil {
		return found{}, err
	}
	f, err := s.findRef(ctx, tx, c, r)
	if errors.Is(err, errForeign) {
		return found{}, errForeignKey(c)
	}
	if err == nil && f.Account != c.Account && how == byKey {
		return found{}, errForeignKey(c)
	}
	return f, err
}

func (s *Service) findRef(ctx context.Context, tx *store.Tx, c *api.Call, r reference) (found, error) {
	foreign := r.account != c.Account
	if !r.alias() {
		k := s.keys.Get(tx, path(r.account, r.region, r.id))
		if k == nil {
			if foreign {
				return found{}, errForeign
			}
			return found{}, errNoKey(r.arn())
		}
		return found{Key: k}, nil
	}
	a := s.aliases.Get(tx, path(r.account, r.region, r.id))
	if a == nil {
		if foreign {
			return found{}, errForeign
		}
		if service, ok := strings.CutPrefix(r.id, awsAlias); ok && managed[service] != "" {
			k, err := s.ensureManaged(ctx, tx, r.account, r.region, service)
			if err != nil {
				return found{}, err
			}
			return found{Key: k, alias: r.id}, nil
		}
		return found{}, errNoAlias(r.arn())
	}
	k := s.keys.Get(tx, path(r.account, r.region, a.Target))
	if k == nil {
		if foreign {
			return found{}, errForeign
		}
		return found{}, errNoKey(keyARN(r.account, r.region, a.Target))
	}
	return found{Key: k, alias: r.id}, nil
}

// accountOf is the account in an ARN.
func accountOf(arn string) (account string, ok bool) {
	for range 4 { // arn, partition, service, Region
		_, arn, _ = strings.Cut(arn, ":")
	}
	account, _, ok = strings.Cut(arn, ":")
	return account, ok
}

// note puts the key on the call's record.
func note(c *api.Call, arns ...string) {
	if c.Record == nil {
		return
	}
next:
	for _, arn := range arns {
		for _, r := range c.Record.Resources {
			if r.ARN == arn {
				continue next
			}
		}
		account := c.Account
		if a, ok := accountOf(arn); ok {
			account = a
		}
		kind := "AWS::KMS::Key"
		if strings.Contains(arn, ":alias/") {
			kind = "AWS::KMS::Alias"
		}
		c.Record.Resources = append(c.Record.Resources, audit.Resource{AccountID: account, Type: kind, ARN: arn})
	}
}
