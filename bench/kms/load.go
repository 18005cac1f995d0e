package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

const (
	account    = "111122223333"
	rootKey    = "AKIAIOSFODNN7EXAMPLE"
	rootSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	sid        = "[S-1-5-21-277731876-1789304096-451871588-1107]@[d-1234abcd01]"
)

// fixture is a server with keys and grants in it, all made through its API.
type fixture struct {
	*process
	name       string
	nkeys      int
	ngrants    int
	admin      user // may use every key, by an identity policy
	grantee    user // may do only what the grants on keys[0] give it
	granteeARN string

	keys    []string // key IDs, SYMMETRIC_DEFAULT
	signing string   // an ECC_NIST_P256 key
	// sealed are Decrypt bodies, one a key; granted are Decrypt bodies for
	// keys[0], each allowed by one grant.
	sealed, granted [][]byte
}

// parallel runs f for 0..n-1 on 128 connections.
func parallel(addr string, u user, n int, f func(c *client, i int) error) error {
	conns, err := connect(addr, u, min(128, n), true)
	if err != nil {
		return err
	}
	defer disconnect(conns)
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for _, c := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(c, i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		}()
	}
	wg.Wait()
	if p := failed.Load(); p != nil {
		return *p
	}
	return nil
}

func (f *fixture) volumeContext(i int) string {
	return fmt.Sprintf(`{"aws:ebs:id":"vol-%08x","aws:workspaces:sid-directoryid":"%s"}`, i, sid)
}

// fill makes users, keys, ciphertexts and grants.
func (f *fixture) fill() error {
	from := time.Now()
	if err := f.users(); err != nil {
		return err
	}
	n := f.nkeys - 1 // one is for signing
	f.keys = make([]string, n)
	f.sealed = make([][]byte, n)
	keyID := func(reply []byte) (string, error) {
		var out struct{ KeyMetadata struct{ KeyId string } }
		err := json.Unmarshal(reply, &out)
		return out.KeyMetadata.KeyId, err
	}
	err := parallel(f.addr, f.admin, n, func(c *client, i int) error {
		reply, err := c.call("CreateKey", []byte(`{"Description":"bench"}`))
		if err == nil {
			f.keys[i], err = keyID(reply)
		}
		return err
	})
	if err != nil {
		return err
	}
	made := time.Since(from)
	err = parallel(f.addr, f.admin, n, func(c *client, i int) (err error) {
		f.sealed[i], err = f.seal(c, f.keys[i], i)
		return err
	})
	if err != nil {
		return err
	}
	sealed := time.Since(from) - made
	err = parallel(f.addr, f.admin, 1, func(c *client, _ int) error {
		reply, err := c.call("CreateKey", []byte(`{"KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY"}`))
		if err == nil {
			f.signing, err = keyID(reply)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = parallel(f.addr, f.admin, f.ngrants, func(c *client, i int) error {
		_, err := c.call("CreateGrant", fmt.Appendf(nil, `{"KeyId":"%s","GranteePrincipal":"%s","RetiringPrincipal":"%s","Operations":["Decrypt","GenerateDataKeyWithoutPlaintext"],"Constraints":{"EncryptionContextEquals":%s}}`,
			f.keys[0], f.granteeARN, f.granteeARN, f.volumeContext(i)))
		return err
	})
	if err != nil {
		return err
	}
	granted := time.Since(from) - made - sealed
	// One ciphertext for each grant, of up to a thousand grants spread over all.
	n = min(f.ngrants, 1000)
	f.granted = make([][]byte, n)
	err = parallel(f.addr, f.admin, n, func(c *client, i int) (err error) {
		f.granted[i], err = f.seal(c, f.keys[0], i*(f.ngrants/n))
		return err
	})
	fmt.Fprintf(os.Stderr, "%s: %d keys in %.1f s, a ciphertext of each in %.1f s, %d grants in %.1f s, all through the API\n",
		f.name, f.nkeys, made.Seconds(), sealed.Seconds(), f.ngrants, granted.Seconds())
	return err
}

// seal makes a ciphertext and returns the body of the Decrypt that opens it.
func (f *fixture) seal(c *client, key string, i int) ([]byte, error) {
	ec := f.volumeContext(i)
	reply, err := c.call("Encrypt", fmt.Appendf(nil, `{"EncryptionContext":%s,"KeyId":"%s","Plaintext":"%s"}`, ec, key, base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if err != nil {
		return nil, err
	}
	var out struct{ CiphertextBlob string }
	if err := json.Unmarshal(reply, &out); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"CiphertextBlob":"%s","EncryptionContext":%s}`, out.CiphertextBlob, ec), nil
}

// users makes the administrator, whom an identity policy allows to use keys, and
// the grantee, whom no policy allows anything.
func (f *fixture) users() error {
	ctx := context.Background()
	f.granteeARN = "arn:aws:iam::" + account + ":user/grantee"
	svc := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://" + f.addr), Credentials: credentials.NewStaticCredentialsProvider(rootKey, rootSecret, "")})
	for name, u := range map[string]*user{"admin": &f.admin, "grantee": &f.grantee} {
		if _, err := svc.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String(name)}); err != nil {
			return err
		}
		k, err := svc.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(name)})
		if err != nil {
			return err
		}
		*u = user{*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey}
	}
	_, err := svc.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("admin"), PolicyName: aws.String("keys"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["kms:CreateKey","kms:ListKeys","kms:ListAliases"],"Resource":"*"},
		{"Effect":"Allow","Action":["kms:Encrypt","kms:Decrypt","kms:ReEncrypt*","kms:GenerateDataKey*","kms:DescribeKey","kms:Sign","kms:CreateGrant","kms:RetireGrant"],"Resource":"arn:aws:kms:*:` + account + `:key/*"}]}`)})
	return err
}
