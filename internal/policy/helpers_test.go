package policy

import (
	"encoding/json"
	"testing"
)

const (
	acct   = "111122223333"
	other  = "444455556666"
	keyARN = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

const keyPolicy = `{
  "Version": "2012-10-17",
  "Id": "key-default-1",
  "Statement": [
    {"Sid": "Enable IAM User Permissions", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": "kms:*", "Resource": "*"},
    {"Sid": "Allow use of the key", "Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::111122223333:user/admin", "arn:aws:iam::111122223333:role/Ops"]},
     "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"], "Resource": "*"},
    {"Sid": "Allow attachment of persistent resources", "Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::111122223333:user/admin"]},
     "Action": ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"], "Resource": "*", "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}}}
  ]
}`

// missionPolicy is the administrator's policy of MISSION.md, C, as it stands.
const missionPolicy = `{ "Version": "2012-10-17", "Statement": [
  { "Effect": "Allow", "Action": "kms:CreateGrant",
    "Resource": "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab" },
  { "Effect": "Allow", "Action": ["kms:ListAliases", "kms:ListKeys"], "Resource": "*" } ] }`

const decryptPolicy = `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": "arn:aws:kms:*:111122223333:key/*"}}`

func user(name string) Principal { return userOf(acct, name) }

func userOf(account, name string) Principal {
	return Principal{Type: User, Account: account, ARN: "arn:aws:iam::" + account + ":user/" + name, UserID: "AIDA0123456789ABCDEF", UserName: name}
}

func role(name, session string) Principal {
	return Principal{Type: Role, Account: acct, ARN: "arn:aws:sts::" + acct + ":assumed-role/" + name + "/" + session, RoleARN: "arn:aws:iam::" + acct + ":role/" + name,
		UserID: "AROA0123456789ABCDEF:" + session, SessionName: session}
}

func root() Principal {
	return Principal{Type: Root, Account: acct, ARN: "arn:aws:iam::" + acct + ":root", UserID: acct}
}

func federated(name string) Principal {
	return Principal{Type: Federated, Account: acct, ARN: "arn:aws:sts::" + acct + ":federated-user/" + name, UserID: acct + ":" + name, UserARN: "arn:aws:iam::" + acct + ":user/issuer"}
}

func service(name string) Principal {
	return Principal{Type: Service, Account: acct, ARN: name + ".us-west-2.amazonaws.com", UserID: name, Service: name}
}

// stmts makes a document of statements in JSON without the frame.
func stmts(t testing.TB, kind Kind, statements string) *Document {
	t.Helper()
	d, err := Parse([]byte(`{"Version":"2012-10-17","Statement":[`+statements+`]}`), kind)
	if err != nil {
		t.Fatalf("Parse(%s, %v): %v", statements, kind, err)
	}
	return d
}

func src(t testing.TB, kind Kind, statements string) *Source {
	return &Source{ID: kind.String(), Document: stmts(t, kind, statements)}
}

func list(t testing.TB, kind Kind, statements string) []Source {
	return []Source{*src(t, kind, statements)}
}

func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
