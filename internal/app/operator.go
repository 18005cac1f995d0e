package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire"
)

// The operations of the operator: they concern the whole installation, so only
// principals of its first account may be allowed them.

// RootKey describes a root key.
type RootKey struct {
	Id         *string
	Generation *int64
	Seal       *string
	Created    *string
	Current    *bool
}

// DescribeRootKeyInput is empty.
type DescribeRootKeyInput struct{}

// DescribeRootKeyOutput lists the root keys; more than one: a rotation is under way.
type DescribeRootKeyOutput struct{ Keys []RootKey }

// RotateRootKeyInput says how the new root key is sealed.
type RotateRootKeyInput struct {
	// Seal: file, passphrase or pkcs11; nil: as the present one, with its passphrase or token key.
	Seal *string
	// Secret is the new passphrase, or the PIN of the token where the server has none.
	Secret *string
}

// CreateBackupInput says what goes into a backup.
type CreateBackupInput struct {
	// WithoutRootKeys leaves the sealed root keys out.
	WithoutRootKeys *bool
}

// CreateBackupOutput is a backup that lies on the server.
type CreateBackupOutput struct {
	Name, Path       *string
	Bytes            *int64
	RootKeysIncluded *bool
}

// GetBackupPartInput asks for up to 4 MiB.
type GetBackupPartInput struct {
	Name   *string
	Offset *int64
}

// GetBackupPartOutput is a part, and the size of the whole.
type GetBackupPartOutput struct {
	Data  []byte
	Bytes *int64
}

// DeleteBackupInput names a backup on the server.
type DeleteBackupInput struct{ Name *string }

// DeleteBackupOutput is empty.
type DeleteBackupOutput struct{}

const backupPart = 4 << 20

func (a *App) operations() []api.Operation {
	return []api.Operation{
		api.NewView("sealdesk", "DescribeRootKey", a.describeRootKey),
		api.NewSteps("sealdesk", "RotateRootKey", a.rotateRootKey, api.Sensitive("Secret")),
		api.NewSteps("sealdesk", "CreateBackup", a.createBackup),
		api.NewSteps("sealdesk", "GetBackupPart", a.getBackupPart, api.ReadOnly()),
		api.NewSteps("sealdesk", "DeleteBackup", a.deleteBackup),
	}
}

// operator refuses principals of other accounts, whose own policies say nothing about
// the installation.
func (a *App) operator(c *api.Call) error {
	if c.Principal.Account != a.root.account {
		return wire.Denied("Only principals of account " + a.root.account + ", the installation's first, may do this.")
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "ValidationException", Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

func (a *App) describeRootKey(_ context.Context, _ *store.Tx, c *api.Call, _ *DescribeRootKeyInput) (*DescribeRootKeyOutput, error) {
	if err := a.operator(c); err != nil {
		return nil, err
	}
	return a.rootKeys(), nil
}

func (a *App) rootKeys() *DescribeRootKeyOutput {
	out := &DescribeRootKeyOutput{}
	for _, k := range a.ring.Status() {
		out.Keys = append(out.Keys, RootKey{&k.ID, aws.Int64(int64(k.Generation)), &k.Seal, &k.Created, &k.Current})
	}
	return out
}

func (a *App) rotateRootKey(_ context.Context, c *api.Call, in *RotateRootKeyInput) (*DescribeRootKeyOutput, error) {
	if err := a.operator(c); err != nil {
		return nil, err
	}
	var seal keyring.Seal
	if in.Seal != nil {
		var sec *secret.Bytes
		if in.Secret != nil {
			sec = secret.New([]byte(*in.Secret))
			defer sec.Wipe()
		}
		var err error
		if seal, err = a.ring.NewSeal(*in.Seal, sec); err != nil {
			return nil, invalid("The root key cannot be sealed so: %v", err)
		}
	} else if in.Secret != nil {
		return nil, invalid("A secret goes with a seal: give both.")
	}
	if err := a.ring.Rotate(seal); err != nil {
		if seal != nil {
			seal.Close()
		}
		return nil, invalid("The root key was not rotated: %v", err)
	}
	return a.rootKeys(), nil
}

// rootDestroyed puts the end of a rotation on the record.
func (a *App) rootDestroyed(ids []string) {
	if err := a.log.Append(context.Background(), a.event("DestroyRootKey", map[string]any{"rootKeyIds": ids, "currentRootKeyId": a.currentRoot().ID})); err != nil {
		a.cfg.Logger.Error("the end of the root key's rotation is not on the record", "err", err)
	}
}

func (a *App) backupPath(name string) string {
	return filepath.Join(a.cfg.DataDir, "backups", name+".backup")
}

func (a *App) createBackup(ctx context.Context, c *api.Call, in *CreateBackupInput) (*CreateBackupOutput, error) {
	if err := a.operator(c); err != nil {
		return nil, err
	}
	if !a.backing.TryLock() {
		return nil, invalid("A backup is under way.")
	}
	defer a.backing.Unlock()
	return a.backup(ctx, !aws.ToBool(in.WithoutRootKeys))
}

func (a *App) getBackupPart(_ context.Context, c *api.Call, in *GetBackupPartInput) (*GetBackupPartOutput, error) {
	if err := a.operator(c); err != nil {
		return nil, err
	}
	f, err := os.Open(a.backupPath(*in.Name)) // its pattern allows no separator
	if os.IsNotExist(err) {
		return nil, invalid("There is no backup %s on the server.", *in.Name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	offset := aws.ToInt64(in.Offset)
	if offset < 0 || offset > st.Size() {
		return nil, invalid("The offset %d is outside the backup's %d bytes.", offset, st.Size())
	}
	data, err := io.ReadAll(io.NewSectionReader(f, offset, min(backupPart, st.Size()-offset)))
	return &GetBackupPartOutput{Data: data, Bytes: aws.Int64(st.Size())}, err
}

func (a *App) deleteBackup(_ context.Context, c *api.Call, in *DeleteBackupInput) (*DeleteBackupOutput, error) {
	if err := a.operator(c); err != nil {
		return nil, err
	}
	err := os.Remove(a.backupPath(*in.Name))
	if os.IsNotExist(err) {
		return nil, invalid("There is no backup %s on the server.", *in.Name)
	}
	return &DeleteBackupOutput{}, err
}
