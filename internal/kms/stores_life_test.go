package kms

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11/softhsm"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/xks/xkstest"
)

// TestDeletionDestroysTheTokensKey: when the waiting period is over the key is
// gone from the token too, and a key that is being destroyed cannot be saved.
func TestDeletionDestroysTheTokensKey(t *testing.T) {
	hsm := softhsm.New(t)
	_, ca := xkstest.Certificate(t, "cluster CA")
	b := newBench(t)
	t.Cleanup(b.s.links.close)
	b.s.cfg.KeyStores.Clusters = map[string]*Cluster{"cluster-abcdefghijk": {Module: hsm.Module, Token: hsm.Label}}
	c, ctx := b.root(acct), context.Background()
	id := must[kms.CreateCustomKeyStoreOutput](b, c, "CreateCustomKeyStore", &kms.CreateCustomKeyStoreInput{CustomKeyStoreName: ptr("hsm"), CloudHsmClusterId: ptr("cluster-abcdefghijk"),
		KeyStorePassword: &hsm.PIN, TrustAnchorCertificate: ptr(string(ca))}).CustomKeyStoreId
	must[kms.ConnectCustomKeyStoreOutput](b, c, "ConnectCustomKeyStore", &kms.ConnectCustomKeyStoreInput{CustomKeyStoreId: id})
	if err := b.s.connectStores(ctx); err != nil {
		t.Fatal(err)
	}
	create := func() string {
		return *must[kms.CreateKeyOutput](b, c, "CreateKey", &kms.CreateKeyInput{Origin: "AWS_CLOUDHSM", CustomKeyStoreId: id}).KeyMetadata.KeyId
	}
	tok, err := pkcs11.Open(ctx, pkcs11.Config{Module: hsm.Module, Token: hsm.Label}, secret.New([]byte(hsm.PIN)))
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	dies, lives := create(), create()
	for _, k := range []string{dies, lives} {
		must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: &k, PendingWindowInDays: ptr(int32(7))})
	}
	must[kms.CancelKeyDeletionOutput](b, c, "CancelKeyDeletion", &kms.CancelKeyDeletionInput{KeyId: &lives})
	b.clk.Advance(7*24*time.Hour + time.Second)
	// The process dies between the doom and the destruction.
	err = b.st.Update(ctx, func(tx *store.Tx) error {
		k := b.s.keys.Edit(tx, path(acct, region, dies))
		k.Doomed = true
		return b.s.put(tx, k)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.fails(c, "CancelKeyDeletion", &kms.CancelKeyDeletionInput{KeyId: &dies}, "NotFoundException", "")
	if err := b.s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Key(ctx, dies); !errors.Is(err, pkcs11.ErrNoKey) {
		t.Errorf("the deleted key in the token: %v, want ErrNoKey", err)
	}
	if _, err := tok.Key(ctx, lives); err != nil {
		t.Errorf("the key whose deletion was cancelled: %v", err)
	}
	b.fails(c, "DescribeKey", &kms.DescribeKeyInput{KeyId: &dies}, "NotFoundException", "")
	must[kms.DisconnectCustomKeyStoreOutput](b, c, "DisconnectCustomKeyStore", &kms.DisconnectCustomKeyStoreInput{CustomKeyStoreId: id})
	b.fails(c, "DeleteCustomKeyStore", &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: id}, "CustomKeyStoreHasCMKsException", "")
	// A store that is not connected does not hold a deletion up, and can go when it is empty.
	must[kms.ScheduleKeyDeletionOutput](b, c, "ScheduleKeyDeletion", &kms.ScheduleKeyDeletionInput{KeyId: &lives, PendingWindowInDays: ptr(int32(7))})
	b.clk.Advance(7*24*time.Hour + time.Second)
	if err := b.s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	must[kms.DeleteCustomKeyStoreOutput](b, c, "DeleteCustomKeyStore", &kms.DeleteCustomKeyStoreInput{CustomKeyStoreId: id})
}

// TestHSMFaults: what a token reports, as AWS's ConnectionErrorCode. Not all of it can be had
// from SoftHSM, which locks no PIN.
func TestHSMFaults(t *testing.T) {
	for err, want := range map[error]types.ConnectionErrorCodeType{
		pkcs11.ErrPIN: "INVALID_CREDENTIALS", pkcs11.ErrPINLocked: "USER_LOCKED_OUT", pkcs11.ErrNoUser: "USER_NOT_FOUND",
		pkcs11.ErrNoToken: "INSUFFICIENT_CLOUDHSM_HSMS", pkcs11.ErrTokenGone: "NETWORK_ERRORS", pkcs11.ErrModule: "INTERNAL_ERROR", errors.New("anything else"): "INTERNAL_ERROR",
	} {
		var f *fault
		if got := hsmFault(fmt.Errorf("log in: %w", err)); !errors.As(got, &f) || f.code != want {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
}
