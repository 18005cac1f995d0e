package kms

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// CustomStore is the stored record of a custom key store, under account/region/id.
// Table kms/store, version 1.
type CustomStore struct {
	ID, Account, Region, Name string
	Type                      string // CustomKeyStoreType
	Created                   time.Time
	State                     string // ConnectionStateType
	ErrorCode                 string `json:",omitempty"` // ConnectionErrorCodeType, when State is FAILED
	// Attempt is the request that asked to connect: what its outcome is recorded for.
	Attempt string `json:",omitempty"`
	// Secret is kmsuser's password or the secret access key for the proxy, wrapped
	// (keyring purpose "kms/store", bound to account, Region and store ID).
	Secret []byte
	// Of AWS_CLOUDHSM.
	Cluster     string `json:",omitempty"`
	TrustAnchor string `json:",omitempty"` // PEM
	// Of EXTERNAL_KEY_STORE.
	Endpoint, Path, Connectivity, AccessKeyID string `json:",omitempty"`
	VPCService, VPCOwner                      string `json:",omitempty"`
}

// storeKey claims what a key in a custom key store rests on, under
// account/region/store/claim: the claim is the key's ID, or of an external key a
// hash of its ID. Table kms/store-key, version 1.
type storeKey struct{ KeyID string }

const (
	storeHSM = string(types.CustomKeyStoreTypeAwsCloudhsm)
	storeXKS = string(types.CustomKeyStoreTypeExternalKeyStore)

	storeConnected    = string(types.ConnectionStateTypeConnected)
	storeConnecting   = string(types.ConnectionStateTypeConnecting)
	storeDisconnected = string(types.ConnectionStateTypeDisconnected)
	storeFailed       = string(types.ConnectionStateTypeFailed)

	connectPublic = string(types.XksProxyConnectivityTypePublicEndpoint)
	connectVPC    = string(types.XksProxyConnectivityTypeVpcEndpointService)

	purposeStore = "kms/store"
)

func (st *CustomStore) path() string { return path(st.Account, st.Region, st.ID) }

func errNoStore(id string) error {
	return &types.CustomKeyStoreNotFoundException{Message: ptr("Custom key store " + id + " does not exist.")}
}

func errStoreState(st *CustomStore, doing string) error {
	return &types.CustomKeyStoreInvalidStateException{Message: ptr("The custom key store " + st.ID + " is " + st.State + ": it cannot be " + doing + ".")}
}

// wrapSecret wraps a store's secret for its record.
func (s *Service) wrapSecret(st *CustomStore, value string) error {
	b := secret.New([]byte(value))
	defer b.Wipe()
	var err error
	st.Secret, err = s.cfg.Root.Wrap(purposeStore, b, []byte(st.path()))
	return err
}

func (s *Service) unwrapSecret(st *CustomStore) (*secret.Bytes, error) {
	return s.cfg.Root.Unwrap(purposeStore, st.Secret, []byte(st.path()))
}

// eachStore visits the stores of the call's account and Region.
func (s *Service) eachStore(tx *store.Tx, c *api.Call, f func(st *CustomStore)) {
	s.stores.Scan(tx, path(c.Account, c.Region, ""), "", func(_ string, st *CustomStore) bool { f(st); return true })
}

// findStore finds a store of the call's account and Region.
func (s *Service) findStore(tx *store.Tx, c *api.Call, id *string) (*CustomStore, error) {
	if st := s.stores.Get(tx, path(c.Account, c.Region, str(id))); st != nil {
		return st, nil
	}
	return nil, errNoStore(str(id))
}

// nameFree refuses a name that another store has.
func (s *Service) nameFree(tx *store.Tx, c *api.Call, st *CustomStore) (err error) {
	s.eachStore(tx, c, func(o *CustomStore) {
		if o.ID != st.ID && o.Name == st.Name {
			err = &types.CustomKeyStoreNameInUseException{Message: ptr("The custom key store name " + st.Name + " is already in use.")}
		}
	})
	return err
}

// wantedStore is the record that a CreateCustomKeyStore asks for, without its
// secret. It asks nobody outside.
func (s *Service) wantedStore(tx *store.Tx, c *api.Call, in *kms.CreateCustomKeyStoreInput) (*CustomStore, error) {
	st := &CustomStore{ID: ids.Hex("cks-", 17), Account: c.Account, Region: c.Region, Name: str(in.CustomKeyStoreName), Type: string(in.CustomKeyStoreType),
		Created: c.Time, State: storeDisconnected}
	if st.Type == "" {
		st.Type = storeHSM
	}
	hsm := map[string]bool{"CloudHsmClusterId": in.CloudHsmClusterId != nil, "KeyStorePassword": in.KeyStorePassword != nil, "TrustAnchorCertificate": in.TrustAnchorCertificate != nil}
	xks := map[string]bool{"XksProxyConnectivity": in.XksProxyConnectivity != "", "XksProxyAuthenticationCredential": in.XksProxyAuthenticationCredential != nil,
		"XksProxyUriEndpoint": in.XksProxyUriEndpoint != nil, "XksProxyUriPath": in.XksProxyUriPath != nil}
	needs, not := hsm, xks
	if st.Type == storeXKS {
		needs, not = xks, hsm
	}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		if !needs[name] {
			return nil, errValidation("%s is required for a custom key store of the type %s.", name, st.Type)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(not)) {
		if not[name] {
			return nil, errValidation("%s is not valid for a custom key store of the type %s.", name, st.Type)
		}
	}
	n := 0
	s.eachStore(tx, c, func(*CustomStore) { n++ })
	if n >= s.cfg.KeyStores.Max {
		return nil, errLimit("The account already has %d custom key stores in this Region, the most it can have.", n)
	}
	if err := s.nameFree(tx, c, st); err != nil {
		return nil, err
	}
	if st.Type == storeHSM {
		st.Cluster, st.TrustAnchor = *in.CloudHsmClusterId, *in.TrustAnchorCertificate
		return st, s.checkCluster(tx, c, st)
	}
	st.Connectivity, st.Endpoint, st.Path, st.AccessKeyID = string(in.XksProxyConnectivity), *in.XksProxyUriEndpoint, *in.XksProxyUriPath, str(in.XksProxyAuthenticationCredential.AccessKeyId)
	st.VPCService, st.VPCOwner = str(in.XksProxyVpcEndpointServiceName), str(in.XksProxyVpcEndpointServiceOwner)
	return st, s.checkProxy(tx, c, st)
}

// checkCluster says whether the store's cluster can be its.
func (s *Service) checkCluster(tx *store.Tx, c *api.Call, st *CustomStore) (err error) {
	cluster, ok := s.cfg.KeyStores.Clusters[st.Cluster]
	if !ok {
		return &types.CloudHsmClusterNotFoundException{Message: ptr("The CloudHSM cluster " + st.Cluster + " is not in the configuration of this server.")}
	}
	s.eachStore(tx, c, func(o *CustomStore) {
		if o.ID != st.ID && o.Cluster == st.Cluster {
			err = &types.CloudHsmClusterInUseException{Message: ptr("The CloudHSM cluster " + st.Cluster + " is already associated with the custom key store " + o.ID + ".")}
		}
	})
	if err != nil {
		return err
	}
	given, bad := pemCertificate([]byte(st.TrustAnchor))
	if bad != nil || cluster.anchor != nil && !bytes.Equal(given, cluster.anchor) {
		return &types.IncorrectTrustAnchorException{Message: ptr("The trust anchor certificate is not the one of the CloudHSM cluster " + st.Cluster + ".")}
	}
	return nil
}

// pemCertificate is the DER of the one certificate in a PEM text.
func pemCertificate(text []byte) ([]byte, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, err
	}
	return c.Raw, nil
}

// checkProxy says whether the store's proxy can be its.
func (s *Service) checkProxy(tx *store.Tx, c *api.Call, st *CustomStore) (err error) {
	switch {
	case st.Connectivity == connectVPC && st.VPCService == "":
		return errValidation("XksProxyVpcEndpointServiceName is required when XksProxyConnectivity is VPC_ENDPOINT_SERVICE.")
	case st.Connectivity != connectVPC && (st.VPCService != "" || st.VPCOwner != ""):
		return errValidation("XksProxyVpcEndpointServiceName and XksProxyVpcEndpointServiceOwner are valid only when XksProxyConnectivity is VPC_ENDPOINT_SERVICE.")
	case !strings.HasPrefix(st.Endpoint, "https://"):
		return errValidation("XksProxyUriEndpoint must begin with https://.")
	}
	s.eachStore(tx, c, func(o *CustomStore) {
		switch {
		case o.ID == st.ID || o.Type != storeXKS:
		case o.Endpoint == st.Endpoint && o.Path == st.Path:
			err = &types.XksProxyUriInUseException{Message: ptr("The proxy URI " + st.Endpoint + st.Path + " is already in use by the custom key store " + o.ID + ".")}
		case o.Endpoint == st.Endpoint && (o.Connectivity == connectVPC || st.Connectivity == connectVPC):
			err = &types.XksProxyUriEndpointInUseException{Message: ptr("The proxy URI endpoint " + st.Endpoint + " is already in use by the custom key store " + o.ID + ".")}
		case st.VPCService != "" && o.VPCService == st.VPCService:
			err = &types.XksProxyVpcEndpointServiceInUseException{Message: ptr("The VPC endpoint service " + st.VPCService + " is already in use by the custom key store " + o.ID + ".")}
		}
	})
	if err != nil || st.Connectivity != connectVPC {
		return err
	}
	if _, ok := s.cfg.KeyStores.XKS.Endpoints[st.VPCService]; !ok {
		return &types.XksProxyVpcEndpointServiceNotFoundException{Message: ptr("The VPC endpoint service " + st.VPCService + " is not in the configuration of this server.")}
	}
	return nil
}

// beforeCreateStore asks a proxy with a public endpoint whether it is there and
// knows the credential.
func (s *Service) beforeCreateStore(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CreateCustomKeyStoreInput) (func(), error) {
	st, err := s.wantedStore(tx, c, in)
	if err != nil || st.Connectivity != connectPublic {
		return nil, err
	}
	return nil, s.tryProxy(ctx, c, st, str(in.XksProxyAuthenticationCredential.RawSecretAccessKey))
}

// createCustomKeyStore is CreateCustomKeyStore.
func (s *Service) createCustomKeyStore(_ context.Context, tx *store.Tx, c *api.Call, in *kms.CreateCustomKeyStoreInput) (*kms.CreateCustomKeyStoreOutput, error) {
	st, err := s.wantedStore(tx, c, in)
	if err != nil {
		return nil, err
	}
	value := str(in.KeyStorePassword)
	if st.Type == storeXKS {
		value = str(in.XksProxyAuthenticationCredential.RawSecretAccessKey)
	}
	if err := s.wrapSecret(st, value); err != nil {
		return nil, err
	}
	return &kms.CreateCustomKeyStoreOutput{CustomKeyStoreId: ptr(st.ID)}, s.stores.Put(tx, st.path(), st)
}

// entry is the store as DescribeCustomKeyStores shows it.
func (st *CustomStore) entry() types.CustomKeyStoresListEntry {
	e := types.CustomKeyStoresListEntry{CustomKeyStoreId: ptr(st.ID), CustomKeyStoreName: ptr(st.Name), CustomKeyStoreType: types.CustomKeyStoreType(st.Type),
		CreationDate: ptr(st.Created), ConnectionState: types.ConnectionStateType(st.State)}
	if st.State == storeFailed {
		e.ConnectionErrorCode = types.ConnectionErrorCodeType(st.ErrorCode)
	}
	if st.Type == storeHSM {
		e.CloudHsmClusterId, e.TrustAnchorCertificate = ptr(st.Cluster), ptr(st.TrustAnchor)
		return e
	}
	e.XksProxyConfiguration = &types.XksProxyConfigurationType{AccessKeyId: ptr(st.AccessKeyID), Connectivity: types.XksProxyConnectivityType(st.Connectivity),
		UriEndpoint: ptr(st.Endpoint), UriPath: ptr(st.Path)}
	if st.VPCService != "" {
		e.XksProxyConfiguration.VpcEndpointServiceName = ptr(st.VPCService)
		e.XksProxyConfiguration.VpcEndpointServiceOwner = ptr(cmp.Or(st.VPCOwner, st.Account))
	}
	return e
}

// describeCustomKeyStores is DescribeCustomKeyStores.
func (s *Service) describeCustomKeyStores(_ context.Context, tx *store.Tx, c *api.Call, in *kms.DescribeCustomKeyStoresInput) (*kms.DescribeCustomKeyStoresOutput, error) {
	if in.CustomKeyStoreId != nil && in.CustomKeyStoreName != nil {
		return nil, errValidation("Give CustomKeyStoreId or CustomKeyStoreName, not both.")
	}
	out := &kms.DescribeCustomKeyStoresOutput{CustomKeyStores: []types.CustomKeyStoresListEntry{}}
	if in.CustomKeyStoreId != nil {
		st, err := s.findStore(tx, c, in.CustomKeyStoreId)
		if err != nil {
			return nil, err
		}
		out.CustomKeyStores = append(out.CustomKeyStores, st.entry())
		return out, nil
	}
	prefix := path(c.Account, c.Region, "")
	pg, err := newPage(c, "DescribeCustomKeyStores", prefix, in.Limit, 100, 1000, in.Marker)
	if err != nil {
		return nil, err
	}
	s.stores.Scan(tx, prefix, pg.after, func(p string, st *CustomStore) bool {
		if in.CustomKeyStoreName != nil && st.Name != *in.CustomKeyStoreName {
			return true
		}
		if !pg.more(p) {
			return false
		}
		out.CustomKeyStores = append(out.CustomKeyStores, st.entry())
		return true
	})
	if in.CustomKeyStoreName != nil && len(out.CustomKeyStores) == 0 {
		return nil, errNoStore(*in.CustomKeyStoreName)
	}
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}

// updatedStore is the store as an UpdateCustomKeyStore wants it, without a new
// secret. ask tells that the proxy must be asked before.
func (s *Service) updatedStore(tx *store.Tx, c *api.Call, in *kms.UpdateCustomKeyStoreInput) (st *CustomStore, ask bool, err error) {
	old, err := s.findStore(tx, c, in.CustomKeyStoreId)
	if err != nil {
		return nil, false, err
	}
	st = ptr(*old)
	always := map[string]bool{"NewCustomKeyStoreName": in.NewCustomKeyStoreName != nil}
	hsm := map[string]bool{"CloudHsmClusterId": in.CloudHsmClusterId != nil, "KeyStorePassword": in.KeyStorePassword != nil}
	live := map[string]bool{"XksProxyAuthenticationCredential": in.XksProxyAuthenticationCredential != nil, "XksProxyUriPath": in.XksProxyUriPath != nil}
	xks := map[string]bool{"XksProxyConnectivity": in.XksProxyConnectivity != "", "XksProxyUriEndpoint": in.XksProxyUriEndpoint != nil,
		"XksProxyVpcEndpointServiceName": in.XksProxyVpcEndpointServiceName != nil, "XksProxyVpcEndpointServiceOwner": in.XksProxyVpcEndpointServiceOwner != nil}
	if !set(always) && !set(hsm) && !set(live) && !set(xks) {
		return nil, false, errValidation("Give at least one property of the custom key store to change.")
	}
	if st.Type == storeHSM && (set(live) || set(xks)) || st.Type == storeXKS && set(hsm) {
		return nil, false, errValidation("A property in the request is not valid for a custom key store of the type %s.", st.Type)
	}
	if st.State != storeDisconnected && (st.State != storeConnected || set(hsm) || set(xks)) {
		return nil, false, errStoreState(st, "changed in this way")
	}
	assign := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	assign(&st.Name, in.NewCustomKeyStoreName)
	if err := s.nameFree(tx, c, st); err != nil {
		return nil, false, err
	}
	if st.Type == storeHSM {
		if in.CloudHsmClusterId == nil || *in.CloudHsmClusterId == st.Cluster {
			return st, false, nil
		}
		st.Cluster = *in.CloudHsmClusterId
		if cl, ok := s.cfg.KeyStores.Clusters[st.Cluster]; ok {
			if der, _ := pemCertificate([]byte(st.TrustAnchor)); cl.anchor == nil || !bytes.Equal(der, cl.anchor) {
				return nil, false, &types.CloudHsmClusterNotRelatedException{Message: ptr("The CloudHSM cluster " + st.Cluster + " does not have the cluster certificate of the one it would replace.")}
			}
		}
		return st, false, s.checkCluster(tx, c, st)
	}
	assign(&st.Endpoint, in.XksProxyUriEndpoint)
	assign(&st.Path, in.XksProxyUriPath)
	assign(&st.VPCService, in.XksProxyVpcEndpointServiceName)
	assign(&st.VPCOwner, in.XksProxyVpcEndpointServiceOwner)
	if in.XksProxyConnectivity != "" {
		st.Connectivity = string(in.XksProxyConnectivity)
		if st.Connectivity == connectPublic && in.XksProxyVpcEndpointServiceName == nil {
			st.VPCService = ""
		}
	}
	if st.VPCService == "" {
		st.VPCOwner = ""
	}
	if in.XksProxyAuthenticationCredential != nil {
		st.AccessKeyID = str(in.XksProxyAuthenticationCredential.AccessKeyId)
	}
	ask = (set(live) || set(xks)) && (st.State == storeConnected || st.Connectivity == connectPublic)
	return st, ask, s.checkProxy(tx, c, st)
}

func set(members map[string]bool) bool {
	for _, v := range members {
		if v {
			return true
		}
	}
	return false
}

// beforeUpdateStore tries new settings of a proxy.
func (s *Service) beforeUpdateStore(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UpdateCustomKeyStoreInput) (func(), error) {
	st, ask, err := s.updatedStore(tx, c, in)
	if err != nil || !ask {
		return nil, err
	}
	if in.XksProxyAuthenticationCredential != nil {
		return nil, s.tryProxy(ctx, c, st, str(in.XksProxyAuthenticationCredential.RawSecretAccessKey))
	}
	old, err := s.unwrapSecret(st)
	if err != nil {
		return nil, err
	}
	defer old.Wipe()
	return nil, s.tryProxy(ctx, c, st, string(old.Expose()))
}

// updateCustomKeyStore is UpdateCustomKeyStore.
func (s *Service) updateCustomKeyStore(_ context.Context, tx *store.Tx, c *api.Call, in *kms.UpdateCustomKeyStoreInput) (*kms.UpdateCustomKeyStoreOutput, error) {
	st, _, err := s.updatedStore(tx, c, in)
	if err != nil {
		return nil, err
	}
	value := in.KeyStorePassword
	if in.XksProxyAuthenticationCredential != nil {
		value = in.XksProxyAuthenticationCredential.RawSecretAccessKey
	}
	if value != nil {
		if err := s.wrapSecret(st, *value); err != nil {
			return nil, err
		}
	}
	return &kms.UpdateCustomKeyStoreOutput{}, s.stores.Put(tx, st.path(), st)
}

// deleteCustomKeyStore is DeleteCustomKeyStore.
func (s *Service) deleteCustomKeyStore(_ context.Context, tx *store.Tx, c *api.Call, in *kms.DeleteCustomKeyStoreInput) (*kms.DeleteCustomKeyStoreOutput, error) {
	st, err := s.findStore(tx, c, in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	keys := false
	s.storeKeys.Scan(tx, st.path()+"/", "", func(string, *storeKey) bool { keys = true; return false })
	switch {
	case keys:
		return nil, &types.CustomKeyStoreHasCMKsException{Message: ptr("The custom key store " + st.ID + " contains KMS keys: schedule their deletion, and delete the store when they are deleted.")}
	case st.State != storeDisconnected:
		return nil, errStoreState(st, "deleted before it is disconnected")
	}
	return &kms.DeleteCustomKeyStoreOutput{}, s.stores.Delete(tx, st.path())
}

// noteStore puts what CloudTrail shows of a store on the record.
func noteStore(c *api.Call, st *CustomStore) {
	if c.Record == nil {
		return
	}
	c.Record.AdditionalEventData = map[string]any{"customKeyStoreName": st.Name}
	if st.Type == storeHSM {
		c.Record.AdditionalEventData["clusterId"] = st.Cluster
	}
}

// connectCustomKeyStore is ConnectCustomKeyStore. The connection is made
// afterwards, by connectStores.
func (s *Service) connectCustomKeyStore(_ context.Context, tx *store.Tx, c *api.Call, in *kms.ConnectCustomKeyStoreInput) (*kms.ConnectCustomKeyStoreOutput, error) {
	st, err := s.findStore(tx, c, in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	noteStore(c, st)
	switch st.State {
	case storeConnected, storeConnecting:
		return &kms.ConnectCustomKeyStoreOutput{}, nil
	case storeDisconnected:
		if _, ok := s.cfg.KeyStores.Clusters[st.Cluster]; st.Type == storeHSM && !ok {
			return nil, &types.CloudHsmClusterNotActiveException{Message: ptr("The CloudHSM cluster " + st.Cluster + " is no longer in the configuration of this server.")}
		}
	default:
		return nil, errStoreState(st, "connected: disconnect it first")
	}
	st = ptr(*st)
	st.State, st.ErrorCode, st.Attempt = storeConnecting, "", c.RequestID
	return &kms.ConnectCustomKeyStoreOutput{}, s.stores.Put(tx, st.path(), st)
}

// disconnectCustomKeyStore is DisconnectCustomKeyStore. When it returns the
// store is disconnected and its keys are unavailable.
func (s *Service) disconnectCustomKeyStore(_ context.Context, tx *store.Tx, c *api.Call, in *kms.DisconnectCustomKeyStoreInput) (*kms.DisconnectCustomKeyStoreOutput, error) {
	st, err := s.findStore(tx, c, in.CustomKeyStoreId)
	if err != nil {
		return nil, err
	}
	noteStore(c, st)
	if st.State == storeDisconnected {
		return nil, errStoreState(st, "disconnected")
	}
	st = ptr(*st)
	st.State, st.ErrorCode, st.Attempt = storeDisconnected, "", ""
	return &kms.DisconnectCustomKeyStoreOutput{}, s.stores.Put(tx, st.path(), st)
}
