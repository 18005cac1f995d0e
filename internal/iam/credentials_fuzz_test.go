package iam

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// FuzzSSHKey: what is taken can be shown in both encodings and read again as the
// same key.
func FuzzSSHKey(f *testing.F) {
	f.Add("ssh-rsa AAAA")
	// Its modulus is negative.
	f.Add("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAdC3XcHO5CbpqnyKHLI1lp5r+J7KSsWl+7UIc29VytDAC9vERGHaVzFN+AFEtTd+1lihfWUdyKa+4nyzhd8QRc8bPFENSBbt7I2P3dXN6FsNArPdnCbReDrS2cqp0tJduBWKJBnxmg/O0Ot4wsyCPcs9IgOR1ZOMpSI78seRsNIFH/sHktE7aDUcZWqnq30MlUW2z0oIOIJvMtaBriEz+o/rP83JQNFcE0sN06SOkuv8RYNe/eu3oN9AjZmEmNr4zbPp7ihQ4hzZO3Trk1ohLOjJrOsJ2L0ndLTbdy4TPP55kMzYKqsegimNlBirY9xr4ulf0VEL594p+y7fd8vq0nwj")
	f.Add("-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK==\n-----END PUBLIC KEY-----\n")
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4Zx1bm0n7gJ1p0Yp1m5m9vQ2a1o0x9e0i7s8c3K2v3 x")
	f.Fuzz(func(t *testing.T, body string) {
		pub, err := parseSSHKey(body)
		if err != nil {
			return
		}
		for _, enc := range []types.EncodingType{types.EncodingTypeSsh, types.EncodingTypePem} {
			text, err := sshKeyBody(&sshKey{Body: body}, enc)
			if err != nil {
				t.Fatalf("%s of an accepted key: %v", enc, err)
			}
			if again, err := parseSSHKey(text); err != nil || string(again.Marshal()) != string(pub.Marshal()) {
				t.Fatalf("%s reads as %v, %v", enc, again, err)
			}
		}
	})
}

// FuzzServerCertificate: whatever comes, there is a certificate or an error.
func FuzzServerCertificate(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "", "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")
	f.Add("x", "y", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, body, chain, key string) {
		if s, ok := privateKey(key); ok == (s == nil) {
			t.Fatalf("privateKey = %v, %v", s, ok)
		}
		if c, err := checkServerCertificate(body, chain, key, time.Unix(0, 0)); (c == nil) == (err == nil) {
			t.Fatalf("checkServerCertificate = %v, %v", c, err)
		}
	})
}
