package kms

import (
	"encoding/base64"
	"errors"
	"time"
)

// Key is the stored record of a KMS key in one Region, under account/region/id.
// Table kms/key, version 1.
type Key struct {
	ID, Account, Region string
	Spec                string // KeySpec
	Usage               string // KeyUsageType
	Origin              string // OriginType
	Description         string `json:",omitempty"`
	// Service is the owner of an AWS managed key ("workspaces"), "" for a
	// customer managed key.
	Service string `json:",omitempty"`
	// State is a KeyState. What expires by the clock is worked out by stateAt.
	State         string
	Created       time.Time
	Deletion      time.Time         `json:",omitzero"` // when PendingDeletion ends
	PendingWindow int32             `json:",omitempty"`
	Policy        string            // as bindPolicy has it
	Tags          map[string]string `json:",omitempty"`
	// Materials, oldest first. The current one is the last whose Status is CURRENT.
	Materials []Material `json:",omitempty"`
	// PublicKey is the SubjectPublicKeyInfo of an asymmetric key, DER.
	PublicKey []byte `json:",omitempty"`

	Rotation Rotation `json:",omitzero"`

	// MultiRegion keys share ID, material, spec, usage, origin and rotation.
	MultiRegion bool     `json:",omitempty"`
	Primary     string   `json:",omitempty"` // Region of the primary
	Replicas    []string `json:",omitempty"` // Regions of the replicas, sorted

	// Store is the custom key store; External the key's ID in an external key store.
	Store    string `json:",omitempty"`
	External string `json:",omitempty"`
	// Doomed: the waiting period is over and what the key rests on in its custom key
	// store is being destroyed. There is no way back.
	Doomed bool `json:",omitempty"`

	derived derived
}

// derived is what follows from a stored key. settle works it out once, before the
// record becomes visible; a record that is being made or edited has none.
type derived struct {
	path, arn string
	policy    *keyPolicy
	mem       *keyMem
	link      *link // of a key in a custom key store
}

// settle fills derived, and has the record share what it has in common with others
// and with its own path p. old is the record it replaces, nil for none. Only the store's
// change hook calls it.
func (k *Key) settle(p string, policies *keyPolicies, old *Key) {
	k.Account, k.Region, k.ID = splitPath(p)
	for _, w := range []*string{&k.Spec, &k.Usage, &k.Origin, &k.State} {
		*w = shared(*w)
	}
	for i := range k.Materials {
		k.Materials[i].Status = shared(k.Materials[i].Status)
	}
	k.derived = derived{path: p, arn: keyARN(k.Account, k.Region, k.ID), policy: policies.hold(k.Policy)}
	if old != nil {
		k.derived.mem = old.derived.mem
	} else {
		k.derived.mem = new(keyMem)
	}
	k.Policy = k.derived.policy.text
}

// words are what nearly every record says in some member.
var words = [...]string{specSymmetric, usageEncrypt, usageSign, usageMAC, originKMS, originExternal, originHSM, originXKS, stateEnabled, stateDisabled, statusCurrent, statusNonCurrent}

// shared is w, in the program's own copy when it has one.
func shared(w string) string {
	for _, own := range words {
		if own == w {
			return own
		}
	}
	return w
}

// Material is one key material (AWS: HSM backing key) of a key.
type Material struct {
	ID string // 64 hexadecimal digits
	// Wrapped is the material under the root key (keyring purpose "kms/material",
	// bound to account, key ID and material ID). Empty: deleted, expired or not
	// yet imported.
	Wrapped []byte `json:",omitempty"`
	Created time.Time
	// Status is a KeyMaterialState.
	Status string
	// Rotated is when it became current by rotation, zero for the first.
	Rotated     time.Time `json:",omitzero"`
	RotatedBy   string    `json:",omitempty"` // RotationType
	Description string    `json:",omitempty"`
	ValidTo     time.Time `json:",omitzero"` // imported material that expires
}

// Rotation is a key's automatic and on-demand rotation.
type Rotation struct {
	Enabled    bool      `json:",omitempty"`
	PeriodDays int32     `json:",omitempty"`
	Next       time.Time `json:",omitzero"`
	OnDemand   int       `json:",omitempty"` // on-demand rotations so far
}

// Alias is the stored record of an alias, under account/region/name (with
// "alias/"). Table kms/alias, version 1.
type Alias struct {
	Name             string
	Target           string // key ID
	Created, Updated time.Time
}

// Grant is the stored record of a grant, under grantKey. Table kms/g, version 1.
type Grant struct {
	Name string `json:",omitempty"`
	// Grantee and Retiring are principals as bind has them, or service hosts
	// ("ec2.us-west-2.amazonaws.com"). The …Service flags tell that they were
	// given as GranteeServicePrincipal and RetiringServicePrincipal.
	Grantee         string
	Retiring        string `json:",omitempty"`
	GranteeService  bool   `json:",omitempty"`
	RetiringService bool   `json:",omitempty"`
	IssuingAccount  string
	Operations      []string // sorted
	// At most one of Equals and Subset is set.
	Equals    sortedPairs `json:",omitempty"`
	Subset    sortedPairs `json:",omitempty"`
	SourceARN string      `json:",omitempty"`
	Created   time.Time
	Parent    packedID `json:",omitempty"` // grant that allowed this one to be made
	Seed      seed

	key string // the grant's table key; with who makes a grant, and in every record that is visible
}

// seed authenticates a grant's tokens.
type seed [16]byte

// MarshalText writes base64, as JSON has a slice of bytes.
func (s seed) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads it.
func (s *seed) UnmarshalText(b []byte) error {
	raw, err := base64.StdEncoding.DecodeString(string(b))
	if err != nil || len(raw) != len(s) {
		return errors.New("kms: the seed of a grant has another size")
	}
	copy(s[:], raw)
	return nil
}

// grantName makes CreateGrant idempotent: the grant that a name and its
// parameters stand for, under grantKey of their hash. Table kms/n, version 1.
type grantName struct{ GrantID packedID }

// usage is the last cryptographic use of a key, under account/region/id. Table
// kms/usage, version 1. It is written some seconds late.
type usage struct {
	Operation, EventID, RequestID string
	Time                          time.Time
}

// path is the table key of a key; id may be any identifier below region.
func path(account, region, id string) string { return account + "/" + region + "/" + id }

// path is the key's own table key.
func (k *Key) path() string {
	if k.derived.path != "" {
		return k.derived.path
	}
	return path(k.Account, k.Region, k.ID)
}

// arn is the key ARN.
func (k *Key) arn() string {
	if k.derived.arn != "" {
		return k.derived.arn
	}
	return keyARN(k.Account, k.Region, k.ID)
}

func keyARN(account, region, id string) string {
	return "arn:aws:kms:" + region + ":" + account + ":key/" + id
}

func aliasARN(account, region, name string) string {
	return "arn:aws:kms:" + region + ":" + account + ":" + name
}

// current is the material new ciphertexts are made under, nil when there is none.
func (k *Key) current() *Material {
	for i := len(k.Materials) - 1; i >= 0; i-- {
		if k.Materials[i].Status == statusCurrent {
			return &k.Materials[i]
		}
	}
	return nil
}

// material finds a material by ID.
func (k *Key) material(id string) *Material {
	for i := range k.Materials {
		if k.Materials[i].ID == id {
			return &k.Materials[i]
		}
	}
	return nil
}

// expired tells whether imported material has passed its ValidTo.
func (m *Material) expired(now time.Time) bool { return !m.ValidTo.IsZero() && !now.Before(m.ValidTo) }

// pending tells imported material that waits for rotation.
func (m *Material) pending() bool {
	return m.Status == statusPendingRotation || m.Status == statusPendingReplicas
}

// stateAt is the key's state at a moment: imported material that has expired
// makes a key PendingImport before the reaper has come round, and a custom key store that
// is not connected makes its keys Unavailable.
func (k *Key) stateAt(now time.Time) string {
	if l := k.derived.link; l != nil && !l.connected.Load() && (k.State == stateEnabled || k.State == stateDisabled) {
		return stateUnavailable
	}
	if k.State != stateEnabled && k.State != stateDisabled || k.Origin != originExternal {
		return k.State
	}
	for i := range k.Materials {
		m := &k.Materials[i]
		if m.pending() {
			continue
		}
		// AWS: a key is usable only while every material it ever used is present.
		if len(m.Wrapped) == 0 || m.expired(now) {
			return statePendingImport
		}
	}
	return k.State
}

// shownMaterial is the material's ID as replies have it: that of a key in a
// custom key store is not shown.
func (k *Key) shownMaterial(m *Material) *string {
	if k.inStore() {
		return nil
	}
	return ptr(m.ID)
}

// isReplica tells a replica of a multi-Region key from its primary.
func (k *Key) isReplica() bool { return k.MultiRegion && k.Primary != k.Region }

const (
	stateCreating               = "Creating"
	stateEnabled                = "Enabled"
	stateDisabled               = "Disabled"
	statePendingDeletion        = "PendingDeletion"
	statePendingReplicaDeletion = "PendingReplicaDeletion"
	statePendingImport          = "PendingImport"
	stateUnavailable            = "Unavailable"
	stateUpdating               = "Updating"

	statusCurrent         = "CURRENT"
	statusNonCurrent      = "NON_CURRENT"
	statusPendingRotation = "PENDING_ROTATION"
	// Imported into the primary of a multi-Region key and not yet into all replicas.
	statusPendingReplicas = "PENDING_MULTI_REGION_IMPORT_AND_ROTATION"

	originKMS      = "AWS_KMS"
	originExternal = "EXTERNAL"
	originHSM      = "AWS_CLOUDHSM"
	originXKS      = "EXTERNAL_KEY_STORE"
)
