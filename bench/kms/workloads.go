package main

import (
	"bytes"
	"fmt"
)

// row is one line of the table: what is called, by how many, on which servers.
type row struct {
	operation string
	conns     int
	grantee   bool // the calls are allowed by grants, else by key policy and identity policy
	servers   []string
}

// spread has calls visit n things in an order that is not theirs.
func spread(i, n int) int { return int(uint64(i) * 0x9E3779B97F4A7C15 >> 33 % uint64(n)) }

// workload is the row's calls with a fixture's keys. The bodies are made the same
// way for the server that does nothing.
func (f *fixture) workload(r row) workload {
	call := func(body func(i int) []byte) workload {
		return func(c *client, i int) error { _, err := c.call(r.operation, body(i)); return err }
	}
	if r.grantee && r.operation == "Decrypt" {
		return call(func(i int) []byte { return f.granted[spread(i, len(f.granted))] })
	}
	onKey := func(format string) workload {
		bodies := make([][]byte, min(len(f.keys), 1<<17))
		for i := range bodies {
			bodies[i] = fmt.Appendf(nil, format, f.keys[i], f.volumeContext(i))
		}
		return call(func(i int) []byte { return bodies[spread(i, len(bodies))] })
	}
	switch r.operation {
	case "Decrypt":
		return call(func(i int) []byte { return f.sealed[spread(i, len(f.sealed))] })
	case "GenerateDataKeyWithoutPlaintext":
		return onKey(`{"KeyId":"%s","KeySpec":"AES_256","EncryptionContext":%s}`)
	case "Encrypt":
		return onKey(`{"KeyId":"%s","EncryptionContext":%[2]s,"Plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`)
	case "Sign":
		body := fmt.Appendf(nil, `{"KeyId":"%s","Message":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","MessageType":"DIGEST","SigningAlgorithm":"ECDSA_SHA_256"}`, f.signing)
		return call(func(int) []byte { return body })
	case "CreateGrant":
		// A pair: the grant is made, then retired by the token's ID. One sample is both calls.
		return func(c *client, i int) error {
			key := f.keys[spread(i, len(f.keys))]
			reply, err := c.call("CreateGrant", fmt.Appendf(nil, `{"KeyId":"%s","GranteePrincipal":"%s","RetiringPrincipal":"arn:aws:iam::%s:user/admin","Operations":["Decrypt"],"Constraints":{"EncryptionContextEquals":%s}}`,
				key, f.granteeARN, account, f.volumeContext(i)))
			if err != nil {
				return err
			}
			id := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			if _, rest, ok := bytes.Cut(reply, []byte(`"GrantId":"`)); ok {
				id = string(rest[:64])
			}
			_, err = c.call("RetireGrant", fmt.Appendf(nil, `{"KeyId":"arn:aws:kms:%s:%s:key/%s","GrantId":"%s"}`, region, account, key, id))
			return err
		}
	}
	panic("no workload for " + r.operation)
}
