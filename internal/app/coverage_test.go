package app_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/wire"
)

// request is a well-formed request of an operation whose input is empty, or, for
// operations that require members, as empty as it can be.
func request(t *testing.T, base string, op *wire.OperationModel) *http.Request {
	t.Helper()
	var body string
	method, path := http.MethodPost, "/"
	header := http.Header{}
	switch op.Service.Protocol {
	case wire.JSON:
		body = "{}"
		header.Set("Content-Type", "application/x-amz-json-1.1")
		header.Set("X-Amz-Target", op.Service.TargetPrefix+"."+op.Name)
	case wire.Query, wire.EC2Query:
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		body = url.Values{"Action": {op.Name}, "Version": {op.Service.APIVersion}}.Encode()
	case wire.RESTJSON:
		method = op.Method
		path = op.URI
		for strings.Contains(path, "{") {
			i, j := strings.Index(path, "{"), strings.Index(path, "}")
			path = path[:i] + "0" + path[j+1:]
		}
		if method == http.MethodPost || method == http.MethodPut {
			body = "{}"
			header.Set("Content-Type", "application/json")
		}
	}
	r, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	return r
}

func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("X-Amzn-Errortype") + " " + string(b)
}

func sign(t *testing.T, r *http.Request, c aws.Credentials, service string) {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	sum := sha256.Sum256(b)
	if err := v4.NewSigner().SignHTTP(context.Background(), c, r, hex.EncodeToString(sum[:]), service, apptest.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// each visits every operation that HTTP reaches.
func each(t *testing.T, s *apptest.Server, f func(t *testing.T, op *api.Operation, model *wire.OperationModel)) {
	for _, svc := range wire.Services() {
		for name, op := range s.App.Gateway().Operations()[svc.Name] {
			if op.Internal {
				continue
			}
			model, ok := svc.Operation(name)
			if !ok {
				t.Errorf("%s:%s is served and the API model does not know it", svc.Name, name)
				continue
			}
			f(t, op, model)
		}
	}
}

// TestEveryOperationRefuses: unsigned, wrongly signed, with an unknown key and
// without permission, every operation of the table is refused, with the code that
// its protocol documents.
func TestEveryOperationRefuses(t *testing.T) {
	s := apptest.New(t)
	_, err := s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	nobody := aws.Credentials{AccessKeyID: *key.AccessKey.AccessKeyId, SecretAccessKey: *key.AccessKey.SecretAccessKey}
	wrong := aws.Credentials{AccessKeyID: apptest.RootAccessKeyID, SecretAccessKey: "not-the-secret-of-root-00000000000000"}
	unknown := aws.Credentials{AccessKeyID: "AKIA0000000000000000", SecretAccessKey: "x"}
	count := 0
	each(t, s, func(t *testing.T, op *api.Operation, model *wire.OperationModel) {
		count++
		name := op.Service + ":" + op.Name
		if !op.Unsigned {
			if status, body := do(t, request(t, s.URL, model)); status < 400 || !strings.Contains(body, "MissingAuthenticationToken") {
				t.Errorf("%s unsigned: %d %.120s, want MissingAuthenticationToken", name, status, body)
			}
		}
		r := request(t, s.URL, model)
		sign(t, r, wrong, model.Service.SigningName)
		if status, body := do(t, r); status < 400 || !strings.Contains(body, "Signature") && !strings.Contains(body, "AuthFailure") {
			t.Errorf("%s wrongly signed: %d %.120s, want a signature error", name, status, body)
		}
		r = request(t, s.URL, model)
		sign(t, r, unknown, model.Service.SigningName)
		if status, body := do(t, r); status < 400 || !strings.Contains(body, "UnrecognizedClient") && !strings.Contains(body, "InvalidClientTokenId") && !strings.Contains(body, "AuthFailure") {
			t.Errorf("%s with an unknown key: %d %.120s, want that the token is invalid", name, status, body)
		}
		if op.Open {
			return
		}
		r = request(t, s.URL, model)
		sign(t, r, nobody, model.Service.SigningName)
		status, body := do(t, r)
		// An operation whose input names the resource may refuse the empty input first.
		if status < 400 {
			t.Errorf("%s by a user without any permission: %d %.120s, want a refusal", name, status, body)
		}
	})
	if count < 150 {
		t.Errorf("only %d operations in the table", count)
	}
	t.Logf("%d operations tried four ways", count)
}

// TestRefusedMembersExist: a misspelt name in api.Refuses would refuse nothing.
func TestRefusedMembersExist(t *testing.T) {
	s := apptest.New(t)
	each(t, s, func(t *testing.T, op *api.Operation, _ *wire.OperationModel) {
		if op.In.Kind() != reflect.Struct || op.Out.Kind() != reflect.Struct {
			t.Errorf("%s:%s has input %s and output %s, want structs", op.Service, op.Name, op.In, op.Out)
		}
		for _, m := range op.Refuses {
			func() {
				defer func() {
					if p := recover(); p != nil {
						t.Errorf("%s:%s refuses %s, which its input does not have", op.Service, op.Name, m)
					}
				}()
				api.Set(reflect.New(op.In).Interface(), m)
			}()
		}
	})
}
