package kms

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Offsets of the grant token; see the package doc.
const (
	tokenVersion = 1
	tokenGrant   = 26
	tokenRandom  = 58
	tokenMAC     = 74
	tokenSize    = 90
)

var errToken = errors.New("kms: grant token is not valid")

// newToken makes a token for a grant on a key.
func newToken(account, keyID string, g *Grant) (string, error) {
	b := make([]byte, tokenMAC, tokenSize)
	b[0] = tokenVersion
	if err := packKey(b[1:tokenGrant], account, keyID); err != nil {
		return "", err
	}
	copy(b[tokenGrant:tokenRandom], g.packed())
	_, _ = rand.Read(b[tokenRandom:])
	return base64.StdEncoding.EncodeToString(append(b, tokenTag(b, g.Seed[:])...)), nil
}

func tokenTag(b, seed []byte) []byte {
	h := hmac.New(sha256.New, seed)
	h.Write(b)
	return h.Sum(nil)[:tokenSize-tokenMAC]
}

// parseToken reads account, key ID and grant ID; it vouches for the form only.
func parseToken(token string) (account, keyID, grantID string, raw []byte, err error) {
	raw, err = base64.StdEncoding.DecodeString(token)
	if err != nil || len(raw) != tokenSize || raw[0] != tokenVersion || raw[1]&^blobFlagMRK != 0 {
		return "", "", "", nil, errToken
	}
	return unpackAccount(raw[2:10]), unpackKeyID(raw[1], raw[10:tokenGrant]), hex.EncodeToString(raw[tokenGrant:tokenRandom]), raw, nil
}

// tokenGrant finds the grant a token stands for in the call's Region.
func (s *Service) tokenGrant(tx *store.Tx, c *api.Call, token string) (*Key, *Grant, error) {
	account, keyID, grantID, raw, err := parseToken(token)
	if err != nil {
		return nil, nil, errGrantToken()
	}
	k := s.keys.Get(tx, path(account, c.Region, keyID))
	if k == nil {
		return nil, nil, errGrantToken()
	}
	g := s.grants.Get(tx, grantKey(k.path(), grantID))
	if g == nil || !hmac.Equal(tokenTag(raw[:tokenMAC], g.Seed[:]), raw[tokenMAC:]) {
		return nil, nil, errGrantToken()
	}
	return k, g, nil
}

func errGrantToken() error {
	return &types.InvalidGrantTokenException{Message: ptr("The grant token is not valid: it was not returned by CreateGrant in this Region, or its grant has been retired or revoked.")}
}

// checkTokens refuses a call that brings a token that is none. Grants are in
// force at once, so a valid token changes nothing.
func (s *Service) checkTokens(tx *store.Tx, c *api.Call) error {
	for _, t := range c.GrantTokens {
		if _, _, err := s.tokenGrant(tx, c, t); err != nil {
			return err
		}
	}
	return nil
}
