package kms

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sync"

	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"

	"github.com/sealdesk/sealdesk/internal/api"
)

// Quotas are AWS's limits; the zero value of each means AWS's default.
// Source: KMS developer guide, "Resource quotas".
type Quotas struct {
	Keys              int // an account and Region: 100,000
	AliasesPerKey     int // 50
	GrantsPerKey      int // 50,000; AWS managed keys have no limit
	PolicyBytes       int // 32,768
	OnDemandRotations int // a key: 25
	TagsPerKey        int // 50
	// RequestsPerSecond are the calls a second that an account may make in a Region, by
	// operation or shared quota; see AWSRequestRates. Nothing is held back by what is
	// not named: a server of one's own has no other customers to protect.
	RequestsPerSecond map[string]float64
}

// LoadQuotas reads quotas from a JSON file with the members of Quotas; "aws" in the
// place of a file is AWS's counts and rates.
func LoadQuotas(file string) (q Quotas, err error) {
	if file == "aws" {
		return Quotas{RequestsPerSecond: AWSRequestRates}, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return q, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, fmt.Errorf("quotas in %s: %w", file, err)
	}
	for name, n := range q.RequestsPerSecond {
		if _, known := AWSRequestRates[name]; !known || n < 0 {
			return q, fmt.Errorf("quotas in %s: RequestsPerSecond has %q: %g; want the name of an operation or of a shared quota (%s, %s), and a rate", file, name, n, SharedSymmetric, SharedAsymmetric)
		}
	}
	return q, nil
}

// AWSRequestRates are the calls a second that AWS allows an account in a Region, by
// operation or, for the cryptographic operations, by what they share. AWS counts RSA
// and elliptic curve keys apart; here both are SharedAsymmetric.
// Source: KMS developer guide, "Request quotas".
var AWSRequestRates = map[string]float64{
	SharedSymmetric: 10000, SharedAsymmetric: 1000, "GenerateDataKeyPair": 25, "GenerateDataKeyPairWithoutPlaintext": 25,
	"CancelKeyDeletion": 5, "ConnectCustomKeyStore": 5, "CreateAlias": 5, "CreateCustomKeyStore": 5, "CreateGrant": 50, "CreateKey": 5,
	"DeleteAlias": 15, "DeleteCustomKeyStore": 5, "DeleteImportedKeyMaterial": 15, "DescribeCustomKeyStores": 5, "DescribeKey": 2000, "DisableKey": 5,
	"DisableKeyRotation": 5, "DisconnectCustomKeyStore": 5, "EnableKey": 5, "EnableKeyRotation": 15, "GetKeyPolicy": 1000, "GetKeyRotationStatus": 1000,
	"GetParametersForImport": 0.25, "GetPublicKey": 2000, "ImportKeyMaterial": 15, "ListAliases": 500, "ListGrants": 100, "ListKeyPolicies": 100,
	"ListKeyRotations": 100, "ListKeys": 500, "ListResourceTags": 2000, "ListRetirableGrants": 100, "PutKeyPolicy": 15, "ReplicateKey": 5,
	"RetireGrant": 30, "RevokeGrant": 30, "RotateKeyOnDemand": 5, "ScheduleKeyDeletion": 15, "TagResource": 10, "UntagResource": 5,
	"UpdateAlias": 5, "UpdateCustomKeyStore": 5, "UpdateKeyDescription": 5, "UpdatePrimaryRegion": 5,
}

// Names of the quotas that several operations share.
const (
	SharedSymmetric  = "CryptographicOperationsSymmetric"
	SharedAsymmetric = "CryptographicOperationsAsymmetric"
)

// quotaOf is the quota that an operation counts against.
func quotaOf(operation string) string {
	switch operation {
	case "Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateMac", "VerifyMac", "GenerateRandom":
		return SharedSymmetric
	case "Sign", "Verify", "DeriveSharedSecret", "Encapsulate", "Decapsulate":
		return SharedAsymmetric
	}
	return operation
}

// throttle holds back callers who call more often than the quotas allow. A call of
// another account's key counts for the caller, as on AWS.
type throttle struct {
	rates map[string]float64 // empty: nobody is held back
	mu    sync.Mutex
	m     map[string]*rate.Limiter // account/region/quota
}

// admit is the Admit of every operation.
func (t *throttle) admit(operation string) func(*api.Call) error {
	quota := quotaOf(operation)
	most := t.rates[quota]
	if most <= 0 {
		return nil
	}
	return func(c *api.Call) error {
		k := c.Account + "/" + c.Region + "/" + quota
		t.mu.Lock()
		l := t.m[k]
		if l == nil {
			l = rate.NewLimiter(rate.Limit(most), int(math.Ceil(most)))
			t.m[k] = l
		}
		t.mu.Unlock()
		if l.AllowN(c.Time, 1) {
			return nil
		}
		return &smithy.GenericAPIError{Code: "ThrottlingException", Message: fmt.Sprintf("You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls. (%s: %g a second for account %s in %s)", quota, most, c.Account, c.Region)}
	}
}
