package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/wire"
)

var root = aws.Credentials{AccessKeyID: apptest.RootAccessKeyID, SecretAccessKey: apptest.RootSecret}

// raw is a signed request with a body as it stands.
func raw(t *testing.T, base, service, method, path string, header map[string]string, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	sign(t, r, root, service)
	return r
}

func rawJSON(t *testing.T, base, service, target, body string) *http.Request {
	return raw(t, base, service, http.MethodPost, "/", map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}, body)
}

func rawForm(t *testing.T, base, service, body string) *http.Request {
	return raw(t, base, service, http.MethodPost, "/", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, body)
}

// TestRequestsThatCannotBeRead: what is wrong with a request is answered with the
// error that its protocol documents.
func TestRequestsThatCannotBeRead(t *testing.T) {
	s := apptest.New(t)
	kms := func(op, body string) *http.Request { return rawJSON(t, s.URL, "kms", "TrentService."+op, body) }
	iam := func(body string) *http.Request { return rawForm(t, s.URL, "iam", body) }
	ec2 := func(body string) *http.Request { return rawForm(t, s.URL, "ec2", body) }
	ebs := func(method, path, body string) *http.Request {
		return raw(t, s.URL, "ebs", method, path, map[string]string{"Content-Type": "application/json"}, body)
	}
	const iamVersion, ec2Version = "&Version=2010-05-08", "&Version=2016-11-15"
	huge := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name   string
		r      *http.Request
		status int
		say    []string // all of these
	}{
		{"awsJson, unknown operation", kms("Defenestrate", "{}"), 400, []string{"UnknownOperationException", "Defenestrate"}},
		{"awsJson, no operation", rawJSON(t, s.URL, "kms", "", "{}"), 400, []string{"UnknownOperationException"}},
		{"awsJson, another service's operation", rawJSON(t, s.URL, "kms", "WorkspacesService.DescribeWorkspaces", "{}"), 400, []string{"UnknownOperationException"}},
		{"awsJson, wrong type", kms("DescribeKey", `{"KeyId": 5}`), 400, []string{"SerializationException", "KeyId"}},
		{"awsJson, wrong type of a nested member", kms("CreateKey", `{"Tags": [{"TagKey": ["k"]}]}`), 400, []string{"SerializationException", "TagKey"}},
		{"awsJson, a list for a structure", kms("DescribeKey", `[]`), 400, []string{"SerializationException"}},
		{"awsJson, bad JSON", kms("DescribeKey", `{"KeyId": "a`), 400, []string{"SerializationException"}},
		{"awsJson, two documents", kms("DescribeKey", `{"KeyId": "a"}{}`), 400, []string{"SerializationException"}},
		{"awsJson, bad UTF-8", kms("DescribeKey", "{\"KeyId\": \"\xff\xfe\"}"), 400, []string{"SerializationException"}},
		{"awsJson, bad base64", kms("Decrypt", `{"CiphertextBlob": "*"}`), 400, []string{"SerializationException", "CiphertextBlob"}},
		{"awsJson, body too large", kms("DescribeKey", `{"KeyId": "`+huge+`"}`), 413, []string{"RequestEntityTooLargeException"}},
		{"awsJson, required member missing", kms("DescribeKey", `{}`), 400, []string{"ValidationException", "keyId"}},
		{"awsJson, not of the enum", kms("CreateKey", `{"KeySpec": "ROT13"}`), 400, []string{"ValidationException", "keySpec"}},
		{"awsJson, a member that is not supported", kms("GenerateRandom", `{"NumberOfBytes": 8, "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": "AAAA"}}`), 400, []string{"Recipient"}},
		{"awsJson, a member that nobody knows", kms("GenerateRandom", `{"NumberOfBytes": 8, "Flavour": "mint"}`), 200, []string{"Plaintext"}},

		{"Query, a reply in JSON", raw(t, s.URL, "sts", "POST", "/", map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}, "Action=GetCallerIdentity&Version=2011-06-15"),
			200, []string{`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"`, `"ResponseMetadata":{"RequestId":"`}},
		{"Query, an error in JSON", raw(t, s.URL, "iam", "POST", "/", map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}, "Action=GetUser&UserName=nobody"+iamVersion),
			404, []string{`{"Error":{"Code":"NoSuchEntity","Message":"The user with name nobody cannot be found.","Type":"Sender"},"RequestId":"`}},
		{"Query, no version", iam("Action=ListUsers"), 400, []string{"InvalidAction", "Could not find operation ListUsers for version NO_VERSION_SPECIFIED"}},
		{"Query, another version", iam("Action=ListUsers&Version=2009-01-01"), 400, []string{"InvalidAction", "Could not find operation ListUsers for version 2009-01-01"}},
		{"Query, unknown operation", iam("Action=Defenestrate" + iamVersion), 400, []string{"InvalidAction", "Defenestrate"}},
		{"Query, no operation", iam("Version=2010-05-08"), 400, []string{"MissingAction"}},
		{"Query, wrong type", iam("Action=ListUsers&MaxItems=many" + iamVersion), 400, []string{"MalformedInput", "MaxItems"}},
		{"Query, bad form", iam("Action=ListUsers&PathPrefix=%zz" + iamVersion), 400, []string{"MalformedQueryString"}},
		{"Query, bad UTF-8", iam("Action=ListUsers&PathPrefix=/\xff/" + iamVersion), 400, []string{"MalformedInput"}},
		{"Query, bad UTF-8, escaped", iam("Action=ListUsers&PathPrefix=%2F%FF%2F" + iamVersion), 400, []string{"M"}},
		{"Query, body too large", iam("Action=ListUsers&PathPrefix=" + huge + iamVersion), 413, []string{"RequestEntityTooLarge"}},
		{"Query, required member missing", iam("Action=CreateUser" + iamVersion), 400, []string{"ValidationError", "userName"}},
		{"Query, a member that is not supported", iam("Action=SimulateCustomPolicy&ResourceHandlingOption=x&ActionNames.member.1=iam:GetUser&PolicyInputList.member.1=" +
			url.QueryEscape(`{"Version":"2012-10-17","Statement":[]}`) + iamVersion), 400, []string{"ValidationError", "ResourceHandlingOption"}},
		{"Query, a member that nobody knows", iam("Action=ListUsers&Flavour=mint" + iamVersion), 200, []string{"ListUsersResult"}},

		{"EC2, unknown operation", ec2("Action=Defenestrate" + ec2Version), 400, []string{"InvalidAction", "Defenestrate"}},
		{"EC2, no operation", ec2("Version=2016-11-15"), 400, []string{"MissingAction"}},
		{"EC2, wrong type", ec2("Action=DescribeVolumes&MaxResults=many" + ec2Version), 400, []string{"InvalidParameterValue"}},
		{"EC2, bad form", ec2("Action=DescribeVolumes&NextToken=%zz" + ec2Version), 400, []string{"MalformedQueryString"}},
		{"EC2, bad UTF-8", ec2("Action=DescribeVolumes&NextToken=\xff" + ec2Version), 400, []string{"InvalidParameterValue"}},
		{"EC2, body too large", ec2("Action=DescribeVolumes&NextToken=" + huge + ec2Version), 413, []string{"RequestEntityTooLarge"}},
		{"EC2, required member missing", ec2("Action=DeleteVolume" + ec2Version), 400, []string{"MissingParameter"}},
		{"EC2, a member that is not supported", ec2("Action=CreateVolume&Size=1&AvailabilityZone=us-west-2a&OutpostArn=arn:aws:outposts:us-west-2:111122223333:outpost/op-0123456789abcdef0" + ec2Version), 400, []string{"UnsupportedOperation", "OutpostArn"}},
		{"EC2, a member that nobody knows", ec2("Action=DescribeVolumes&Flavour=mint" + ec2Version), 400, []string{"UnknownParameter", "Flavour"}},

		{"REST-JSON, unknown path", ebs("POST", "/windows", "{}"), 404, []string{"UnknownOperationException"}},
		{"REST-JSON, wrong method", ebs("DELETE", "/snapshots", ""), 404, []string{"UnknownOperationException"}},
		{"REST-JSON, wrong type", ebs("POST", "/snapshots", `{"VolumeSize": "one"}`), 400, []string{"SerializationException", "VolumeSize"}},
		{"REST-JSON, bad JSON", ebs("POST", "/snapshots", `{"VolumeSize": `), 400, []string{"SerializationException"}},
		{"REST-JSON, bad UTF-8", ebs("POST", "/snapshots", "{\"VolumeSize\": 1, \"Description\": \"\xff\"}"), 400, []string{"SerializationException"}},
		{"REST-JSON, body too large", ebs("POST", "/snapshots", `{"Description": "`+strings.Repeat(huge, 4)+`"}`), 413, []string{"RequestEntityTooLargeException"}},
		{"REST-JSON, required member missing", ebs("POST", "/snapshots", `{}`), 400, []string{"ValidationException"}},
	} {
		status, body := do(t, c.r)
		if status != c.status {
			t.Errorf("%s: %d %.300s, want status %d", c.name, status, body, c.status)
			continue
		}
		for _, say := range c.say {
			if !strings.Contains(body, say) {
				t.Errorf("%s: %d %.300s, want it to say %s", c.name, status, body, say)
			}
		}
	}
}

// TestOperationsNotServed: each operation that the API has and this server does
// not is answered with the documented error and leaves a record.
func TestOperationsNotServed(t *testing.T) {
	e := &estate{Server: apptest.New(t), t: t}
	want := map[wire.Protocol]string{wire.JSON: "UnknownOperationException", wire.Query: "InvalidAction", wire.EC2Query: "InvalidAction", wire.RESTJSON: "UnknownOperationException"}
	n := map[string]int{}
	last := map[string]string{}
	for _, svc := range wire.Services() {
		for _, name := range svc.Operations() {
			if op := e.App.Gateway().Operations()[svc.Name][name]; op != nil && !op.Internal {
				continue
			}
			if n[svc.Name]++; n[svc.Name] > 40 {
				continue // one is like the other
			}
			last[svc.Name] = name
			model, _ := svc.Operation(name)
			r := request(t, e.URL, model)
			sign(t, r, root, svc.SigningName)
			status, body := do(t, r)
			if status < 400 || !strings.Contains(body, want[svc.Protocol]) || !strings.Contains(body, name) {
				t.Errorf("%s:%s: %d %.200s, want %s naming it", svc.Name, name, status, body, want[svc.Protocol])
			}
		}
	}
	t.Logf("not served: %v", n)
	if len(n) == 0 {
		t.Skip("every operation of every API is served")
	}
	for service, name := range last {
		if service == "iam" {
			continue // recorded in us-east-1
		}
		var found *audit.Record
		for _, r := range e.events(name) {
			found = &r
		}
		if found == nil || found.ErrorCode == "" {
			t.Errorf("the refusal of %s:%s is not on the record: %+v", service, name, found)
		}
	}
}
