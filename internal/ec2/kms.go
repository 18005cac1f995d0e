package ec2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	// dataKeyBytes is what EBS asks KMS for: two AES-256 keys' worth.
	dataKeyBytes = 64
	defaultAlias = "alias/aws/ebs"

	contextVolume  = "aws:ebs:id"
	contextDesktop = "aws:workspaces:sid-directoryid"

	rootPurpose = "ec2/volume-key"
)

// grantOperations are what EBS may do with the key under its grant.
var grantOperations = []kmstypes.GrantOperation{kmstypes.GrantOperationGenerateDataKeyWithoutPlaintext,
	kmstypes.GrantOperationDecrypt, kmstypes.GrantOperationDescribeKey, kmstypes.GrantOperationRetireGrant}

// describeKey finds the KMS key that the caller names in any of the four forms
// (key ID, alias name, key ARN, alias ARN), with the caller's own permissions, and
// refuses one that cannot seal volumes. The AWS managed key alias/aws/ebs is made
// by KMS when it is first named.
func (s *Service) describeKey(ctx context.Context, c *api.Call, named string) (arn string, managed bool, err error) {
	if parts := strings.SplitN(named, ":", 6); len(parts) == 6 && parts[0] == "arn" {
		if parts[2] != "kms" {
			return "", false, fail("InvalidParameterValue", "The KMS key ID %s is malformed: it is an ARN of service %q. Give a key ID, key ARN, alias name or alias ARN.", named, parts[2])
		}
		if parts[3] != c.Region {
			return "", false, fail("InvalidKMSKey.NotFound", "The KMS key %s is in region %s; a volume in %s needs a key of that region.", named, parts[3], c.Region)
		}
	}
	out, err := api.Do[kms.DescribeKeyOutput](ctx, s.cfg.Caller, c.Forward("ec2"), "kms", "DescribeKey", &kms.DescribeKeyInput{KeyId: aws.String(named), GrantTokens: c.GrantTokens})
	if err != nil {
		return "", false, keyError(named, err)
	}
	m := out.KeyMetadata
	arn = aws.ToString(m.Arn)
	switch {
	case m.KeySpec != kmstypes.KeySpecSymmetricDefault || m.KeyUsage != kmstypes.KeyUsageTypeEncryptDecrypt:
		return "", false, fail("InvalidKMSKey.InvalidUsage", "The KMS key %s cannot encrypt volumes: its spec is %s and its usage %s (InvalidKeyUsageException). EBS needs a symmetric encryption key (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT).", arn, m.KeySpec, m.KeyUsage)
	case m.KeyState != kmstypes.KeyStateEnabled:
		exception := "KMSInvalidStateException"
		if m.KeyState == kmstypes.KeyStateDisabled {
			exception = "DisabledException"
		}
		return "", false, fail("InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state: %s is %s (%s). Enable the key or choose another.", arn, m.KeyState, exception)
	}
	return arn, m.KeyManager == kmstypes.KeyManagerTypeAws, nil
}

// keyError says in EC2's terms why KMS refused.
func keyError(named string, err error) error {
	e, ok := serviceError(err)
	if !ok {
		return fmt.Errorf("ask KMS about %s: %w", named, err)
	}
	code := e.ErrorCode()
	switch code {
	case "NotFoundException":
		return fail("InvalidKMSKey.NotFound", "The specified KMS key could not be found: %s (%s: %s)", named, code, e.ErrorMessage())
	case "DisabledException", "KMSInvalidStateException", "KeyUnavailableException", "DependencyTimeoutException":
		return fail("InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state: %s (%s: %s)", named, code, e.ErrorMessage())
	case "InvalidKeyUsageException", "UnsupportedOperationException", "IncorrectKeyException":
		return fail("InvalidKMSKey.InvalidUsage", "The KMS key %s cannot encrypt volumes (%s: %s)", named, code, e.ErrorMessage())
	case "AccessDeniedException", "AccessDenied":
		return fail("UnauthorizedOperation", "You are not authorized to perform this operation with the KMS key %s (%s: %s)", named, code, e.ErrorMessage())
	case "InvalidArnException", "ValidationException", "ValidationError":
		return fail("InvalidParameterValue", "The KMS key ID %s is not valid (%s: %s)", named, code, e.ErrorMessage())
	case "InvalidCiphertextException":
		return fail("InvalidKMSKey.InvalidState", "KMS does not open the volume's data key with its encryption context (%s: %s)", code, e.ErrorMessage())
	case "LimitExceededException":
		return fail("ResourceLimitExceeded", "The KMS key %s takes no further grant (%s: %s)", named, code, e.ErrorMessage())
	}
	return fail("InvalidKMSKey.InvalidState", "KMS refused the use of %s (%s: %s)", named, code, e.ErrorMessage())
}

// makeKey has a data key made for a volume or snapshot and returns how it is kept.
// note is called with what must be recorded before the next step is taken: the
// grant's name before it is asked for, its ID once it is known.
func (s *Service) makeKey(ctx context.Context, c *api.Call, arn string, k keyState, note func(keyState) error) (keyState, error) {
	k.Bound = arn
	if !k.Encrypted {
		dek := secret.Random(dataKeyBytes)
		defer dek.Wipe()
		wrapped, err := s.cfg.Root.Wrap(rootPurpose, dek, []byte(arn))
		if err != nil {
			return k, fmt.Errorf("wrap the data key of %s: %w", arn, err)
		}
		k.Wrapped = wrapped
		return k, nil
	}
	id := arn[strings.LastIndexByte(arn, '/')+1:]
	p := c.Principal
	k.GrantName, k.Principal = id, &p
	if err := note(k); err != nil {
		return k, err
	}
	g, err := s.createGrant(ctx, c, k)
	if err != nil {
		if e, ok := serviceError(err); ok && strings.HasPrefix(e.ErrorCode(), "AccessDenied") {
			return k, fail("UnauthorizedOperation", "You are not authorized to perform this operation: creating an encrypted volume needs kms:CreateGrant on the KMS key %s (%s: %s)", k.KeyARN, e.ErrorCode(), e.ErrorMessage())
		}
		return k, keyError(k.KeyARN, err)
	}
	k.GrantID = aws.ToString(g.GrantId)
	if err := note(k); err != nil {
		return k, err
	}
	call := c.AsService("ec2")
	call.SourceARN = arn
	d, err := api.Do[kms.GenerateDataKeyWithoutPlaintextOutput](ctx, s.cfg.Caller, call, "kms", "GenerateDataKeyWithoutPlaintext", &kms.GenerateDataKeyWithoutPlaintextInput{
		KeyId: aws.String(k.KeyARN), NumberOfBytes: aws.Int32(dataKeyBytes), EncryptionContext: maps.Clone(k.Context), GrantTokens: tokens(g.GrantToken)})
	if err != nil {
		return k, keyError(k.KeyARN, err)
	}
	k.Wrapped = d.CiphertextBlob
	return k, nil
}

// Wrapped are the values that the service keeps under the root key: the data keys of
// what no KMS key encrypts.
func (s *Service) Wrapped() []keyring.Holder {
	field := func(k *keyState) []keyring.Field {
		if k.Encrypted {
			return nil
		}
		return []keyring.Field{{Purpose: rootPurpose, AAD: []byte(k.Bound), Value: &k.Wrapped}}
	}
	return []keyring.Holder{
		keyring.Holds(s.cfg.Store, s.volumes, func(_ string, v *volume) []keyring.Field {
			fields := field(&v.Key)
			if v.Source != nil {
				fields = append(fields, field(&v.Source.Key)...)
			}
			return fields
		}),
		keyring.Holds(s.cfg.Store, s.snapshots, func(_ string, n *snapshot) []keyring.Field { return field(&n.Key) }),
	}
}

// createGrant asks for EBS's grant with c's own permissions. The same name and
// constraints give the same grant, however often it is asked for.
func (s *Service) createGrant(ctx context.Context, c *api.Call, k keyState) (*kms.CreateGrantOutput, error) {
	call := c.Forward("ec2")
	call.SourceARN = k.Bound
	host := api.Host("ec2", c.Region)
	return api.Do[kms.CreateGrantOutput](ctx, s.cfg.Caller, call, "kms", "CreateGrant", &kms.CreateGrantInput{
		KeyId: aws.String(k.KeyARN), Name: aws.String(k.GrantName), GranteePrincipal: aws.String(host), RetiringPrincipal: aws.String(host),
		Operations: grantOperations, Constraints: &kmstypes.GrantConstraints{EncryptionContextSubset: maps.Clone(k.Context)}, GrantTokens: c.GrantTokens})
}

func tokens(t *string) []string {
	if aws.ToString(t) == "" {
		return nil
	}
	return []string{*t}
}

// openKey yields the plaintext data key, which the caller wipes. For an encrypted
// volume KMS decrypts it under EBS's grant, and the call is on the record.
func (s *Service) openKey(ctx context.Context, c *api.Call, k keyState) (*secret.Bytes, error) {
	arn := k.Bound
	if len(k.Wrapped) == 0 {
		return nil, fail("IncorrectState", "%s has no data key any more", arn)
	}
	if !k.Encrypted {
		dek, err := s.cfg.Root.Unwrap(rootPurpose, k.Wrapped, []byte(arn))
		if err != nil {
			return nil, fmt.Errorf("unwrap the data key of %s: %w", arn, err)
		}
		return dek, nil
	}
	call := *c
	call.SourceARN = arn
	out, err := api.Do[kms.DecryptOutput](ctx, s.cfg.Caller, &call, "kms", "Decrypt", &kms.DecryptInput{
		CiphertextBlob: k.Wrapped, EncryptionContext: maps.Clone(k.Context)})
	if err != nil {
		if e, ok := serviceError(err); ok && strings.HasPrefix(e.ErrorCode(), "AccessDenied") {
			return nil, fail("UnauthorizedOperation", "EBS may no longer use the KMS key %s for this volume: its grant was retired or revoked, or a policy denies it (%s: %s)", k.KeyARN, e.ErrorCode(), e.ErrorMessage())
		}
		return nil, keyError(k.KeyARN, err)
	}
	dek := secret.New(out.Plaintext)
	if dek.Len() != dataKeyBytes {
		n := dek.Len()
		dek.Wipe()
		return nil, fmt.Errorf("KMS decrypted the data key of %s to %d bytes, want %d", arn, n, dataKeyBytes)
	}
	return dek, nil
}

// retire gives EBS's grant back. It finds a grant whose ID was not noted by its name.
// A grant that is gone already is fine.
func (s *Service) retire(ctx context.Context, account, region string, k keyState) error {
	if k.GrantName == "" {
		return nil
	}
	c := s.serviceCall(account, region)
	grant := k.GrantID
	if grant == "" {
		found, err := s.findGrant(ctx, c, k)
		if err != nil || found == "" {
			return err
		}
		grant = found
	}
	_, err := api.Do[kms.RetireGrantOutput](ctx, s.cfg.Caller, c, "kms", "RetireGrant", &kms.RetireGrantInput{KeyId: aws.String(k.KeyARN), GrantId: aws.String(grant)})
	if err != nil && !gone(err) {
		return fmt.Errorf("retire grant %s on %s: %w", grant, k.KeyARN, err)
	}
	return nil
}

// gone tells that KMS knows neither the grant nor the key any more.
func gone(err error) bool {
	e, ok := serviceError(err)
	if !ok {
		return false
	}
	switch e.ErrorCode() {
	case "NotFoundException", "InvalidGrantIdException", "InvalidGrantTokenException":
		return true
	}
	return false
}

// findGrant finds a grant that was asked for and whose ID was not noted, "" when it
// was never made. It looks among the grants that EBS may retire; where a service may not list
// them, it asks for the same grant again on behalf of whom it was first asked for, which KMS
// answers with the grant there is.
func (s *Service) findGrant(ctx context.Context, c *api.Call, k keyState) (string, error) {
	var marker *string
	for {
		out, err := api.Do[kms.ListRetirableGrantsOutput](ctx, s.cfg.Caller, c, "kms", "ListRetirableGrants", &kms.ListRetirableGrantsInput{
			RetiringPrincipal: aws.String(api.Host("ec2", c.Region)), Marker: marker})
		if e, ok := serviceError(err); ok && strings.HasPrefix(e.ErrorCode(), "AccessDenied") {
			break
		}
		if err != nil {
			return "", fmt.Errorf("look for grant %q among EBS's grants: %w", k.GrantName, err)
		}
		for i := range out.Grants {
			if g := &out.Grants[i]; aws.ToString(g.Name) == k.GrantName && aws.ToString(g.KeyId) == k.KeyARN {
				return aws.ToString(g.GrantId), nil
			}
		}
		if !out.Truncated {
			return "", nil
		}
		marker = out.NextMarker
	}
	if k.Principal == nil {
		return "", nil
	}
	asker := *c
	asker.Principal, asker.Via = *k.Principal, nil
	if k.Principal.Type == api.AWSService {
		asker.Via = []string{k.Principal.Service}
	}
	g, err := s.createGrant(ctx, &asker, k)
	if gone(err) {
		return "", nil // the key is gone, and its grants with it
	}
	if err != nil {
		return "", fmt.Errorf("find grant %q by asking for it again: %w", k.GrantName, err)
	}
	return aws.ToString(g.GrantId), nil
}

// serviceCall is a call that EBS makes without a request behind it.
func (s *Service) serviceCall(account, region string) *api.Call {
	return api.ServiceCall("ec2", account, region, s.cfg.Clock.Now())
}

// note returns a function for makeKey that keeps the key state in the volume's record.
func (s *Service) note(ctx context.Context, volumeKey string) func(keyState) error {
	return func(k keyState) error {
		return s.editVolume(ctx, volumeKey, func(v *volume) error { v.Key = k; return nil })
	}
}

var errGone = errors.New("ec2: the record is gone")

// editVolume changes a volume's record in a transaction of its own.
func (s *Service) editVolume(ctx context.Context, volumeKey string, f func(v *volume) error) error {
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		v := s.volumes.Edit(tx, volumeKey)
		if v == nil {
			return errGone
		}
		if err := f(v); err != nil {
			return err
		}
		return s.volumes.Put(tx, volumeKey, v)
	})
}
