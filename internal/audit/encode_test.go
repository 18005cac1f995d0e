package audit

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func generic(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// Our encoder must say what encoding/json says.
func TestAppendRecordEqualsEncodingJSON(t *testing.T) {
	full := Record{EventVersion: "1.11", EventTime: Time{time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("x", 3600))}, EventName: "Dec\"rypt\\ \n\r\t\x01<&>\u2028\xff日本",
		UserIdentity: UserIdentity{Type: "AssumedRole", PrincipalID: "AROA:s", ARN: "arn", AccountID: "1", AccessKeyID: "ASIA", UserName: "u", InvokedBy: "workspaces.amazonaws.com",
			SessionContext: &SessionContext{SessionIssuer: &SessionIssuer{"Role", "AROA", "arn", "1", "r"}, Attributes: map[string]string{"mfaAuthenticated": "false", "creationDate": "x"}}},
		ErrorCode: "AccessDenied", ErrorMessage: "no", RequestParameters: map[string]any{"a": nil, "b": []any{1, "x", true, 2.5, int64(7), int32(8), uint8(9)}, "c": map[string]string{"k": "v"}, "d": []string{"x", "y"},
			"e": map[string]any{}, "f": []map[string]any{{"z": 1}}, "g": []string(nil), "h": map[string]any(nil), "i": []any(nil), "j": map[string]string(nil), "k": json.Number("12")},
		ResponseElements: map[string]any{"grantId": "x"}, AdditionalEventData: map[string]any{"keyMaterialId": "y"}, RequestID: "r", EventID: "e", ReadOnly: true,
		Resources: []Resource{{"1", "AWS::KMS::Key", "arn:1"}, {"", "", "arn:2"}}, EventType: "AwsApiCall", ManagementEvent: true, RecipientAccountID: "1", ServiceEventDetails: map[string]any{"keyId": "z"}, SharedEventID: "s",
		EventCategory: "Management", TLSDetails: &TLSDetails{"TLSv1.3", "c", "h"}, SessionCredentialFromConsole: "true"}
	for i, r := range []Record{{}, full, {UserIdentity: UserIdentity{SessionContext: &SessionContext{}}}, {UserIdentity: UserIdentity{SessionContext: &SessionContext{Attributes: map[string]string{"a": "b"}}}}} {
		got, err := appendRecord(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(generic(t, got), generic(t, want)) {
			t.Errorf("record %d = %s, want %s", i, got, want)
		}
	}
}

func TestRecordSizeIsBounded(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	r := Record{UserAgent: long, ErrorMessage: "x" + long, ErrorCode: long, RequestParameters: map[string]any{"x": long}, ResponseElements: map[string]any{"x": []string{long}}, AdditionalEventData: map[string]any{"x": long}}
	b, err := appendRecord(nil, &r)
	if err != nil || len(b) > 8<<10 {
		t.Fatalf("a huge record took %d bytes, %v; want under 8 KiB", len(b), err)
	}
	var got Record
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !utf8.ValidString(got.ErrorMessage) || strings.ContainsRune(got.ErrorMessage, utf8.RuneError) || len(got.ErrorMessage) < 1020 {
		t.Errorf("errorMessage was cut to %d bytes, in a character: %v", len(got.ErrorMessage), strings.ContainsRune(got.ErrorMessage, utf8.RuneError))
	}
	if got.RequestParameters["omitted"] != true || got.RequestParameters["originalSize"].(float64) < 1<<20 {
		t.Errorf("requestParameters = %v, want a note", got.RequestParameters)
	}
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "a", "\x00\x1f\"\\", "日本\xff\xc0", "\u2028<>&", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got, want string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q encodes to %s: %v", s, b, err)
		}
		js, _ := json.Marshal(s)
		_ = json.Unmarshal(js, &want)
		if got != want {
			t.Errorf("%q encodes to %s", s, b)
		}
	})
}

// FuzzParseLine: what is accepted is exactly what would be written.
func FuzzParseLine(f *testing.F) {
	prev := genesis("x")
	f.Add(appendLine(nil, 1, &prev, []byte(`{"a":1}`), &prev))
	f.Add([]byte(`{"seq":01,"prev":"`))
	f.Add([]byte("{\"seq\":1,\"prev\":\"" + strings.Repeat("0", 64) + "\",\"record\":{},\"hash\":\"" + strings.Repeat("f", 64) + "\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ln, err := parseLine(b)
		if err != nil {
			return
		}
		if got := appendLine(nil, ln.seq, &ln.prev, ln.record, &ln.hash); string(got) != string(b) {
			t.Errorf("%q parses and would be written as %q", b, got)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add((&checkpointLine{Version: 1, Log: "x", Seq: 3, Time: "2026-01-02T03:04:05Z", Signature: []byte{1}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseCheckpoint(b); err == nil && string(c.encode()) != string(b) {
			t.Errorf("%q parses and would be written as %q", b, c.encode())
		}
	})
}

// FuzzIndex: no bytes make the reader of an index fail otherwise than by saying so.
func FuzzIndex(f *testing.F) {
	r := Record{EventID: "e", EventName: "n", AWSRegion: "r", RecipientAccountID: "a"}
	b, _, err := encodeIndex(appendEntry(appendEntry(nil, &r), &r), 1, Hash{}, 10)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeSummary(b); err == nil {
			_ = each(b[summarySize:], func(e *entry) bool { e.has(1); return true })
		}
		_ = each(b, func(e *entry) bool { e.has(1); return true })
	})
}
