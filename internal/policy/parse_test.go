package policy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseKeepsText(t *testing.T) {
	const text = "\n{ \"Version\" : \"2012-10-17\",\t\"Id\":\"caf\\u00e9\", \"Statement\":[{\"Effect\":\"Allow\",\"Action\":[\"a:B\"],\"Resource\":\"*\"}]}\n"
	d, err := Parse([]byte(text), Identity)
	if err != nil {
		t.Fatal(err)
	}
	if d.Text() != text {
		t.Errorf("Text() = %q, want %q", d.Text(), text)
	}
	if d.ID != "café" || d.Version != Version2012 || len(d.Statements) != 1 {
		t.Errorf("parsed %+v", d)
	}
}

func TestParseAccepts(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		text string
	}{
		{Identity, missionPolicy},
		{Key, keyPolicy},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`},
		{Identity, `{"Version":"2008-10-17","Statement":[{"Effect":"Deny","NotAction":["iam:*"],"NotResource":["arn:aws:s3:::b/*"]}]}`},
		{Identity, `{"Version":"2012-10-17","Statement":[{"Sid":"","Effect":"Allow","Action":"a:*","Resource":"*"},{"Sid":"","Effect":"Allow","Action":"a:*","Resource":"*"}]}`},
		{Identity, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a:*","Resource":"*","Condition":{}}]}`},
		{Identity, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a:*","Resource":"*","Condition":{"StringEquals":{"aws:x":[]},"Bool":{"aws:y":true},"NumericLessThan":{"aws:z":[1,"2"]}}}]}`},
		{Identity, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ds-data:CreateUser","Resource":"arn:aws-us-gov:ds:*:${aws:PrincipalAccount}:directory/${aws:PrincipalTag/a:b, 'x:y'}"}]}`},
		{ResourcePolicy, `{"Statement":{"Effect":"Allow","Principal":{"AWS":["111122223333","arn:aws:iam::111122223333:user/a/b","AROA0123456789ABCDEF"],"Service":"ec2.amazonaws.com","Federated":"accounts.google.com","CanonicalUser":"79a59df9"},"Action":"s3:GetObject","Resource":"*"}}`},
		// What IAM takes though no request matches it.
		{Identity, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3.s:ListBucket","iam: List users "],"Resource":["arn:aws:iam::*:user/${aws:username}","arn:aws:iam::*:*","arn:aws:s33:us-east-1::b","arn:aws:s3:us-west-2:123456789012:accesspoint/p"],"Condition":{"StringEqualsIfExists":{"a":"b"},"x":{}}}}`},
		{Key, `{"Statement":{"Sid":"spaces are fine","Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}}`},
		{Trust, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":["ec2.amazonaws.com","workspaces.amazonaws.com"]},"Action":["sts:AssumeRole","sts:TagSession"]}}`},
		{Trust, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/token.example.com"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringLike":{"token.example.com:sub":"repo:x/*"}}}}`},
		{Boundary, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`},
		{Session, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`},
	} {
		if _, err := Parse([]byte(c.text), c.kind); err != nil {
			t.Errorf("%s %s: %v", c.kind, c.text, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	frame := func(s string) string { return `{"Version":"2012-10-17","Statement":[{` + s + `}]}` }
	const ar = `"Effect":"Allow","Action":"a:B","Resource":"*"`
	for _, c := range []struct {
		name    string
		kind    Kind
		text    string
		message string // AWS's sentence
		detail  string // part of ours
		at      Position
	}{
		{"empty", Identity, ``, syntaxErrors, "ends where a value", Position{1, 1}},
		{"not JSON", Identity, `This is no JSON`, syntaxErrors, `unexpected 'T'`, Position{1, 1}},
		{"list", Identity, `[]`, syntaxErrors, "must be an object, not a list", Position{1, 1}},
		{"trailing", Identity, `{"Statement":{` + ar + `}} x`, syntaxErrors, "after the end", Position{1, 64}},
		{"trailing comma", Identity, "{\n \"Version\": \"2012-10-17\",\n}", syntaxErrors, "expected a name in double quotes, found '}'", Position{3, 1}},
		{"single quotes", Identity, `{'Version': 1}`, syntaxErrors, `found '\''`, Position{1, 2}},
		{"open string", Identity, `{"Version": "2012`, syntaxErrors, "does not end", Position{1, 13}},
		{"not UTF-8", Identity, "{\"Id\": \"\xff\"}", syntaxErrors, "not UTF-8", Position{1, 9}},
		{"deep", Identity, strings.Repeat("[", 100), syntaxErrors, "nested deeper", Position{1, 17}},
		{"twice", Identity, `{"Version":"2012-10-17","Version":"2012-10-17"}`, syntaxErrors, `"Version" is given twice`, Position{1, 25}},
		{"action twice", Identity, frame(ar + `,"Action":"b:C"`), syntaxErrors, `"Action" is given twice`, Position{}},
		{"version", Identity, `{"Version":"2012-10-18","Statement":{` + ar + `}}`, syntaxErrors, `"2012-10-18"`, Position{1, 12}},
		{"no statement", Identity, `{"Version":"2012-10-17"}`, syntaxErrors, "needs the element Statement", Position{1, 1}},
		{"no statement, trust", Trust, `{"Version":"2012-10-17"}`, "Missing required field Statement", "", Position{1, 1}},
		{"empty statements", Identity, `{"Version":"2012-10-17","Statement":[]}`, syntaxErrors, "at least one statement", Position{}},
		{"unknown element", Identity, `{"Version":"2012-10-17","Statment":[]}`, syntaxErrors, `did you mean "Statement"?`, Position{1, 25}},
		{"unknown statement element", Identity, "{\"Statement\": [\n  {\"Effect\": \"Allow\", \"Action\": \"a:B\",\n   \"Resouce\": \"*\"}]}", syntaxErrors, `did you mean "Resource"?`, Position{3, 4}},
		{"case of elements", Identity, frame(`"effect":"Allow","Action":"a:B","Resource":"*"`), syntaxErrors, `did you mean "Effect"?`, Position{}},
		{"no effect", Identity, frame(`"Action":"a:B","Resource":"*"`), syntaxErrors, "has no Effect", Position{}},
		{"no effect, trust", Trust, frame(`"Principal":"*","Action":"sts:AssumeRole"`), "Missing required field Effect", "", Position{}},
		{"bad effect", Identity, frame(`"Effect":"allow","Action":"a:B","Resource":"*"`), legacyParsing, "exactly so written", Position{}},
		{"no action", Identity, frame(`"Effect":"Allow","Resource":"*"`), "Policy statement must contain actions.", "", Position{}},
		{"empty action", Identity, frame(`"Effect":"Allow","Action":[],"Resource":"*"`), "Policy statement must contain actions.", "", Position{}},
		{"both actions", Identity, frame(ar + `,"NotAction":"b:C"`), syntaxErrors, "both Action and NotAction", Position{}},
		{"no vendor", Identity, frame(`"Effect":"Allow","Action":"Decrypt","Resource":"*"`), noVendor, `"kms:Decrypt"`, Position{}},
		{"wild vendor", Identity, frame(`"Effect":"Allow","Action":"*:*","Resource":"*"`), "Vendor * is not valid", "", Position{}},
		{"space vendor", Identity, frame(`"Effect":"Allow","Action":"k ms:*","Resource":"*"`), "Vendor k ms is not valid", "", Position{}},
		{"two colons", Identity, frame(`"Effect":"Allow","Action":"a:b:c","Resource":"*"`), "Actions/Condition can contain only one colon.", "", Position{}},
		{"bad name", Identity, frame(`"Effect":"Allow","Action":"a:b/c","Resource":"*"`), syntaxErrors, "service:Name", Position{}},
		{"action number", Identity, frame(`"Effect":"Allow","Action":5,"Resource":"*"`), syntaxErrors, "Action must be a string or a list of strings, not a number", Position{}},
		{"no resource", Identity, frame(`"Effect":"Allow","Action":"a:B"`), "Policy statement must contain resources.", "", Position{}},
		{"no resource, key", Key, frame(`"Effect":"Allow","Principal":"*","Action":"a:B"`), "Missing required field Resource", "", Position{}},
		{"resource no ARN", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"my-key"`), `Resource my-key must be in ARN format or "*".`, "six fields", Position{}},
		{"other effect", Identity, frame(`"Effect":"Permit","Action":"a:B","Resource":"*"`), syntaxErrors, "exactly so written", Position{}},
		{"not JSON, trust", Trust, `x`, "This policy contains invalid Json", "", Position{1, 1}},
		{"two Sids, no action", Identity, frame(`"Sid":"s",` + ar + `},{"Sid":"s","Effect":"Allow"`), "Statement IDs (SID) in a single policy must be unique.", "statements 1 and 2", Position{}},
		{"no resource, bad action", Identity, frame(`"Effect":"Allow","Action":"b"`), "Policy statement must contain resources.", "", Position{}},
		{"bad resource, bad action", Identity, frame(`"Effect":"Allow","Action":"s:3:b","Resource":"r"`), `Resource r must be in ARN format or "*".`, "", Position{}},
		{"short ARN", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws:s3*"`), "Resource vendor must be fully qualified and cannot contain regexes.", "", Position{}},
		{"short ARN of a key policy", Key, frame(`"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"arn:aws:kms:*"`), legacyParsing, "six fields", Position{}},
		{"ARN of five fields", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws:s3::b"`), legacyParsing, "", Position{}},
		{"ARN of two fields", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws"`), "Resource vendor must be fully qualified and cannot contain regexes.", "", Position{}},
		{"ARN without service", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws::::b"`), legacyParsing, "", Position{}},
		{"no partition", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"a:b:cadfsdf"`), `Partition "b" is not valid for resource "arn:b:cadfsdf:*:*:*".`, "", Position{}},
		{"no partition, no arn", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"aws:s3:::bucket"`), `Partition "s3" is not valid for resource "arn:s3:::bucket:*".`, "", Position{}},
		{"IAM path", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws:iam:::bucket"`), `IAM resource path must either be "*", root, or start with user/, federated-user/, role/, group/, instance-profile/, mfa/, server-certificate/, policy/, sms-mfa/, saml-provider/, oidc-provider/, report/, access-report/.`, "", Position{}},
		{"IAM region", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws:iam:us-east-1::bucket"`), "IAM resource arn:aws:iam:us-east-1::bucket cannot contain region information.", "", Position{}},
		{"S3 region", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws:s3:us-east-1::bucket"`), "Resource arn:aws:s3:us-east-1::bucket can not contain region information.", "", Position{}},
		{"partition", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:awz:s3:::x"`), `Partition "awz" is not valid for resource "arn:awz:s3:::x".`, "", Position{}},
		{"wild vendor of resource", Identity, frame(`"Effect":"Allow","Action":"a:B","Resource":"arn:aws:*:*:*:*"`), "Resource vendor must be fully qualified and cannot contain regexes.", "", Position{}},
		{"principal in identity", Identity, frame(ar + `,"Principal":"*"`), "Policy document should not specify a principal.", "identity-based policy", Position{}},
		{"principal in boundary", Boundary, frame(ar + `,"NotPrincipal":"*"`), "Policy document should not specify a principal.", "permissions boundary", Position{}},
		{"no principal, resource", ResourcePolicy, frame(ar), "Missing required field Principal", "", Position{}},
		{"no principal, key", Key, frame(ar), "Policy contains a statement with no principal.", "", Position{}},
		{"empty principal", ResourcePolicy, frame(ar + `,"Principal":{}`), "Missing required field Principal", "names nobody", Position{}},
		{"principal type", ResourcePolicy, frame(ar + `,"Principal":{"Aws":"*"}`), syntaxErrors, `did you mean "AWS"?`, Position{}},
		{"principal text", Trust, frame(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":"111122223333"`), `Invalid principal in policy: "111122223333"`, "", Position{}},
		{"principal wildcard", Trust, frame(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111122223333:user/*"}`), `Invalid principal in policy: "AWS":"arn:aws:iam::111122223333:user/*"`, "wildcards are not for principals", Position{}},
		{"principal group", Trust, frame(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111122223333:group/x"}`), `Invalid principal in policy: "AWS":"arn:aws:iam::111122223333:group/x"`, "a group is no principal", Position{}},
		{"principal key", Key, frame(ar + `,"Principal":{"AWS":"bob"}`), "Policy contains a statement with one or more invalid principals.", "bob", Position{}},
		{"principal service", Trust, frame(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ec2"}`), `Invalid principal in policy: "Service":"ec2"`, "workspaces.amazonaws.com", Position{}},
		{"principal federated", Trust, frame(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Federated":"arn:aws:iam::111122223333:user/x"}`), `Invalid principal in policy: "Federated":"arn:aws:iam::111122223333:user/x"`, "saml-provider", Position{}},
		{"NotPrincipal allow", ResourcePolicy, frame(ar + `,"NotPrincipal":{"AWS":"111122223333"}`), syntaxErrors, "NotPrincipal must be used with", Position{}},
		{"NotPrincipal trust", Trust, frame(`"Effect":"Deny","Action":"sts:AssumeRole","NotPrincipal":{"AWS":"111122223333"}`), "Has prohibited field NotPrincipal", "", Position{}},
		{"trust resource", Trust, frame(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"`), "Has prohibited field Resource", "", Position{}},
		{"trust action", Trust, frame(`"Effect":"Allow","Action":"s3:GetObject","Principal":"*"`), "AssumeRole policy may only specify STS AssumeRole actions.", "", Position{}},
		{"trust every action", Trust, frame(`"Effect":"Allow","Action":"*","Principal":"*"`), "AssumeRole policy may only specify STS AssumeRole actions.", "", Position{}},
		{"duplicate Sid", Identity, `{"Version":"2012-10-17","Statement":[{"Sid":"a",` + ar + `},{"Sid":"a",` + ar + `}]}`, "Statement IDs (SID) in a single policy must be unique.", "statements 1 and 2", Position{}},
		{"bad Sid", Identity, frame(`"Sid":"a b",` + ar), "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*", "", Position{}},
		{"operator", Identity, frame(ar + `,"Condition":{"StringEqual":{"aws:x":"y"}}`), syntaxErrors, `did you mean "StringEquals"?`, Position{}},
		{"no operator", Identity, frame(ar + `,"Condition":{"aws:x":"y"}`), syntaxErrors, "unknown condition operator", Position{}},
		{"condition list", Identity, frame(ar + `,"Condition":[]`), syntaxErrors, "Condition must be an object, not a list", Position{}},
		{"condition key", Key, frame(`"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"` + `,"Condition":{"StringEquals":{"x":"y"}}`), noVendor, `"x"`, Position{}},
		{"condition value", Identity, frame(ar + `,"Condition":{"StringEquals":{"aws:x":{"a":"b"}}}`), syntaxErrors, "must be a string", Position{}},
		{"null value", Identity, frame(ar + `,"Condition":{"StringEquals":{"aws:x":null}}`), syntaxErrors, "not null", Position{}},
		{"NullIfExists", Identity, frame(ar + `,"Condition":{"NullIfExists":{"aws:x":"true"}}`), syntaxErrors, "neither IfExists", Position{}},
		{"number", Identity, frame(ar + `,"Condition":{"NumericEquals":{"aws:x":"y"}}`), syntaxErrors, "want a number", Position{}},
		{"date", Identity, frame(ar + `,"Condition":{"DateLessThan":{"aws:x":"soon"}}`), legacyParsing, "ISO 8601", Position{}},
		{"date of no calendar", Identity, frame(ar + `,"Condition":{"DateLessThan":{"aws:x":"2026-02-30"}}`), legacyParsing, "ISO 8601", Position{}},
		{"bool", Identity, frame(ar + `,"Condition":{"Bool":{"aws:x":"yes"}}`), syntaxErrors, "true or false", Position{}},
		{"ip", Identity, frame(ar + `,"Condition":{"IpAddress":{"aws:x":"10.0.0.0/33"}}`), syntaxErrors, "IP address", Position{}},
		{"binary", Identity, frame(ar + `,"Condition":{"BinaryEquals":{"aws:x":"%"}}`), syntaxErrors, "base64", Position{}},
		{"arn", Identity, frame(ar + `,"Condition":{"ArnLike":{"aws:x":"role/x"}}`), syntaxErrors, "want an ARN", Position{}},
		{"variable in number", Identity, frame(ar + `,"Condition":{"NumericEquals":{"aws:x":"${aws:y}"}}`), syntaxErrors, "no policy variables", Position{}},
		{"open variable", Identity, frame(ar + `,"Condition":{"StringEquals":{"aws:x":"${aws:y"}}`), syntaxErrors, "no closing brace", Position{}},
		{"no variable", Identity, frame(ar + `,"Condition":{"StringEquals":{"aws:x":"${y}"}}`), syntaxErrors, "not a policy variable", Position{}},
		{"default", Identity, frame(ar + `,"Condition":{"StringEquals":{"aws:x":"${aws:y, z}"}}`), syntaxErrors, "single quotes", Position{}},
		{"overly permissive", Key, frame(ar + `,"Principal":"*","Condition":{"ForAllValues:StringEquals":{"kms:EncryptionContext:a":"b"}}`), "OverlyPermissiveCondition", `write "StringEquals"`, Position{}},
		{"too long", Key, `{"Id":"` + strings.Repeat("x", MaxKeyPolicy) + `"}`, syntaxErrors, "the most is 32768", Position{1, 1}},
	} {
		_, err := Parse([]byte(c.text), c.kind)
		var pe *ParseError
		if !errors.As(err, &pe) {
			t.Errorf("%s: Parse(%.200s) = %v, want a ParseError", c.name, c.text, err)
			continue
		}
		if !strings.HasPrefix(pe.Message, c.message) || !strings.Contains(pe.Detail, c.detail) {
			t.Errorf("%s: got %q with %q, want %q with %q", c.name, pe.Message, pe.Detail, c.message, c.detail)
		}
		if c.at != (Position{}) && pe.Position != c.at {
			t.Errorf("%s: at %v, want %v", c.name, pe.Position, c.at)
		}
		if !strings.HasPrefix(err.Error(), "MalformedPolicyDocument: "+pe.Message) {
			t.Errorf("%s: Error() = %q", c.name, err)
		}
	}
}

func TestPositionsCountCharacters(t *testing.T) {
	_, err := Parse([]byte("{\"Id\":\"éé\",\n \"Idd\":1}"), Identity)
	var pe *ParseError
	if !errors.As(err, &pe) || pe.Position != (Position{2, 2}) {
		t.Errorf("got %v, want line 2, column 2", err)
	}
	d := MustParse("{\"Id\":\"é\",\"Statement\":\n [{\"Effect\":\"Allow\",\"Action\":\"a:B\",\n\"Resource\":\"*\"}]}", Identity)
	if s := d.Statements[0]; s.Start != (Position{2, 3}) || s.End != (Position{3, 16}) {
		t.Errorf("statement from %v to %v, want {2 3} to {3 16}", s.Start, s.End)
	}
}

func TestPrincipals(t *testing.T) {
	d := MustParse(keyPolicy, Key)
	var got []string
	for _, p := range d.Principals() {
		got = append(got, p.Type+" "+p.Value)
	}
	want := []string{"AWS arn:aws:iam::111122223333:root", "AWS arn:aws:iam::111122223333:user/admin", "AWS arn:aws:iam::111122223333:role/Ops", "AWS arn:aws:iam::111122223333:user/admin"}
	if !slices.Equal(got, want) {
		t.Errorf("Principals = %q, want %q", got, want)
	}
}

func TestContextKeys(t *testing.T) {
	a := stmts(t, Identity, `{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:username}/${s3:prefix, 'x'}","Condition":{"StringEquals":{"aws:SourceVpc":"${aws:PrincipalTag/t}","AWS:USERNAME":"x"}}}`)
	b := stmts(t, Key, `{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*","Condition":{"Bool":{"kms:GrantIsForAWSResource":"true"},"Null":{"aws:sourcevpc":"true"}}}`)
	want := []string{"aws:PrincipalTag/t", "aws:SourceVpc", "aws:username", "kms:GrantIsForAWSResource", "s3:prefix"}
	if got := ContextKeys(a, nil, b); !slices.EqualFunc(got, want, strings.EqualFold) {
		t.Errorf("ContextKeys = %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	if got := Size(" {\n\t\"a\": \"é b\"}\r\n"); got != 10 {
		t.Errorf("Size = %d, want 10", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{keyPolicy, missionPolicy, decryptPolicy, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username, 'a}'}${*}"}}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Deny","NotPrincipal":{"AWS":"111122223333"},"NotAction":"a:*","NotResource":"*","Condition":{"ForAllValues:StringLikeIfExists":{"a:b":["${c:d}*?",1,true]}}}}`} {
		for k := range 7 {
			f.Add(s, byte(k))
		}
	}
	f.Fuzz(func(t *testing.T, s string, k byte) {
		kind := Kind(k % 7)
		d, err := Parse([]byte(s), kind)
		if err != nil {
			var pe *ParseError
			if !errors.As(err, &pe) || pe.Line < 1 || pe.Column < 1 || pe.Message == "" {
				t.Fatalf("Parse(%q): error %#v", s, err)
			}
			return
		}
		if d.Text() != s || !json.Valid([]byte(s)) || len(d.Statements) == 0 {
			t.Fatalf("Parse(%q) accepted it as %+v", s, d)
		}
		src := Source{ID: "x", Document: d}
		l := &Layers{Identity: []Source{src}, Resource: &src, Boundary: &src, Session: []Source{src}}
		for _, who := range []Principal{user("bob"), role("Ops", "s"), root(), service("ec2"), {}} {
			r := &Request{Principal: who, Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: acct, Context: Context{"a:b": {"x", ""}}}
			dec := Evaluate(r, l)
			if x := Explain(r, l, &dec); x.Message == "" {
				t.Fatal("no explanation")
			}
			for _, st := range d.Statements {
				if dec.Effect == Allow && st.Effect == ExplicitDeny {
					if _, ok := st.applies(newEnv(r, l)); ok {
						t.Fatalf("%q: allowed although %s denies", s, st.Name())
					}
				}
			}
		}
		Simulate(&Request{Principal: user("bob")}, l, []string{"kms:Decrypt"}, nil)
	})
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+3,true,null,"\u00e9\ud83d\ude00\n"]}`, `[01]`, `"\ud800"`, `{"a":1,"a":2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := readJSON(s)
		if err != nil {
			return
		}
		if !json.Valid([]byte(s)) {
			t.Fatalf("readJSON accepts %q", s)
		}
		if v.kind == isString {
			var want string
			if err := json.Unmarshal([]byte(s), &want); err != nil || want != v.text {
				t.Fatalf("readJSON(%q) = %q, want %q", s, v.text, want)
			}
		}
	})
}

func TestWithPrincipals(t *testing.T) {
	const text = `{"Version":"2012-10-17", "Statement":[{"Effect":"Deny","NotPrincipal" : {"AWS": ["arn:aws:iam::111122223333:user/b\u006fb" , "111122223333"]},"Action":"kms:*","Resource":"*",
  "Condition":{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::111122223333:user/bob"}}}, {"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}]}`
	d := MustParse(text, Key)
	if got := d.WithPrincipals(func(p PrincipalName) string { return p.Value }); got != text {
		t.Errorf("WithPrincipals that changes nothing = %s, want the text", got)
	}
	got := d.WithPrincipals(func(p PrincipalName) string {
		return map[string]string{"arn:aws:iam::111122223333:user/bob": `a"b`, "111122223333": "111122223333", "*": "*"}[p.Value]
	})
	if want := strings.Replace(text, `"arn:aws:iam::111122223333:user/b\u006fb"`, `"a\"b"`, 1); got != want {
		t.Errorf("WithPrincipals = %s, want %s", got, want)
	}
}
