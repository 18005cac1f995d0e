package wire

import (
	"encoding/json"
	"errors"
	"math"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

func service(t testing.TB, name string) *Service {
	t.Helper()
	s, ok := Lookup(name)
	if !ok {
		t.Fatalf("Lookup(%q) found nothing", name)
	}
	return s
}

func operation(t testing.TB, svc, name string) *OperationModel {
	t.Helper()
	op, ok := service(t, svc).Operation(name)
	if !ok {
		t.Fatalf("%s has no operation %s", svc, name)
	}
	return op
}

// decodeInto decodes a body (JSON) or a form as the protocol has it.
func decodeInto(t testing.TB, op *OperationModel, body string, in any) ([]string, error) {
	t.Helper()
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	if op.Service.Protocol == Query || op.Service.Protocol == EC2Query {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	var unknown []string
	err := op.Decode(r, []byte(body), in, func(m string) { unknown = append(unknown, m) })
	return unknown, err
}

func TestTables(t *testing.T) {
	want := map[string]int{"kms": 56, "iam": 180, "sts": 11, "ec2": 811, "ebs": 6, "cloudtrail": 60, "workspaces": 91, "ds": 80, "ds-data": 17, "rbin": 10}
	for _, s := range Services() {
		if n := len(s.Operations()); n != want[s.Name] && want[s.Name] != 0 {
			t.Errorf("%s has %d operations, want %d", s.Name, n, want[s.Name])
		}
		for name, sh := range s.table().shapes {
			if sh.pattern == "" {
				continue
			}
			if _, err := compilePattern(sh.pattern); err != nil {
				t.Errorf("%s: pattern of %s: %v", s.Name, name, err)
			}
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		svc, method, target, header, body string
		op, code                          string
		status                            int
	}{
		{"kms", "POST", "/", "TrentService.Decrypt", "{}", "Decrypt", "", 0},
		{"kms", "POST", "/", "TrentService.Nope", "{}", "Nope", "UnknownOperationException", 400},
		{"kms", "POST", "/", "", "{}", "", "UnknownOperationException", 400},
		{"kms", "POST", "/", "WorkspacesService.Decrypt", "{}", "Decrypt", "UnknownOperationException", 400},
		{"cloudtrail", "POST", "/", "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents", "{}", "LookupEvents", "", 0},
		{"cloudtrail", "POST", "/", "CloudTrail_20131101.LookupEvents", "{}", "LookupEvents", "", 0},
		{"iam", "POST", "/", "", "Action=CreateUser&Version=2010-05-08", "CreateUser", "", 0},
		{"iam", "GET", "/?Action=ListUsers&Version=2010-05-08", "", "", "ListUsers", "", 0},
		{"iam", "POST", "/", "", "Action=Foo&Version=2010-05-08", "Foo", "InvalidAction", 400},
		{"iam", "POST", "/", "", "Action=ListUsers", "ListUsers", "InvalidAction", 400},
		{"iam", "POST", "/", "", "Action=ListUsers&Version=2011-06-15", "ListUsers", "InvalidAction", 400},
		{"sts", "GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "", "", "GetCallerIdentity", "", 0},
		{"iam", "POST", "/", "", "Version=2010-05-08", "", "MissingAction", 400},
		{"ec2", "POST", "/", "", "Action=CreateVolumes", "CreateVolumes", "InvalidAction", 400},
		{"ebs", "GET", "/snapshots/snap-1/blocks", "", "", "ListSnapshotBlocks", "", 0},
		{"ebs", "GET", "/snapshots/snap-1/blocks/7?blockToken=x", "", "", "GetSnapshotBlock", "", 0},
		{"ebs", "PUT", "/snapshots/snap-1/blocks/7", "", "", "PutSnapshotBlock", "", 0},
		{"ebs", "POST", "/snapshots", "", "{}", "StartSnapshot", "", 0},
		{"ebs", "GET", "/snapshots", "", "", "", "UnknownOperationException", 404},
		{"ebs", "GET", "/snapshots//blocks", "", "", "", "UnknownOperationException", 404},
		{"ds-data", "POST", "/Users/CreateUser?DirectoryId=d-1", "", "{}", "CreateUser", "", 0},
	} {
		s := service(t, c.svc)
		r := httptest.NewRequest(c.method, c.target, nil)
		if c.header != "" {
			r.Header.Set("X-Amz-Target", c.header)
		}
		op, err := s.Detect(r, []byte(c.body))
		reply := ErrorReply{}
		if err != nil {
			reply = s.Resolve(err)
		}
		if op != c.op || reply.Code != c.code || reply.Status != c.status {
			t.Errorf("%s: Detect(%s %s %q %q) = %q, %s %d, want %q, %s %d", c.svc, c.method, c.target, c.header, c.body, op, reply.Code, reply.Status, c.op, c.code, c.status)
		}
		if g := Guess(r, []byte(c.body)); c.code == "" && g != s {
			t.Errorf("Guess(%s %s %q %q) = %v, want %s", c.method, c.target, c.header, c.body, g, c.svc)
		}
	}
}

// TestQueryInJSON: a client of a Query service that asks for JSON gets it.
func TestQueryInJSON(t *testing.T) {
	s := service(t, "sts")
	reply := func(accept string, err error) (string, string) {
		r := httptest.NewRequest("GET", "/?Action=AssumeRole&Version=2011-06-15", nil)
		r.Header.Set("Accept", accept)
		rec := httptest.NewRecorder()
		w := s.Accepting(rec, r)
		if err != nil {
			err = s.EncodeError(w, "r-1", err)
		} else {
			err = operation(t, "sts", "AssumeRole").Encode(w, "r-1", &sts.AssumeRoleOutput{AssumedRoleUser: &ststypes.AssumedRoleUser{Arn: aws.String("arn"), AssumedRoleId: aws.String("AROA:\"s")},
				Credentials: &ststypes.Credentials{AccessKeyId: aws.String("ASIA"), Expiration: aws.Time(time.Unix(1700000000, 0)), SecretAccessKey: aws.String("x"), SessionToken: aws.String("y")}})
		}
		if err != nil {
			t.Fatal(err)
		}
		return rec.Header().Get("Content-Type"), rec.Body.String()
	}
	if ct, got := reply("application/json", nil); ct != "application/json" || got != `{"AssumeRoleResponse":{"AssumeRoleResult":{"AssumedRoleUser":{"Arn":"arn","AssumedRoleId":"AROA:\"s"},"Credentials":{"AccessKeyId":"ASIA","Expiration":1700000000,"SecretAccessKey":"x","SessionToken":"y"}},"ResponseMetadata":{"RequestId":"r-1"}}}` {
		t.Errorf("JSON asked for: %s %s", ct, got)
	}
	if ct, got := reply("application/json", &Error{Kind: AccessDenied, Message: "no"}); ct != "application/json" || got != `{"Error":{"Code":"AccessDenied","Message":"no","Type":"Sender"},"RequestId":"r-1"}` {
		t.Errorf("an error in JSON: %s %s", ct, got)
	}
	if ct, got := reply("*/*", nil); ct != "text/xml" || !strings.HasPrefix(got, "<AssumeRoleResponse") {
		t.Errorf("not asked for: %s %s", ct, got)
	}
}

func TestSerializationErrors(t *testing.T) {
	op := operation(t, "kms", "GenerateDataKey")
	for _, c := range []struct{ body, want string }{
		{`{"KeyId":1}`, "NUMBER_VALUE can not be converted to a String (at KeyId)"},
		{`{"KeyId":true}`, "TRUE_VALUE can not be converted to a String"},
		{`{"KeyId":{}}`, "Start of structure or map found where not expected."},
		{`{"NumberOfBytes":"32"}`, "STRING_VALUE can not be converted to an Integer"},
		{`{"NumberOfBytes":1.5}`, "can not be converted to an Integer"},
		{`{"NumberOfBytes":4294967296}`, "out of the range of an Integer"},
		{`{"NumberOfBytes":1e400}`, "can not be converted"},
		{`{"GrantTokens":"x"}`, "Expected list or null"},
		{`{"GrantTokens":[1]}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"GrantTokens":[null]}`, "null is not allowed"},
		{`{"EncryptionContext":[]}`, "Start of structure"},
		{`{"EncryptionContext":{"a":1}}`, "(at EncryptionContext.a)"},
		{`{"EncryptionContext":{"a":null}}`, "null is not allowed"},
		{`{"DryRun":"true"}`, "STRING_VALUE can not be converted to a Boolean"},
		{`{"Recipient":{"AttestationDocument":"%%%"}}`, "not valid base64 (at Recipient.AttestationDocument)"},
		{`{"KeyId":"x"`, "ends too early"},
		{`{"KeyId":"x"}}`, "unexpected character"},
		{`{"KeyId":"x",}`, "unexpected character"},
		{`{"KeyId" "x"}`, "unexpected character"},
		{`{"KeyId":"\x"}`, "unexpected character"},
		{"{\"KeyId\":\"a\nb\"}", "unexpected character"},
		{"{\"KeyId\":\"\xff\"}", "not valid UTF-8"},
		{`[]`, "Start of structure"},
		{`"x"`, "STRING_VALUE"},
		{`nul`, "unexpected character"},
		{`{"NumberOfBytes":01}`, "unexpected character"},
		{`{"NumberOfBytes":-}`, "unexpected character"},
		{`{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "levels deep"},
	} {
		_, err := decodeInto(t, op, c.body, new(kms.GenerateDataKeyInput))
		r := op.Service.Resolve(err)
		if err == nil || r.Code != "SerializationException" || r.Status != 400 || !strings.Contains(r.Message, c.want) {
			t.Errorf("Decode(%.60s) = %s %d %q, want SerializationException 400 with %q", c.body, r.Code, r.Status, r.Message, c.want)
		}
	}
}

// What encoding/json reads as strings and numbers, we read equally.
func TestJSONAgainstStandard(t *testing.T) {
	op := operation(t, "kms", "GenerateDataKey")
	for _, s := range []string{`"a\"\\\/\b\f\n\r\tz"`, `"\u00e9\u4e16\ud834\udd1e"`, `"\ud834"`, `"\ud834x"`, `"\ud834\u0041"`, `"\udd1e"`, `"世界𝄞"`, `""`, "\"\u007f\u2028\""} {
		var want string
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			t.Fatal(err)
		}
		in := new(kms.GenerateDataKeyInput)
		if err := op.Parse(httptest.NewRequest("POST", "/", nil), []byte(" {\t\"KeyId\" : "+s+"\r\n} "), in, nil); err != nil || in.KeyId == nil || *in.KeyId != want {
			t.Errorf("KeyId %s = %v, %v, want %q", s, in.KeyId, err, want)
		}
		if b := appendJSONString(nil, want); true {
			var back string
			if err := json.Unmarshal(b, &back); err != nil || back != want {
				t.Errorf("encoded %q as %s", want, b)
			}
		}
	}
	in := new(kms.GenerateDataKeyInput)
	unknown, err := decodeInto(t, op, `{"KeyId":"a","KeyId":"b","NumberOfBytes":3.2e1,"DryRun":null,"Foo":{"a":[1,{"b":"}"}]},"Recipient":{"Bar":1.0E+2},"EncryptionContext":{}}`, in)
	if err != nil || *in.KeyId != "b" || *in.NumberOfBytes != 32 || in.DryRun != nil || in.EncryptionContext == nil {
		t.Errorf("got %+v, %v", in, err)
	}
	if want := []string{"Foo", "Recipient.Bar"}; !reflect.DeepEqual(unknown, want) {
		t.Errorf("unknown members %q, want %q", unknown, want)
	}
}

func TestTimestamps(t *testing.T) {
	op := operation(t, "cloudtrail", "LookupEvents")
	for s, want := range map[string]int64{"1700000000": 1700000000000, "1.7E9": 1700000000000, "1700000000.123": 1700000000123, "0": 0, "-1.5": -1500} {
		in := new(cloudtrail.LookupEventsInput)
		if _, err := decodeInto(t, op, `{"StartTime":`+s+`}`, in); err != nil || in.StartTime == nil || in.StartTime.UnixMilli() != want {
			t.Errorf("StartTime %s = %v, %v, want %d ms", s, in.StartTime, err, want)
		}
	}
	for ms, want := range map[int64]string{1700000000000: "1700000000", 1700000000123: "1700000000.123", -1500: "-1.500", 5: "0.005"} {
		if got := string(appendEpoch(nil, time.UnixMilli(ms))); got != want {
			t.Errorf("%d ms = %s, want %s", ms, got, want)
		}
	}
	for s, want := range map[string]string{"2026-11-24T10:00:00Z": "2026-11-24T10:00:00Z", "2026-11-24T11:00:00.5+01:00": "2026-11-24T10:00:00.5Z", "2026-11-24": "2026-11-24T00:00:00Z"} {
		if got, err := parseTime(s); err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("parseTime(%q) = %v, %v, want %s", s, got, err, want)
		}
	}
}

func TestValidation(t *testing.T) {
	long := strings.Repeat("x", 2049)
	for _, c := range []struct {
		svc, op, body string
		in            any
		code, want    string
	}{
		{"kms", "DescribeKey", `{}`, new(kms.DescribeKeyInput), "ValidationException",
			"1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null"},
		{"kms", "DescribeKey", `{"KeyId":""}`, new(kms.DescribeKeyInput), "ValidationException",
			"1 validation error detected: Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"kms", "DescribeKey", `{"KeyId":"` + long + `"}`, new(kms.DescribeKeyInput), "ValidationException",
			"' at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048"},
		{"kms", "CreateAlias", `{"AliasName":"alias/a b","TargetKeyId":"k"}`, new(kms.CreateAliasInput), "ValidationException",
			"1 validation error detected: Value 'alias/a b' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"},
		{"kms", "CreateKey", `{"KeyUsage":"FOO"}`, new(kms.CreateKeyInput), "ValidationException",
			"1 validation error detected: Value 'FOO' at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set: [SIGN_VERIFY, ENCRYPT_DECRYPT, GENERATE_VERIFY_MAC, KEY_AGREEMENT, ENCAPSULATE_DECAPSULATE]"},
		{"kms", "GenerateDataKey", `{"KeyId":"k","NumberOfBytes":1025}`, new(kms.GenerateDataKeyInput), "ValidationException",
			"1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"},
		{"kms", "GenerateDataKey", `{"NumberOfBytes":0}`, new(kms.GenerateDataKeyInput), "ValidationException",
			"2 validation errors detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null; Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"kms", "Encrypt", `{"KeyId":"k","Plaintext":""}`, new(kms.EncryptInput), "ValidationException",
			"1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"kms", "CreateGrant", `{"KeyId":"k","GranteePrincipal":"p","Operations":["Decrypt","Foo"]}`, new(kms.CreateGrantInput), "ValidationException",
			"1 validation error detected: Value '[Decrypt, Foo]' at 'operations' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: ["},
		{"kms", "TagResource", `{"KeyId":"k","Tags":[{"TagKey":"a","TagValue":"b"},{"TagKey":"","TagValue":"b"}]}`, new(kms.TagResourceInput), "ValidationException",
			"1 validation error detected: Value '' at 'tags.2.member.tagKey' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"kms", "Decrypt", `{"CiphertextBlob":"AA==","GrantTokens":["` + strings.Repeat("t", 8193) + `"]}`, new(kms.DecryptInput), "ValidationException",
			"at 'grantTokens' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 8192, Member must have length greater than or equal to 1]"},
		{"workspaces", "CreateWorkspaces", `{"Workspaces":[]}`, new(workspaces.CreateWorkspacesInput), "ValidationException",
			"Value '[]' at 'workspaces' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"workspaces", "TerminateWorkspaces", `{"TerminateWorkspaceRequests":[{}]}`, new(workspaces.TerminateWorkspacesInput), "ValidationException",
			"Value null at 'terminateWorkspaceRequests.1.member.workspaceId' failed to satisfy constraint: Member must not be null"},
		{"iam", "CreateUser", `Action=CreateUser&UserName=a+b`, new(iam.CreateUserInput), "ValidationError",
			"The specified value for userName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-"},
		{"iam", "CreateUser", `Action=CreateUser`, new(iam.CreateUserInput), "ValidationError",
			"1 validation error detected: Value at 'userName' failed to satisfy constraint: Member must not be null"},
		{"iam", "CreateUser", `Action=CreateUser&UserName=ab&Path=x`, new(iam.CreateUserInput), "ValidationError",
			"The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters."},
		{"iam", "UntagRole", `Action=UntagRole&RoleName=r&TagKeys.member.1=no!`, new(iam.UntagRoleInput), "ValidationError",
			`1 validation error detected: Value at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+, Member must not be null]`},
		{"iam", "ChangePassword", `Action=ChangePassword&OldPassword=&NewPassword=abcdef`, new(iam.ChangePasswordInput), "ValidationError",
			"Value at 'oldPassword' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"sts", "AssumeRole", `Action=AssumeRole&RoleSessionName=x&RoleArn=arn:aws:iam::111122223333:role/x&DurationSeconds=1`, new(sts.AssumeRoleInput), "ValidationError",
			"Value '1' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
	} {
		op := operation(t, c.svc, c.op)
		_, err := decodeInto(t, op, c.body, c.in)
		r := op.Service.Resolve(err)
		if err == nil || r.Code != c.code || r.Status != 400 || !strings.Contains(r.Message, c.want) {
			t.Errorf("%s %s(%.80s) = %s %d\n got %q\nwant %q", c.svc, c.op, c.body, r.Code, r.Status, r.Message, c.want)
		}
	}
}

// Every enum value the SDK knows passes, also when the model is older.
func TestNewerEnums(t *testing.T) {
	op := operation(t, "kms", "CreateKey")
	for _, spec := range kmstypes.KeySpec("").Values() {
		if err := op.Validate(&kms.CreateKeyInput{KeySpec: spec}); err != nil {
			t.Errorf("KeySpec %s: %v", spec, err)
		}
	}
	sh := enumShape(reflect.TypeFor[kmstypes.KeyUsageType](), &shape{name: "KeyUsageType", enum: "SIGN_VERIFY,ONLY_IN_MODEL"})
	for e, want := range map[string]bool{"SIGN_VERIFY": true, "ONLY_IN_MODEL": true, "ENCRYPT_DECRYPT": true, "FOO": false, "": false, "SIGN_VERIFY,ONLY_IN_MODEL": false} {
		if got := enumHas(sh.enum, e); got != want {
			t.Errorf("enum %s has %q: %v, want %v", sh.enum, e, got, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		svc, shape, value string
		want              bool
	}{
		{"ds", "AliasName", "corp-1", true}, {"ds", "AliasName", "d-corp", false}, {"ds", "AliasName", "corp-", false}, {"ds", "AliasName", "a--b", true},
		{"ds", "CustomerUserName", "jane doe", true}, {"ds", "CustomerUserName", "a@b", false}, {"ds", "CustomerUserName", `a\b`, false}, {"ds", "CustomerUserName", "a\nb", false},
		{"ds", "Password", "Passw0rdX", true}, {"ds", "Password", "password1", false}, {"ds", "Password", "pass-w0rd", true}, {"ds", "Password", "PASS-WORd", true},
		{"ds", "Password", "P0-x", false}, {"ds", "Password", strings.Repeat("aA1", 22), false}, {"ds", "Password", "lower UPPER", false},
		{"ds", "TrustPassword", "a1!b c", true}, {"ds", "TrustPassword", "a\tb", false},
		{"iam", "accountAliasType", "my-corp", true}, {"iam", "accountAliasType", "my--corp", false}, {"iam", "accountAliasType", "-my", false},
		{"iam", "userNameType", "a.b@c", true}, {"iam", "userNameType", "a b", false}, {"iam", "userNameType", "a\n", false},
		{"iam", "policyDocumentType", "{\n\t\"a\": \"\u00e9\"}", true}, {"iam", "policyDocumentType", "\u4e16", false},
		{"ebs", "SnapshotId", "snap-0123456789abcdef0", true}, {"ebs", "SnapshotId", "snap_x", false},
	} {
		sh := service(t, c.svc).table().shapes[c.shape]
		if sh == nil || sh.pattern == "" {
			t.Errorf("%s has no shape %s with a pattern", c.svc, c.shape)
			continue
		}
		if got := sh.matches(c.value); got != c.want {
			t.Errorf("%s %s %q matches %s: %v, want %v", c.svc, c.shape, c.value, sh.pattern, got, c.want)
		}
	}
}

func TestFormErrors(t *testing.T) {
	iamOp, stsOp := operation(t, "iam", "TagUser"), operation(t, "sts", "AssumeRole")
	for _, c := range []struct {
		op   *OperationModel
		in   any
		body string
		code string
	}{
		{iamOp, new(iam.TagUserInput), "UserName=a&Tags.member.x.Key=k", "MalformedInput"},
		{iamOp, new(iam.TagUserInput), "UserName.a=b", "MalformedInput"},
		{iamOp, new(iam.TagUserInput), "UserName=%zz", "MalformedQueryString"},
		{iamOp, new(iam.TagUserInput), "UserName=%ff", "MalformedInput"},
		{iamOp, new(iam.TagUserInput), "Tags=x", "MalformedInput"},
		{iamOp, new(iam.TagUserInput), strings.Repeat("a.", 40) + "a=b", "MalformedInput"},
		{stsOp, new(sts.AssumeRoleInput), "DurationSeconds=ten", "MalformedInput"},
		{stsOp, new(sts.AssumeRoleInput), "DurationSeconds=99999999999", "MalformedInput"},
	} {
		_, err := decodeInto(t, c.op, c.body, c.in)
		if r := c.op.Service.Resolve(err); err == nil || r.Code != c.code {
			t.Errorf("%s(%.60s) = %s %q, want %s", c.op.Name, c.body, r.Code, r.Message, c.code)
		}
	}
	in := new(iam.TagUserInput)
	unknown, err := decodeInto(t, iamOp, "Action=TagUser&Version=x&UserName=u&Tags.member.10.Key=b&Tags.member.10.Value=&Tags.member.2.Key=a&Tags.member.2.Value=1&Tags.member.2.Color=red&Foo=1", in)
	if err != nil || len(in.Tags) != 2 || *in.Tags[0].Key != "a" || *in.Tags[1].Key != "b" || *in.Tags[1].Value != "" {
		t.Errorf("TagUser = %+v, %v", in, err)
	}
	if len(unknown) != 2 {
		t.Errorf("unknown %q, want Foo and Tags.member.2.Color", unknown)
	}
}

func TestKindReplies(t *testing.T) {
	for _, c := range []struct {
		err  error
		want map[string]string
	}{
		{sigv4.ErrMissing, map[string]string{"kms": "MissingAuthenticationTokenException 400", "sts": "MissingAuthenticationToken 403", "ec2": "MissingAuthenticationToken 403", "ebs": "MissingAuthenticationTokenException 403"}},
		{sigv4.ErrUnknownAccessKey, map[string]string{"kms": "UnrecognizedClientException 400", "sts": "InvalidClientTokenId 403", "ec2": "AuthFailure 401", "ebs": "UnrecognizedClientException 403"}},
		{sigv4.ErrExpiredToken, map[string]string{"kms": "ExpiredTokenException 400", "iam": "ExpiredToken 403", "ec2": "RequestExpired 400"}},
		{&sigv4.Error{Code: sigv4.SignatureDoesNotMatch}, map[string]string{"kms": "InvalidSignatureException 400", "iam": "SignatureDoesNotMatch 403", "ec2": "AuthFailure 401"}},
		{Denied("no"), map[string]string{"kms": "AccessDeniedException 400", "iam": "AccessDenied 403", "ec2": "UnauthorizedOperation 403", "ds-data": "AccessDeniedException 403"}},
		{RequestTooLarge(10), map[string]string{"kms": "RequestEntityTooLargeException 413", "iam": "RequestEntityTooLarge 413"}},
		{UnsupportedMembers("RunInstances", "X", "Y"), map[string]string{"kms": "UnsupportedOperationException 400", "ec2": "UnsupportedOperation 400", "workspaces": "OperationNotSupportedException 400"}},
		{errors.New("disk on fire"), map[string]string{"kms": "InternalFailure 500", "ec2": "InternalError 500"}},
	} {
		for svc, want := range c.want {
			r := service(t, svc).Resolve(c.err)
			if got := r.Code + " " + json.Number(itoa(r.Status)).String(); got != want {
				t.Errorf("%s: Resolve(%v) = %s, want %s", svc, c.err, got, want)
			}
			if strings.Contains(r.Message, "fire") {
				t.Errorf("%s: the message %q tells an internal cause", svc, r.Message)
			}
		}
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestErrorBodies(t *testing.T) {
	for _, c := range []struct {
		svc  string
		err  error
		body string
	}{
		{"kms", &kmstypes.InvalidCiphertextException{}, `{"__type":"InvalidCiphertextException"}`},
		{"kms", &kmstypes.NotFoundException{Message: aws.String(`Key "x" <é>`)}, `{"__type":"NotFoundException","message":"Key \"x\" <é>"}`},
		{"workspaces", &wstypes.ResourceNotFoundException{Message: aws.String("m"), ResourceId: aws.String("ws-1")}, `{"__type":"ResourceNotFoundException","message":"m","ResourceId":"ws-1"}`},
		{"iam", &smithy.GenericAPIError{Code: "NoSuchEntity", Message: "a & b"}, `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>a &amp; b</Message></Error><RequestId>r-1</RequestId></ErrorResponse>`},
		{"ec2", &smithy.GenericAPIError{Code: "InvalidVolume.NotFound", Message: "no"}, xmlHeader + `<Response><Errors><Error><Code>InvalidVolume.NotFound</Code><Message>no</Message></Error></Errors><RequestID>r-1</RequestID></Response>`},
		{"ds-data", &dsdata.ThrottlingException{Message: aws.String("slow"), RetryAfterSeconds: aws.Int32(3)}, `{"__type":"ThrottlingException","Message":"slow"}`},
	} {
		w := httptest.NewRecorder()
		if err := service(t, c.svc).EncodeError(w, "r-1", c.err); err != nil {
			t.Fatal(err)
		}
		if got := w.Body.String(); got != c.body {
			t.Errorf("%s: %T\n got %s\nwant %s", c.svc, c.err, got, c.body)
		}
		if w.Header().Get("X-Amzn-Requestid") != "r-1" {
			t.Errorf("%s: no request id in the headers", c.svc)
		}
		if c.svc == "ds-data" && (w.Header().Get("Retry-After") != "3" || w.Header().Get("X-Amzn-Errortype") != "ThrottlingException") {
			t.Errorf("headers %v, want Retry-After and X-Amzn-Errortype", w.Header())
		}
	}
}

func TestSetMembers(t *testing.T) {
	in := &workspaces.CreateWorkspacesInput{Workspaces: []wstypes.WorkspaceRequest{{
		BundleId: aws.String("b"), RootVolumeEncryptionEnabled: aws.Bool(false), Tags: []wstypes.Tag{},
		WorkspaceProperties: &wstypes.WorkspaceProperties{RunningMode: wstypes.RunningModeAutoStop, Protocols: []wstypes.Protocol{"PCOIP"}},
	}}}
	want := []string{"Workspaces.BundleId", "Workspaces.RootVolumeEncryptionEnabled", "Workspaces.WorkspaceProperties.Protocols", "Workspaces.WorkspaceProperties.RunningMode"}
	if got := SetMembers(in); !reflect.DeepEqual(got, want) {
		t.Errorf("SetMembers = %q, want %q", got, want)
	}
	if got := UnsupportedSet(in, "Workspaces.BundleId", "Workspaces.RootVolumeEncryptionEnabled", "Workspaces.WorkspaceProperties.RunningMode"); !reflect.DeepEqual(got, want[2:3]) {
		t.Errorf("UnsupportedSet = %q, want %q", got, want[2:3])
	}
	if got := RefusedSet(in, "Workspaces.WorkspaceProperties", "Foo"); !reflect.DeepEqual(got, want[2:]) {
		t.Errorf("RefusedSet = %q, want %q", got, want[2:])
	}
	if got := UnsupportedSet(in, "Workspaces"); got != nil {
		t.Errorf("UnsupportedSet = %q, want none", got)
	}
}

func TestAppendRecord(t *testing.T) {
	op := operation(t, "kms", "Encrypt")
	b, err := op.AppendRecord(nil, &kms.EncryptInput{KeyId: aws.String("k"), Plaintext: []byte("secret"), EncryptionContext: map[string]string{"aws:ebs:id": "vol-1"}, GrantTokens: []string{"t"}}, "GrantTokens")
	if want := `{"keyId":"k","encryptionContext":{"aws:ebs:id":"vol-1"}}`; err != nil || !sameJSON(b, want) {
		t.Errorf("AppendRecord = %s, %v, want %s", b, err, want)
	}
	iamOp := operation(t, "iam", "ChangePassword")
	b, err = iamOp.AppendRecord(nil, &iam.ChangePasswordInput{OldPassword: aws.String("a"), NewPassword: aws.String("b")})
	if err != nil || strings.Contains(string(b), `"a"`) || !strings.Contains(string(b), hidden) {
		t.Errorf("AppendRecord = %s, %v, want the passwords hidden", b, err)
	}
	out := operation(t, "kms", "CreateKey")
	b, err = out.AppendRecord(nil, &kms.CreateKeyOutput{KeyMetadata: &kmstypes.KeyMetadata{KeyId: aws.String("k"), AWSAccountId: aws.String("1"), CreationDate: aws.Time(time.Unix(1700000000, 0))}})
	if err != nil || !strings.Contains(string(b), `"Nov 14, 2023, 10:13:20 PM"`) || !strings.Contains(string(b), `"aWSAccountId":"1"`) {
		t.Errorf("AppendRecord = %s, %v", b, err)
	}
}

func sameJSON(a []byte, b string) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func TestStreamHeaders(t *testing.T) {
	put := operation(t, "ebs", "PutSnapshotBlock")
	if !put.StreamingInput() || operation(t, "ebs", "StartSnapshot").StreamingInput() {
		t.Error("StreamingInput is wrong")
	}
	r := httptest.NewRequest("PUT", "/snapshots/snap-1234567890/blocks/7", strings.NewReader("data"))
	r.Header.Set("X-Amz-Checksum", "abc")
	r.Header.Set("X-Amz-Checksum-Algorithm", "SHA256")
	r.Header.Set("X-Amz-Data-Length", "524288")
	in := new(ebs.PutSnapshotBlockInput)
	if err := put.Decode(r, nil, in, nil); err != nil {
		t.Fatal(err)
	}
	if *in.SnapshotId != "snap-1234567890" || *in.BlockIndex != 7 || *in.DataLength != 524288 || in.ChecksumAlgorithm != "SHA256" {
		t.Errorf("got %+v", in)
	}
	r.Header.Set("X-Amz-Data-Length", "many")
	if err := put.Decode(r, nil, in, nil); service(t, "ebs").Resolve(err).Code != "SerializationException" {
		t.Errorf("Decode = %v, want SerializationException", err)
	}
}

func TestXMLText(t *testing.T) {
	if got, want := string(appendXMLText(nil, "a<b>&\"\r\n\x00\xffé\uFFFE")), "a&lt;b&gt;&amp;&quot;&#xD;\n\uFFFD\uFFFDé\uFFFD"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := string(appendJSONFloat(nil, math.Inf(-1), 64)); got != `"-Infinity"` {
		t.Errorf("got %s", got)
	}
}
