package policy

import "testing"

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

const missionPolicy = `{ "Version": "2012-10-17", "Statement": [
  { "Effect": "Allow", "Action": "kms:CreateGrant",
    "Resource": "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab" },
  { "Effect": "Allow", "Action": ["kms:ListAliases", "kms:ListKeys"], "Resource": "*" } ] }`

const decryptPolicy = `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": "arn:aws:kms:*:111122223333:key/*"}}`

const keyARN = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

func user(name string) Principal {
	return Principal{Type: User, Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/" + name, UserID: "AIDA0123456789ABCDEF", UserName: name}
}

func BenchmarkDecrypt(b *testing.B) {
	l := &Layers{Mode: ModeKMS, Resource: &Source{ID: "key", Document: MustParse(keyPolicy, Key)},
		Identity: []Source{{ID: "a", Document: MustParse(missionPolicy, Identity)}, {ID: "b", Document: MustParse(decryptPolicy, Identity)}}}
	for _, who := range []string{"admin", "bob"} {
		r := &Request{Principal: user(who), Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: "111122223333", Context: Context{
			"kms:CallerAccount": {"111122223333"}, "kms:ViaService": {"ec2.us-west-2.amazonaws.com"}, "kms:KeySpec": {"SYMMETRIC_DEFAULT"}, "kms:KeyUsage": {"ENCRYPT_DECRYPT"},
			"kms:KeyOrigin": {"AWS_KMS"}, "kms:MultiRegion": {"false"}, "kms:EncryptionContext:aws:ebs:id": {"vol-1234abcd"}, "kms:EncryptionContextKeys": {"aws:ebs:id"},
			"aws:SourceIp": {"127.0.0.1"}, "aws:SecureTransport": {"true"}, "aws:UserAgent": {"x"}, "aws:RequestedRegion": {"us-west-2"}}}
		b.Run(who, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Evaluate(r, l); d.Effect != Allow {
					b.Fatal(d)
				}
			}
		})
	}
}
