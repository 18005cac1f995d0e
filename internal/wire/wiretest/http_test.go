package wiretest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/wire"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// canned answers by operation, over real HTTP.
type canned struct {
	t       *testing.T
	mu      sync.Mutex
	inputs  map[string]reflect.Type
	replies map[string]any
	got     map[string]any
	v       *sigv4.Verifier
}

func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Error(err)
		return
	}
	auth, err := sigv4.Parse(r)
	s := wire.Guess(r, body)
	if err == nil {
		s, _ = wire.Lookup(auth.Service)
	}
	if s == nil {
		c.t.Errorf("no service for %s %s %v", r.Method, r.URL, r.Header)
		w.WriteHeader(500)
		return
	}
	if err == nil {
		b := sigv4.BodyOf(body)
		b.AllowUnsigned = s.Name == "ebs"
		err = c.v.Verify(auth, r, b, []byte(Secret), time.Now())
	}
	if err != nil {
		s.EncodeError(w, RequestID, err)
		return
	}
	op, err := s.Detect(r, body)
	if err != nil {
		s.EncodeError(w, RequestID, err)
		return
	}
	if c.inputs[op] == nil {
		s.EncodeError(w, RequestID, s.NotServed(op))
		return
	}
	model, _ := s.Operation(op)
	in := reflect.New(c.inputs[op]).Interface()
	if err := model.Decode(r, body, in, func(m string) { c.t.Errorf("%s: unknown member %s", op, m) }); err != nil {
		s.EncodeError(w, RequestID, err)
		return
	}
	c.got[op] = in
	if err, ok := c.replies[op].(error); ok {
		s.EncodeError(w, RequestID, err)
	} else if err := model.Encode(w, RequestID, c.replies[op]); err != nil {
		c.t.Errorf("%s: %v", op, err)
	}
}

func newCanned(t *testing.T) (*canned, string) {
	c := &canned{t: t, v: sigv4.NewVerifier(), got: map[string]any{},
		inputs: map[string]reflect.Type{
			"Decrypt": reflect.TypeFor[kms.DecryptInput](), "DescribeKey": reflect.TypeFor[kms.DescribeKeyInput](), "ListUsers": reflect.TypeFor[iam.ListUsersInput](), "GetUser": reflect.TypeFor[iam.GetUserInput](),
			"GetCallerIdentity": reflect.TypeFor[sts.GetCallerIdentityInput](), "PutSnapshotBlock": reflect.TypeFor[ebs.PutSnapshotBlockInput](),
			"GetSnapshotBlock": reflect.TypeFor[ebs.GetSnapshotBlockInput](), "StartSnapshot": reflect.TypeFor[ebs.StartSnapshotInput](), "CreateWorkspaces": reflect.TypeFor[workspaces.CreateWorkspacesInput](),
		},
		replies: map[string]any{
			"Decrypt":           &kms.DecryptOutput{KeyId: aws.String("k"), Plaintext: []byte("plain\x00"), EncryptionAlgorithm: "SYMMETRIC_DEFAULT"},
			"DescribeKey":       &kmstypes.NotFoundException{Message: aws.String("Key 'é' does not exist")},
			"ListUsers":         &iam.ListUsersOutput{Users: []iamtypes.User{{UserName: aws.String("jané"), CreateDate: aws.Time(time.Unix(1700000000, 0))}}},
			"GetUser":           &iamtypes.NoSuchEntityException{Message: aws.String("no <user>")},
			"GetCallerIdentity": &sts.GetCallerIdentityOutput{Account: aws.String("111122223333"), Arn: aws.String("arn:aws:iam::111122223333:user/x"), UserId: aws.String("AIDA")},
			"PutSnapshotBlock":  &ebs.PutSnapshotBlockOutput{Checksum: aws.String("sum"), ChecksumAlgorithm: "SHA256"},
			"GetSnapshotBlock":  &ebs.GetSnapshotBlockOutput{BlockData: io.NopCloser(bytes.NewReader([]byte("block\xff"))), Checksum: aws.String("sum"), ChecksumAlgorithm: "SHA256", DataLength: aws.Int32(6)},
			"StartSnapshot":     &ebs.StartSnapshotOutput{SnapshotId: aws.String("snap-1"), Status: ebstypes.StatusPending, StartTime: aws.Time(time.Unix(1700000000, 0))},
			"CreateWorkspaces":  &workspaces.CreateWorkspacesOutput{PendingRequests: []wstypes.Workspace{{WorkspaceId: aws.String("ws-1"), State: wstypes.WorkspaceStatePending}}},
		}}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	return c, srv.URL
}

// The Go client over a real connection: what net/http does to requests must
// not break signatures.
func TestOverHTTP(t *testing.T) {
	c, url := newCanned(t)
	cfg := NewServer(t, "kms").Config()
	cfg.HTTPClient, cfg.BaseEndpoint = nil, &url
	ctx := context.Background()
	out, err := kms.NewFromConfig(cfg).Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: []byte("c"), EncryptionContext: map[string]string{"aws:ebs:id": "vol-1"}})
	if err != nil || string(out.Plaintext) != "plain\x00" {
		t.Errorf("Decrypt = %+v, %v", out, err)
	}
	e := ebs.NewFromConfig(cfg)
	data := strings.Repeat("d", 524288)
	if _, err := e.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{SnapshotId: aws.String("snap-0123456789abcdef0"), BlockIndex: aws.Int32(3), BlockData: strings.NewReader(data),
		Checksum: aws.String("rbL/kzg8aHWwXZ2JoZ+PVNoZ1KXoGBkCYz5dI0pvT0k="), ChecksumAlgorithm: "SHA256", DataLength: aws.Int32(524288)}); err != nil {
		t.Error(err)
	} else {
		in := c.got["PutSnapshotBlock"].(*ebs.PutSnapshotBlockInput)
		if b, _ := io.ReadAll(in.BlockData); string(b) != data || *in.BlockIndex != 3 {
			t.Errorf("PutSnapshotBlock got %d bytes at %d", len(b), *in.BlockIndex)
		}
	}
	got, err := e.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: aws.String("snap-0123456789abcdef0"), BlockIndex: aws.Int32(0), BlockToken: aws.String("AAA+/==")})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(got.BlockData); err != nil || string(b) != "block\xff" || *got.DataLength != 6 {
		t.Errorf("GetSnapshotBlock = %q, %v", b, err)
	}
	ps, err := sts.NewPresignClient(sts.NewFromConfig(cfg)).PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(ps.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(b), "<Account>111122223333</Account>") {
		t.Errorf("presigned GetCallerIdentity: %s %s", resp.Status, b)
	}
}

const botoScript = `
import boto3, json, sys, botocore
from botocore.exceptions import ClientError
url = sys.argv[1]
s = boto3.Session(aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3], aws_session_token="tok/+==", region_name="eu-west-1")
c = lambda n: s.client(n, endpoint_url=url)
out = {}
r = c("kms").decrypt(CiphertextBlob=b"c\xff", EncryptionContext={"k\u00e9": "v"}, GrantTokens=["t"])
out["decrypt"] = [r["Plaintext"].hex(), r["KeyId"]]
def fails(f):
    try:
        f()
        return "no error"
    except ClientError as e:
        return [e.response["Error"]["Code"], e.response["Error"]["Message"], e.response["ResponseMetadata"]["HTTPStatusCode"]]
out["describe"] = fails(lambda: c("kms").describe_key(KeyId="x"))
out["invalid"] = fails(lambda: c("kms").describe_key(KeyId="x" * 2049))
out["unserved"] = fails(lambda: c("kms").list_keys())
r = c("iam").list_users(PathPrefix="/a+b~%/")
out["users"] = [[u["UserName"], u["CreateDate"].isoformat()] for u in r["Users"]]
out["getuser"] = fails(lambda: c("iam").get_user(UserName="x"))
out["unserved_iam"] = fails(lambda: c("iam").list_roles())
out["sts"] = c("sts").get_caller_identity()["Account"]
e = c("ebs")
out["put"] = e.put_snapshot_block(SnapshotId="snap-0123456789abcdef0", BlockIndex=7, BlockData=b"d" * 524288, DataLength=524288, Checksum="rbL/kzg8aHWwXZ2JoZ+PVNoZ1KXoGBkCYz5dI0pvT0k=", ChecksumAlgorithm="SHA256")["Checksum"]
r = e.get_snapshot_block(SnapshotId="snap-0123456789abcdef0", BlockIndex=7, BlockToken="AAA+/==")
out["get"] = r["BlockData"].read().hex()
out["start"] = e.start_snapshot(VolumeSize=1, Tags=[{"Key": "a", "Value": "b"}])["SnapshotId"]
r = c("workspaces").create_workspaces(Workspaces=[{"DirectoryId": "d-1234567890", "UserName": "jan\u00e9", "BundleId": "wsb-123456789", "UserVolumeEncryptionEnabled": True}])
out["ws"] = r["PendingRequests"][0]["State"]
bad = boto3.Session(aws_access_key_id=sys.argv[2], aws_secret_access_key="wrong", region_name="eu-west-1")
out["badkms"] = fails(lambda: bad.client("kms", endpoint_url=url).describe_key(KeyId="x"))[0]
out["badsts"] = fails(lambda: bad.client("sts", endpoint_url=url).get_caller_identity())[0]
print(json.dumps(out))
`

// Python's client, with its own signer and parsers.
func TestBoto3(t *testing.T) {
	if testing.Short() {
		t.Skip("starting Python takes a second")
	}
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(python, "-c", "import boto3").Run()
	}
	if err != nil {
		t.Skipf("needs python3 with boto3 (Debian: python3-boto3): %v", err)
	}
	_, url := newCanned(t)
	cmd := exec.Command(python, "-c", botoScript, url, AccessKey, Secret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("boto3: %v\n%s", err, stderr.String())
	}
	want := `{"decrypt": ["706c61696e00", "k"], "describe": ["NotFoundException", "Key 'é' does not exist", 400],
		"invalid": ["ValidationException", "1 validation error detected: Value '` + strings.Repeat("x", 2048) + `…' at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048", 400],
		"unserved": ["UnknownOperationException", "The operation ListKeys of kms is not available on this server", 400],
		"users": [["jané", "2023-11-14T22:13:20+00:00"]], "getuser": ["NoSuchEntity", "no <user>", 404],
		"unserved_iam": ["InvalidAction", "The operation ListRoles of iam is not available on this server", 400],
		"sts": "111122223333", "put": "sum", "get": "626c6f636bff", "start": "snap-1", "ws": "PENDING",
		"badkms": "InvalidSignatureException", "badsts": "SignatureDoesNotMatch"}`
	var g, w any
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}
