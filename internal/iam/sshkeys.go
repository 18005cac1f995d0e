package iam

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/crypto/ssh"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) sshKeyOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "UploadSSHPublicKey", s.uploadSSHPublicKey, onUser(s, func(in *iam.UploadSSHPublicKeyInput) *string { return in.UserName })),
		api.NewView("iam", "GetSSHPublicKey", s.getSSHPublicKey, onUser(s, func(in *iam.GetSSHPublicKeyInput) *string { return in.UserName })),
		api.NewView("iam", "ListSSHPublicKeys", s.listSSHPublicKeys, onUser(s, func(in *iam.ListSSHPublicKeysInput) *string { return in.UserName })),
		api.NewUpdate("iam", "UpdateSSHPublicKey", s.updateSSHPublicKey, onUser(s, func(in *iam.UpdateSSHPublicKeyInput) *string { return in.UserName })),
		api.NewUpdate("iam", "DeleteSSHPublicKey", s.deleteSSHPublicKey, onUser(s, func(in *iam.DeleteSSHPublicKeyInput) *string { return in.UserName })),
	}
}

// minRSA is the least length of a key in bits. Source: UploadSSHPublicKey.
const minRSA = 2048

var errSSHKey = errors.New("not an RSA public key of at least 2048 bits")

// parseSSHKey reads an RSA public key in the form of an authorized_keys line
// ("ssh-rsa AAAA…") or as PEM (PKIX or PKCS #1).
func parseSSHKey(body string) (ssh.PublicKey, error) {
	var key any
	if block, rest := pem.Decode([]byte(body)); block != nil {
		if strings.TrimSpace(string(rest)) != "" {
			return nil, errSSHKey
		}
		var err error
		if key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			if key, err = x509.ParsePKCS1PublicKey(block.Bytes); err != nil {
				return nil, errSSHKey
			}
		}
	} else {
		k, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(body))
		if err != nil || len(options) > 0 || strings.TrimSpace(string(rest)) != "" {
			return nil, errSSHKey
		}
		c, ok := k.(ssh.CryptoPublicKey)
		if !ok {
			return nil, errSSHKey
		}
		key = c.CryptoPublicKey()
	}
	r, ok := key.(*rsa.PublicKey)
	if !ok || r.N.Sign() <= 0 || r.N.BitLen() < minRSA {
		return nil, errSSHKey
	}
	return ssh.NewPublicKey(r)
}

// sshKeyBody is the key in that encoding: as it was given where it was given so.
func sshKeyBody(k *sshKey, enc types.EncodingType) (string, error) {
	isPEM := strings.HasPrefix(strings.TrimSpace(k.Body), "-----BEGIN")
	if isPEM == (enc == types.EncodingTypePem) {
		return k.Body, nil
	}
	pub, err := parseSSHKey(k.Body)
	if err != nil {
		return "", err
	}
	if enc == types.EncodingTypeSsh {
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))), nil
	}
	der, err := x509.MarshalPKIXPublicKey(pub.(ssh.CryptoPublicKey).CryptoPublicKey())
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

func statusOf(inactive bool) types.StatusType {
	if inactive {
		return types.StatusTypeInactive
	}
	return types.StatusTypeActive
}

// inactive reads the status a credential is to have.
func inactive(st types.StatusType) (bool, error) {
	switch st {
	case types.StatusTypeActive:
		return false, nil
	case types.StatusTypeInactive:
		return true, nil
	}
	return false, validation("1 validation error detected: Value at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]")
}

func showSSHKey(u *user, k *sshKey, body string) *types.SSHPublicKey {
	return &types.SSHPublicKey{UserName: aws.String(u.Name), SSHPublicKeyId: aws.String(k.ID), Fingerprint: aws.String(k.Fingerprint), SSHPublicKeyBody: aws.String(body),
		Status: statusOf(k.Inactive), UploadDate: aws.Time(k.Uploaded)}
}

func (s *Service) uploadSSHPublicKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UploadSSHPublicKeyInput) (*iam.UploadSSHPublicKeyOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	body := strings.TrimSpace(aws.ToString(in.SSHPublicKeyBody))
	pub, err := parseSSHKey(body)
	if err != nil {
		return nil, &types.InvalidPublicKeyException{Message: aws.String("The public key is malformed or otherwise invalid: it must be an RSA key of at least 2048 bits, in ssh-rsa or PEM format.")}
	}
	k := sshKey{ID: ids.IAM("APKA", 17), Body: body, Fingerprint: ssh.FingerprintLegacyMD5(pub), Uploaded: s.now(c)}
	if slices.ContainsFunc(u.SSHKeys, func(o sshKey) bool { return o.Fingerprint == k.Fingerprint }) {
		return nil, &types.DuplicateSSHPublicKeyException{Message: aws.String("The SSH public key is already associated with the user " + u.Name + ".")}
	}
	if len(u.SSHKeys) >= maxSSHKeys {
		return nil, limitExceeded("Cannot exceed quota for SSHPublicKeysPerUser: %d", maxSSHKeys)
	}
	u.SSHKeys = append(u.SSHKeys, k)
	if err := s.putUser(tx, u); err != nil {
		return nil, err
	}
	return &iam.UploadSSHPublicKeyOutput{SSHPublicKey: showSSHKey(u, &k, body)}, nil
}

// sshKeyOf is the place of a key among those of a user.
func sshKeyOf(u *user, id *string) (int, error) {
	i := slices.IndexFunc(u.SSHKeys, func(k sshKey) bool { return k.ID == aws.ToString(id) })
	if i < 0 {
		return 0, noSuchEntity("The Public Key with id %s cannot be found.", aws.ToString(id))
	}
	return i, nil
}

func (s *Service) getSSHPublicKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetSSHPublicKeyInput) (*iam.GetSSHPublicKeyOutput, error) {
	u, err := s.lookUser(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	i, err := sshKeyOf(u, in.SSHPublicKeyId)
	if err != nil {
		return nil, err
	}
	body, err := sshKeyBody(&u.SSHKeys[i], in.Encoding)
	if err != nil {
		return nil, err
	}
	return &iam.GetSSHPublicKeyOutput{SSHPublicKey: showSSHKey(u, &u.SSHKeys[i], body)}, nil
}

func (s *Service) listSSHPublicKeys(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListSSHPublicKeysInput) (*iam.ListSSHPublicKeysOutput, error) {
	p, err := newPage("ListSSHPublicKeys", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &iam.ListSSHPublicKeysOutput{SSHPublicKeys: []types.SSHPublicKeyMetadata{}}
	u, err := s.lookUser(tx, c, in.UserName)
	if err != nil || u == nil {
		return out, err
	}
	sorted := slices.SortedFunc(slices.Values(u.SSHKeys), func(a, b sshKey) int { return strings.Compare(a.ID, b.ID) })
	for _, k := range slicePage(sorted, p, func(k sshKey) string { return k.ID }) {
		out.SSHPublicKeys = append(out.SSHPublicKeys, types.SSHPublicKeyMetadata{UserName: aws.String(u.Name), SSHPublicKeyId: aws.String(k.ID), Status: statusOf(k.Inactive), UploadDate: aws.Time(k.Uploaded)})
	}
	out.IsTruncated, out.Marker = p.more, p.marker
	return out, nil
}

func (s *Service) updateSSHPublicKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateSSHPublicKeyInput) (*iam.UpdateSSHPublicKeyOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	i, err := sshKeyOf(u, in.SSHPublicKeyId)
	if err != nil {
		return nil, err
	}
	if u.SSHKeys[i].Inactive, err = inactive(in.Status); err != nil {
		return nil, err
	}
	return &iam.UpdateSSHPublicKeyOutput{}, s.putUser(tx, u)
}

func (s *Service) deleteSSHPublicKey(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteSSHPublicKeyInput) (*iam.DeleteSSHPublicKeyOutput, error) {
	u, err := s.editUser(tx, c.Account, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	i, err := sshKeyOf(u, in.SSHPublicKeyId)
	if err != nil {
		return nil, err
	}
	u.SSHKeys = slices.Delete(u.SSHKeys, i, i+1)
	return &iam.DeleteSSHPublicKeyOutput{}, s.putUser(tx, u)
}
