package wire

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

var decryptBody = []byte(`{"CiphertextBlob":"` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("c", 184))) +
	`","EncryptionContext":{"aws:workspaces:sid-directoryid":"[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]","aws:ebs:id":"vol-1234abcd"}}`)

var decryptOutput = &kms.DecryptOutput{KeyId: aws.String("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
	Plaintext: []byte(strings.Repeat("p", 64)), EncryptionAlgorithm: "SYMMETRIC_DEFAULT", KeyMaterialId: aws.String(strings.Repeat("a", 64))}

// sink is a reply that costs nothing.
type sink struct{ h http.Header }

func (s sink) Header() http.Header         { return s.h }
func (s sink) Write(b []byte) (int, error) { return len(b), nil }
func (s sink) WriteHeader(int)             {}

func BenchmarkDecryptDecode(b *testing.B) {
	op := operation(b, "kms", "Decrypt")
	r := httptest.NewRequest("POST", "/", nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(decryptBody)))
	for b.Loop() {
		if err := op.Decode(r, decryptBody, new(kms.DecryptInput), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// The same by encoding/json, without validation.
func BenchmarkDecryptDecodeStandard(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(decryptBody)))
	for b.Loop() {
		if err := json.Unmarshal(decryptBody, new(kms.DecryptInput)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecryptEncode(b *testing.B) {
	op := operation(b, "kms", "Decrypt")
	w := sink{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := op.Encode(w, "7e4b7a2e-0000-4000-8000-000000000000", decryptOutput); err != nil {
			b.Fatal(err)
		}
	}
}

// plainOutput is DecryptOutput without ResultMetadata, which encoding/json
// would write.
type plainOutput struct {
	KeyId, EncryptionAlgorithm, KeyMaterialId *string `json:",omitempty"`
	Plaintext                                 []byte  `json:",omitempty"`
}

func BenchmarkDecryptEncodeStandard(b *testing.B) {
	alg := string(decryptOutput.EncryptionAlgorithm)
	out := &plainOutput{decryptOutput.KeyId, &alg, decryptOutput.KeyMaterialId, decryptOutput.Plaintext}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, s := range Services() {
		b.Run(s.Name, func(b *testing.B) {
			for b.Loop() {
				if _, err := parseTable(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A cold start must not wait for tables: even the largest is parsed on first
// use in some milliseconds.
func TestTableCost(t *testing.T) {
	start := time.Now()
	for _, s := range Services() {
		if _, err := parseTable(s); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("parsing all tables took %v, want less than a second", d)
	} else {
		t.Logf("all tables parsed in %v", d)
	}
}
