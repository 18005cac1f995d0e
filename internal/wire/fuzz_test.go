package wire

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"

	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// What the decoder takes, encoding/json takes as well, and it comes out the
// same after encoding and decoding once more.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"KeyId":"alias/x","EncryptionContext":{"a":"b\u00e9"},"GrantTokens":["t"],"NumberOfBytes":32,"DryRun":true,"Recipient":{"AttestationDocument":"AAEC"},"Foo":[1,{}]}`))
	f.Add([]byte(`{"Workspaces":[{"DirectoryId":"d","WorkspaceProperties":{"RootVolumeSizeGib":1e1},"Tags":[]}],"OtherAttributes":{"a":{"SS":["x"]}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, c := range []struct {
			svc, op string
			typ     reflect.Type
		}{{"kms", "GenerateDataKey", reflect.TypeFor[kms.GenerateDataKeyInput]()}, {"workspaces", "CreateWorkspaces", reflect.TypeFor[workspaces.CreateWorkspacesInput]()},
			{"ds-data", "CreateUser", reflect.TypeFor[dsdata.CreateUserInput]()}} {
			op := operation(t, c.svc, c.op)
			sp, err := op.inputPlan(c.typ)
			if err != nil {
				t.Fatal(err)
			}
			in := reflect.New(c.typ)
			if err := decodeJSON(body, sp, in.UnsafePointer(), func(string) {}); err != nil {
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("error %T, want *Error", err)
				}
				continue
			}
			if len(strings.TrimSpace(string(body))) > 0 && !json.Valid(body) {
				t.Fatalf("took %q, which is not JSON", body)
			}
			out := appendJSON(nil, sp, in.UnsafePointer())
			if !json.Valid(out) {
				t.Fatalf("wrote %q, which is not JSON", out)
			}
			back := reflect.New(c.typ)
			if err := decodeJSON(out, sp, back.UnsafePointer(), nil); err != nil {
				t.Fatalf("cannot read own %s: %v", out, err)
			}
			if again := appendJSON(nil, sp, back.UnsafePointer()); !sameJSON(again, string(out)) {
				t.Fatalf("%s became %s", out, again)
			}
			_ = op.Validate(in.Interface())
			SetMembers(in.Interface())
			if rec, err := op.AppendRecord(nil, in.Interface()); err != nil || !json.Valid(rec) {
				t.Fatalf("AppendRecord = %q, %v", rec, err)
			}
		}
	})
}

func FuzzForm(f *testing.F) {
	f.Add("Action=TagUser&UserName=u&Tags.member.1.Key=k&Tags.member.1.Value=v&X.1=2")
	f.Add("Tags=&UserName.x=1&Tags.member.99999999999999999999.Key=k")
	f.Fuzz(func(t *testing.T, body string) {
		op := operation(t, "iam", "TagUser")
		in := new(iam.TagUserInput)
		r := httptest.NewRequest("POST", "/", nil)
		if err := op.Decode(r, []byte(body), in, func(string) {}); err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %T (%v), want *Error", err, err)
			}
			w := httptest.NewRecorder()
			if err := op.Service.EncodeError(w, "r", err); err != nil || w.Code != 400 {
				t.Fatalf("EncodeError = %v, status %d", err, w.Code)
			}
		}
		op.Service.Detect(r, []byte(body))
	})
}
