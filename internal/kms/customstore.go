package kms

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Custom key stores are not served yet: none can be made, so each operation
// answers as AWS does in a Region without them or for a store that is not there.

func errNoStore(id string) error {
	return &types.CustomKeyStoreNotFoundException{Message: ptr("Custom key store " + id + " does not exist.")}
}

func errCustomStore(k *Key) error {
	return errState(k.arn() + " is unavailable because its custom key store is not connected.")
}

// inCustomStore prepares a key that lives in a custom key store.
func (s *Service) inCustomStore(_ *store.Tx, _ *api.Call, k *Key, in *kms.CreateKeyInput) error {
	if in.CustomKeyStoreId == nil {
		return errValidation("A key with the origin %s needs CustomKeyStoreId.", k.Origin)
	}
	return errNoStore(*in.CustomKeyStoreId)
}

func (s *Service) randomFromStore(_ *store.Tx, _ *api.Call, id string) error { return errNoStore(id) }

func (s *Service) createCustomKeyStore(_ context.Context, _ *store.Tx, _ *api.Call, in *kms.CreateCustomKeyStoreInput) (*kms.CreateCustomKeyStoreOutput, error) {
	return nil, errUnsupported("Custom key stores are not supported by this endpoint: the store %q (%s) cannot be created.", str(in.CustomKeyStoreName), in.CustomKeyStoreType)
}

func (s *Service) describeCustomKeyStores(_ context.Context, _ *store.Tx, c *api.Call, in *kms.DescribeCustomKeyStoresInput) (*kms.DescribeCustomKeyStoresOutput, error) {
	if in.CustomKeyStoreId != nil && in.CustomKeyStoreName != nil {
		return nil, errValidation("Give CustomKeyStoreId or CustomKeyStoreName, not both.")
	}
	if id := str(in.CustomKeyStoreId) + str(in.CustomKeyStoreName); id != "" {
		return nil, errNoStore(id)
	}
	if _, err := newPage(c, "DescribeCustomKeyStores", "", in.Limit, 100, 1000, in.Marker); err != nil {
		return nil, err
	}
	return &kms.DescribeCustomKeyStoresOutput{CustomKeyStores: []types.CustomKeyStoresListEntry{}}, nil
}

func (s *Service) connectCustomKeyStore(_ context.Context, _ *store.Tx, _ *api.Call, in *kms.ConnectCustomKeyStoreInput) (*kms.ConnectCustomKeyStoreOutput, error) {
	return nil, errNoStore(str(in.CustomKeyStoreId))
}

func (s *Service) disconnectCustomKeyStore(_ context.Context, _ *store.Tx, _ *api.Call, in *kms.DisconnectCustomKeyStoreInput) (*kms.DisconnectCustomKeyStoreOutput, error) {
	return nil, errNoStore(str(in.CustomKeyStoreId))
}

func (s *Service) updateCustomKeyStore(_ context.Context, _ *store.Tx, _ *api.Call, in *kms.UpdateCustomKeyStoreInput) (*kms.UpdateCustomKeyStoreOutput, error) {
	return nil, errNoStore(str(in.CustomKeyStoreId))
}

func (s *Service) deleteCustomKeyStore(_ context.Context, _ *store.Tx, _ *api.Call, in *kms.DeleteCustomKeyStoreInput) (*kms.DeleteCustomKeyStoreOutput, error) {
	return nil, errNoStore(str(in.CustomKeyStoreId))
}
