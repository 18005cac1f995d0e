package gateway

import (
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/ids"
)

// eventVersion is the version of the CloudTrail record format we write.
const eventVersion = "1.11"

// sources are the event sources that are not SERVICE.amazonaws.com.
var sources = map[string]string{"ds-data": "ds.amazonaws.com"}

// global services keep their records in one region.
func recordRegion(service, region string) string {
	if service == "iam" {
		return "us-east-1"
	}
	return region
}

func (g *Gateway) newRecord(op *api.Operation, c *api.Call, eventID string) *audit.Record {
	source := sources[op.Service]
	if source == "" {
		source = op.Service + ".amazonaws.com"
	}
	name := op.Name
	if op.RecordName != "" {
		name = op.RecordName
	}
	r := &audit.Record{EventVersion: eventVersion, UserIdentity: c.Principal.UserIdentity(), EventTime: audit.Time{Time: c.Time},
		EventSource: source, EventName: name, AWSRegion: recordRegion(op.Service, c.Region), SourceIPAddress: c.SourceIP, UserAgent: c.UserAgent,
		RequestID: c.RequestID, EventID: eventID, ReadOnly: op.ReadOnly, EventType: "AwsApiCall", ManagementEvent: true,
		RecipientAccountID: c.Account, EventCategory: "Management", TLSDetails: c.TLS}
	if by := c.InvokedBy(); by != "" {
		r.UserIdentity.InvokedBy = by
	}
	if c.Principal.FromConsole {
		r.SessionCredentialFromConsole = "true"
	}
	return r
}

// finish completes the record of a call: one for the caller's account, and one
// with the same sharedEventID for each other account whose resources it touched.
func (g *Gateway) finish(op *api.Operation, c *api.Call, in, out any, err error, owners []string) []*audit.Record {
	r := c.Record
	if r.RequestParameters == nil {
		r.RequestParameters = parameters(in, op.Sensitive)
	}
	if err == nil && op.Records && !op.ReadOnly && out != nil && r.ResponseElements == nil {
		r.ResponseElements = parameters(out, op.Sensitive)
	}
	if err != nil {
		r.ErrorCode, r.ErrorMessage = "InternalFailure", err.Error()
		if apiErr, ok := err.(smithy.APIError); ok {
			r.ErrorCode, r.ErrorMessage = apiErr.ErrorCode(), apiErr.ErrorMessage()
		}
		r.ResponseElements = nil
	}
	if op.Audit != nil {
		op.Audit(c, in, out, r)
	}
	records := []*audit.Record{r}
	if len(owners) > 0 {
		r.SharedEventID = ids.UUID()
		for _, account := range owners {
			theirs := *r
			theirs.EventID, theirs.RecipientAccountID = ids.UUID(), account
			if theirs.UserIdentity.Type != string(api.AWSService) {
				theirs.UserIdentity = audit.UserIdentity{Type: "AWSAccount", PrincipalID: r.UserIdentity.PrincipalID, AccountID: r.UserIdentity.AccountID, InvokedBy: r.UserIdentity.InvokedBy}
			}
			records = append(records, &theirs)
		}
	}
	return records
}

// secretMembers never show in a record, at any depth, whatever the operation.
var secretMembers = map[string]bool{
	"Plaintext": true, "CiphertextBlob": true, "PrivateKeyPlaintext": true, "PrivateKeyCiphertextBlob": true, "EncryptedKeyMaterial": true,
	"ImportToken": true, "GrantToken": true, "GrantTokens": true, "Message": true, "Signature": true, "Mac": true, "SharedSecret": true, "AttestationDocument": true,
	"SecretAccessKey": true, "SessionToken": true, "Password": true, "NewPassword": true, "OldPassword": true, "Base32StringSeed": true, "QRCodePNG": true,
	"AuthenticationCode1": true, "AuthenticationCode2": true, "TokenCode": true, "SAMLAssertion": true, "WebIdentityToken": true,
	"KeyStorePassword": true, "RawSecretAccessKey": true, "XksProxyAuthenticationCredential": true, "UserData": true, "BlockData": true,
	"ResultMetadata": true, "NextToken": false,
}

// parameters is a struct as CloudTrail shows it: member names in lower camel
// case, members that were not given left out, secrets and binary data left out.
func parameters(v any, sensitive []string) map[string]any {
	rv := reflect.ValueOf(v)
	for rv.Kind() == reflect.Pointer {
		if rv.IsNil() {
			return nil
		}
		rv = rv.Elem()
	}
	if rv.Kind() != reflect.Struct {
		return nil
	}
	m, _ := shown(rv, sensitive).(map[string]any)
	if len(m) == 0 {
		return nil
	}
	return m
}

var timeType = reflect.TypeFor[time.Time]()

func shown(v reflect.Value, sensitive []string) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if v.Elem().Kind() == reflect.Bool {
			return v.Elem().Bool() // given, and false
		}
		return shown(v.Elem(), sensitive)
	case reflect.Struct:
		if v.Type() == timeType {
			return v.Interface().(time.Time).UTC().Format(time.RFC3339)
		}
		m := map[string]any{}
		for _, f := range membersOf(v.Type()) {
			if contains(sensitive, f.name) {
				continue
			}
			if x := shown(v.Field(f.index), sensitive); x != nil {
				m[f.shown] = x
			}
		}
		return m
	case reflect.Slice:
		if v.Len() == 0 || v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = shown(v.Index(i), sensitive)
		}
		return out
	case reflect.Map:
		if v.Len() == 0 {
			return nil
		}
		if m, ok := v.Interface().(map[string]string); ok {
			return m // such as an encryption context
		}
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = shown(it.Value(), sensitive)
		}
		return m
	case reflect.String:
		if v.Len() == 0 {
			return nil
		}
		return v.String()
	case reflect.Bool:
		if !v.Bool() {
			return nil
		}
		return true
	case reflect.Int32, reflect.Int64, reflect.Int:
		return v.Int()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// member is a member of a struct that may show in a record.
type member struct {
	index       int
	name, shown string
}

var members sync.Map // reflect.Type → []member

func membersOf(t reflect.Type) []member {
	if m, ok := members.Load(t); ok {
		return m.([]member)
	}
	var list []member
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && !f.Anonymous && !secretMembers[f.Name] {
			list = append(list, member{i, f.Name, lowerCamel(f.Name)})
		}
	}
	members.Store(t, list)
	return list
}

// lowerCamel turns KeyId into keyId and DNSName into dNSName, as CloudTrail does.
func lowerCamel(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i == 0 {
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
