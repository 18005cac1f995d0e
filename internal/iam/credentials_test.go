package iam_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/csv"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/crypto/ssh"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
)

// The examples are made once: an RSA key takes its time.
var rsaKey = func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}()

func pemOf(kind string, der []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func sshOf(t *testing.T, pub any) string {
	t.Helper()
	k := must[ssh.PublicKey](t)(ssh.NewPublicKey(pub))
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// certificate is an X.509 certificate of key signed by parent (itself when nil).
func certificate(t *testing.T, name string, key crypto.Signer, until time.Time, parent *x509.Certificate, by crypto.Signer) (*x509.Certificate, string) {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	if parent == nil {
		parent, by = c, key
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der)), pemOf("CERTIFICATE", der, nil)
}

func TestSSHPublicKeys(t *testing.T) {
	srv := apptest.New(t)
	c := srv.IAM()
	s := aws.String
	must[*iam.CreateUserOutput](t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: s("git")}))
	line := sshOf(t, &rsaKey.PublicKey) + " git@example"
	up := must[*iam.UploadSSHPublicKeyOutput](t)(c.UploadSSHPublicKey(ctx, &iam.UploadSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyBody: &line})).SSHPublicKey
	pub := must[ssh.PublicKey](t)(ssh.NewPublicKey(&rsaKey.PublicKey))
	if *up.SSHPublicKeyBody != line || up.Status != types.StatusTypeActive || !strings.HasPrefix(*up.SSHPublicKeyId, "APKA") || *up.Fingerprint != ssh.FingerprintLegacyMD5(pub) {
		t.Errorf("UploadSSHPublicKey = %+v", up)
	}
	got := must[*iam.GetSSHPublicKeyOutput](t)(c.GetSSHPublicKey(ctx, &iam.GetSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyId: up.SSHPublicKeyId, Encoding: types.EncodingTypePem})).SSHPublicKey
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	asPEM := pemOf("PUBLIC KEY", der, err)
	if *got.SSHPublicKeyBody != asPEM {
		t.Errorf("the key as PEM = %s, want %s", *got.SSHPublicKeyBody, asPEM)
	}
	_, err = c.UploadSSHPublicKey(ctx, &iam.UploadSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyBody: &asPEM})
	if code(err) != "DuplicateSSHPublicKey" {
		t.Errorf("the same key as PEM = %v, want DuplicateSSHPublicKey", err)
	}
	short := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	for what, body := range map[string]string{"text": "ssh-rsa AAAA", "1024 bits": sshOf(t, &short.PublicKey), "Ed25519": sshOf(t, ed), "two keys": line + "\n" + line, "a certificate": strings.ReplaceAll(asPEM, "PUBLIC KEY", "X") + asPEM} {
		_, err := c.UploadSSHPublicKey(ctx, &iam.UploadSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyBody: &body})
		if code(err) != "InvalidPublicKey" {
			t.Errorf("upload of %s = %v, want InvalidPublicKey", what, err)
		}
	}
	none := s("APKAXXXXXXXXXXXXXXXXX")
	_, err = c.GetSSHPublicKey(ctx, &iam.GetSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyId: none, Encoding: types.EncodingTypeSsh})
	answers(t, "GetSSHPublicKey", err, 404, "NoSuchEntity", "The Public Key with id APKAXXXXXXXXXXXXXXXXX cannot be found.")
	_, err = c.UpdateSSHPublicKey(ctx, &iam.UpdateSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyId: none, Status: types.StatusTypeInactive})
	answers(t, "UpdateSSHPublicKey", err, 404, "NoSuchEntity", "The Public Key with id APKAXXXXXXXXXXXXXXXXX cannot be found.")
	must[*iam.UpdateSSHPublicKeyOutput](t)(c.UpdateSSHPublicKey(ctx, &iam.UpdateSSHPublicKeyInput{UserName: s("git"), SSHPublicKeyId: up.SSHPublicKeyId, Status: types.StatusTypeInactive}))

	// The key follows its user, who cannot go while it is there.
	must[*iam.UpdateUserOutput](t)(c.UpdateUser(ctx, &iam.UpdateUserInput{UserName: s("git"), NewUserName: s("hg")}))
	list := must[*iam.ListSSHPublicKeysOutput](t)(c.ListSSHPublicKeys(ctx, &iam.ListSSHPublicKeysInput{UserName: s("hg")})).SSHPublicKeys
	if len(list) != 1 || *list[0].UserName != "hg" || list[0].Status != types.StatusTypeInactive {
		t.Errorf("keys of the renamed user = %+v", list)
	}
	_, err = c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: s("hg")})
	answers(t, "DeleteUser", err, 409, "DeleteConflict", "Cannot delete entity, must delete SSH public keys first.")
	for range 4 {
		k := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
		must[*iam.UploadSSHPublicKeyOutput](t)(c.UploadSSHPublicKey(ctx, &iam.UploadSSHPublicKeyInput{UserName: s("hg"), SSHPublicKeyBody: s(sshOf(t, &k.PublicKey))}))
	}
	sixth := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	_, err = c.UploadSSHPublicKey(ctx, &iam.UploadSSHPublicKeyInput{UserName: s("hg"), SSHPublicKeyBody: s(sshOf(t, &sixth.PublicKey))})
	answers(t, "the sixth key", err, 409, "LimitExceeded", "Cannot exceed quota for SSHPublicKeysPerUser: 5")
	n := 0
	for p := iam.NewListSSHPublicKeysPaginator(c, &iam.ListSSHPublicKeysInput{UserName: s("hg"), MaxItems: aws.Int32(2)}); p.HasMorePages(); {
		for _, k := range must[*iam.ListSSHPublicKeysOutput](t)(p.NextPage(ctx)).SSHPublicKeys {
			must[*iam.DeleteSSHPublicKeyOutput](t)(c.DeleteSSHPublicKey(ctx, &iam.DeleteSSHPublicKeyInput{UserName: s("hg"), SSHPublicKeyId: k.SSHPublicKeyId}))
			n++
		}
	}
	if n != 5 {
		t.Errorf("the paginator gave %d keys, want 5", n)
	}
	must[*iam.DeleteUserOutput](t)(c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: s("hg")}))
}

func TestSigningCertificates(t *testing.T) {
	c := apptest.New(t).IAM()
	s := aws.String
	for _, n := range []string{"u", "v"} {
		must[*iam.CreateUserOutput](t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: &n}))
	}
	key := ecKey(t)
	later := time.Now().Add(time.Hour)
	_, one := certificate(t, "one", key, later, nil, nil)
	_, two := certificate(t, "two", key, later, nil, nil)
	_, three := certificate(t, "three", key, later, nil, nil)
	upload := func(user *string, body string) (*iam.UploadSigningCertificateOutput, error) {
		return c.UploadSigningCertificate(ctx, &iam.UploadSigningCertificateInput{UserName: user, CertificateBody: &body})
	}
	a := must[*iam.UploadSigningCertificateOutput](t)(upload(s("u"), one)).Certificate
	if *a.CertificateBody != one || a.Status != types.StatusTypeActive || *a.UserName != "u" || len(*a.CertificateId) < 24 {
		t.Errorf("UploadSigningCertificate = %+v", a)
	}
	_, err := upload(s("nonexistent-user"), two)
	answers(t, "of no user", err, 404, "NoSuchEntity", "The user with name nonexistent-user cannot be found.")
	_, err = upload(s("u"), "invalid-certificate-body")
	answers(t, "no certificate", err, 400, "MalformedCertificate", "Certificate invalid-certificate-body is malformed.")
	if _, err = upload(s("v"), one); code(err) != "DuplicateCertificate" {
		t.Errorf("the certificate of another user = %v, want DuplicateCertificate", err)
	}
	must[*iam.UploadSigningCertificateOutput](t)(upload(s("u"), two))
	_, err = upload(s("u"), three)
	answers(t, "the third", err, 409, "LimitExceeded", "Cannot exceed quota for CertificatesPerUser: 2")
	_, err = c.UpdateSigningCertificate(ctx, &iam.UpdateSigningCertificateInput{UserName: s("u"), CertificateId: s("NONEXISTENTCERTID12345678901"), Status: types.StatusTypeInactive})
	answers(t, "UpdateSigningCertificate", err, 404, "NoSuchEntity", "The Certificate with id NONEXISTENTCERTID12345678901 cannot be found.")
	must[*iam.UpdateSigningCertificateOutput](t)(c.UpdateSigningCertificate(ctx, &iam.UpdateSigningCertificateInput{UserName: s("u"), CertificateId: a.CertificateId, Status: types.StatusTypeInactive}))

	// The root user's own, the summary and the credential report.
	must[*iam.UploadSigningCertificateOutput](t)(upload(nil, three))
	if m := must[*iam.GetAccountSummaryOutput](t)(c.GetAccountSummary(ctx, &iam.GetAccountSummaryInput{})).SummaryMap; m["AccountSigningCertificatesPresent"] != 1 {
		t.Errorf("summary = %v, want AccountSigningCertificatesPresent 1", m)
	}
	must[*iam.GenerateCredentialReportOutput](t)(c.GenerateCredentialReport(ctx, &iam.GenerateCredentialReportInput{}))
	rep := must[*iam.GetCredentialReportOutput](t)(c.GetCredentialReport(ctx, &iam.GetCredentialReportInput{}))
	rows := must[[][]string](t)(csv.NewReader(strings.NewReader(string(rep.Content))).ReadAll())
	for _, r := range rows[1:] {
		certs := map[string][3]string{"<root_account>": {"true", "false", "N/A"}, "u": {"false", "true", ""}, "v": {"false", "false", "N/A"}}[r[0]]
		if r[18] != certs[0] || r[20] != certs[1] || certs[2] != "" && r[21] != certs[2] {
			t.Errorf("certificates in the report of %s: %v", r[0], r[18:])
		}
	}
	_, err = c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: s("u")})
	answers(t, "DeleteUser", err, 409, "DeleteConflict", "Cannot delete entity, must delete signing certificates first.")
	for _, k := range must[*iam.ListSigningCertificatesOutput](t)(c.ListSigningCertificates(ctx, &iam.ListSigningCertificatesInput{UserName: s("u")})).Certificates {
		if (k.Status == types.StatusTypeInactive) != (*k.CertificateId == *a.CertificateId) {
			t.Errorf("status of %s = %s", *k.CertificateId, k.Status)
		}
		must[*iam.DeleteSigningCertificateOutput](t)(c.DeleteSigningCertificate(ctx, &iam.DeleteSigningCertificateInput{UserName: s("u"), CertificateId: k.CertificateId}))
	}
	must[*iam.DeleteUserOutput](t)(c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: s("u")}))
}

func TestServerCertificates(t *testing.T) {
	srv := apptest.New(t)
	c := srv.IAM()
	s := aws.String
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	rootKey, midKey, leafKey := ecKey(t), ecKey(t), rsaKey
	root, rootPEM := certificate(t, "root", rootKey, later, nil, nil)
	mid, midPEM := certificate(t, "mid", midKey, later, root, rootKey)
	_, leafPEM := certificate(t, "leaf", leafKey, later, mid, midKey)
	_, oldPEM := certificate(t, "old", leafKey, time.Now().Add(-time.Hour), nil, nil)
	pkcs1 := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(leafKey), nil)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	pkcs8 := pemOf("PRIVATE KEY", der, err)
	der, err = x509.MarshalECPrivateKey(rootKey)
	sec1 := pemOf("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}, nil) + pemOf("EC PRIVATE KEY", der, err)
	upload := func(name, body, key, chain string) (*iam.UploadServerCertificateOutput, error) {
		in := &iam.UploadServerCertificateInput{ServerCertificateName: &name, CertificateBody: &body, PrivateKey: &key, Path: s("/web/"), Tags: []types.Tag{{Key: s("k"), Value: s("v")}}}
		if chain != "" {
			in.CertificateChain = &chain
		}
		return c.UploadServerCertificate(ctx, in)
	}
	m := must[*iam.UploadServerCertificateOutput](t)(upload("site", leafPEM, pkcs1, midPEM+rootPEM)).ServerCertificateMetadata
	if *m.Arn != "arn:aws:iam::"+apptest.Account+":server-certificate/web/site" || !m.Expiration.Equal(later) || !strings.HasPrefix(*m.ServerCertificateId, "ASCA") {
		t.Errorf("UploadServerCertificate = %+v", m)
	}
	must[*iam.UploadServerCertificateOutput](t)(upload("root", rootPEM, sec1, ""))
	_, err = upload("site", leafPEM, pkcs8, "")
	answers(t, "the name again", err, 409, "EntityAlreadyExists", "The Server Certificate with name site already exists.")
	for _, tt := range []struct{ what, body, key, chain, code string }{
		{"no certificate", "x", pkcs8, "", "MalformedCertificate"},
		{"two certificates", leafPEM + rootPEM, pkcs8, "", "MalformedCertificate"},
		{"no key", leafPEM, "x", "", "MalformedCertificate"},
		{"another key", leafPEM, sec1, "", "KeyPairMismatch"},
		{"expired", oldPEM, pkcs8, "", "MalformedCertificate"},
		{"chain in the wrong order", leafPEM, pkcs8, rootPEM + midPEM, "MalformedCertificate"},
		{"chain of something", leafPEM, pkcs8, pkcs8, "MalformedCertificate"},
	} {
		if _, err := upload("bad", tt.body, tt.key, tt.chain); code(err) != tt.code {
			t.Errorf("%s = %v, want %s", tt.what, err, tt.code)
		}
	}
	got := must[*iam.GetServerCertificateOutput](t)(c.GetServerCertificate(ctx, &iam.GetServerCertificateInput{ServerCertificateName: s("SITE")})).ServerCertificate
	if *got.CertificateBody != strings.TrimSpace(leafPEM) || *got.CertificateChain != strings.TrimSpace(midPEM+rootPEM) || len(got.Tags) != 1 {
		t.Errorf("GetServerCertificate = %+v", got)
	}
	must[*iam.UpdateServerCertificateOutput](t)(c.UpdateServerCertificate(ctx, &iam.UpdateServerCertificateInput{ServerCertificateName: s("site"), NewServerCertificateName: s("shop"), NewPath: s("/shop/")}))
	if _, err := c.UpdateServerCertificate(ctx, &iam.UpdateServerCertificateInput{ServerCertificateName: s("root"), NewServerCertificateName: s("shop")}); code(err) != "EntityAlreadyExists" {
		t.Errorf("renaming to a name that is taken = %v, want EntityAlreadyExists", err)
	}
	if list := must[*iam.ListServerCertificatesOutput](t)(c.ListServerCertificates(ctx, &iam.ListServerCertificatesInput{PathPrefix: s("/shop/")})).ServerCertificateMetadataList; len(list) != 1 || *list[0].ServerCertificateName != "shop" {
		t.Errorf("ListServerCertificates(/shop/) = %+v", list)
	}
	must[*iam.TagServerCertificateOutput](t)(c.TagServerCertificate(ctx, &iam.TagServerCertificateInput{ServerCertificateName: s("shop"), Tags: []types.Tag{{Key: s("K"), Value: s("w")}}}))
	must[*iam.UntagServerCertificateOutput](t)(c.UntagServerCertificate(ctx, &iam.UntagServerCertificateInput{ServerCertificateName: s("shop"), TagKeys: []string{"k"}}))
	if tags := must[*iam.ListServerCertificateTagsOutput](t)(c.ListServerCertificateTags(ctx, &iam.ListServerCertificateTagsInput{ServerCertificateName: s("shop")})).Tags; len(tags) != 1 || *tags[0].Key != "K" {
		t.Errorf("tags = %v, want K alone", tags)
	}
	if m := must[*iam.GetAccountSummaryOutput](t)(c.GetAccountSummary(ctx, &iam.GetAccountSummaryInput{})).SummaryMap; m["ServerCertificates"] != 2 {
		t.Errorf("summary says %d server certificates, want 2", m["ServerCertificates"])
	}
	must[*iam.DeleteServerCertificateOutput](t)(c.DeleteServerCertificate(ctx, &iam.DeleteServerCertificateInput{ServerCertificateName: s("shop")}))
	_, err = c.GetServerCertificate(ctx, &iam.GetServerCertificateInput{ServerCertificateName: s("shop")})
	answers(t, "GetServerCertificate", err, 404, "NoSuchEntity", "The Server Certificate with name shop cannot be found.")
}

func TestServiceSpecificCredentials(t *testing.T) {
	c := apptest.New(t).IAM()
	s := aws.String
	must[*iam.CreateUserOutput](t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: s("dev")}))
	create := func() (*iam.CreateServiceSpecificCredentialOutput, error) {
		return c.CreateServiceSpecificCredential(ctx, &iam.CreateServiceSpecificCredentialInput{UserName: s("dev"), ServiceName: s("codecommit.amazonaws.com")})
	}
	a := must[*iam.CreateServiceSpecificCredentialOutput](t)(create()).ServiceSpecificCredential
	if *a.ServiceUserName != "dev-at-"+apptest.Account || len(*a.ServicePassword) != 44 || !strings.HasPrefix(*a.ServiceSpecificCredentialId, "ACCA") {
		t.Errorf("CreateServiceSpecificCredential = user name %s, password of %d characters, ID %s", *a.ServiceUserName, len(*a.ServicePassword), *a.ServiceSpecificCredentialId)
	}
	if b := must[*iam.CreateServiceSpecificCredentialOutput](t)(create()).ServiceSpecificCredential; *b.ServiceUserName != "dev+1-at-"+apptest.Account {
		t.Errorf("user name of the second = %s", *b.ServiceUserName)
	}
	_, err := create()
	answers(t, "the third", err, 409, "LimitExceeded", "Cannot exceed quota for ServiceSpecificCredentialsPerUser: 2")
	_, err = c.CreateServiceSpecificCredential(ctx, &iam.CreateServiceSpecificCredentialInput{UserName: s("dev"), ServiceName: s("kms.amazonaws.com")})
	answers(t, "a service without passwords", err, 404, "NoSuchEntity", "No such service kms.amazonaws.com is supported for Service Specific Credentials")
	r := must[*iam.ResetServiceSpecificCredentialOutput](t)(c.ResetServiceSpecificCredential(ctx, &iam.ResetServiceSpecificCredentialInput{UserName: s("dev"), ServiceSpecificCredentialId: a.ServiceSpecificCredentialId})).ServiceSpecificCredential
	if *r.ServicePassword == *a.ServicePassword || *r.ServiceUserName != *a.ServiceUserName {
		t.Error("ResetServiceSpecificCredential leaves the password or changes the user name")
	}
	must[*iam.UpdateServiceSpecificCredentialOutput](t)(c.UpdateServiceSpecificCredential(ctx, &iam.UpdateServiceSpecificCredentialInput{UserName: s("dev"), ServiceSpecificCredentialId: a.ServiceSpecificCredentialId, Status: types.StatusTypeInactive}))
	must[*iam.UpdateUserOutput](t)(c.UpdateUser(ctx, &iam.UpdateUserInput{UserName: s("dev"), NewUserName: s("ops")}))
	list := must[*iam.ListServiceSpecificCredentialsOutput](t)(c.ListServiceSpecificCredentials(ctx, &iam.ListServiceSpecificCredentialsInput{UserName: s("ops"), ServiceName: s("codecommit.amazonaws.com")})).ServiceSpecificCredentials
	all := must[*iam.ListServiceSpecificCredentialsOutput](t)(c.ListServiceSpecificCredentials(ctx, &iam.ListServiceSpecificCredentialsInput{AllUsers: aws.Bool(true)})).ServiceSpecificCredentials
	if len(list) != 2 || len(all) != 2 {
		t.Fatalf("the renamed user has %d credentials, the account %d, want 2 each", len(list), len(all))
	}
	for _, k := range list {
		if *k.UserName != "ops" || !strings.HasPrefix(*k.ServiceUserName, "dev") || (k.Status == types.StatusTypeInactive) != (*k.ServiceSpecificCredentialId == *a.ServiceSpecificCredentialId) {
			t.Errorf("credential of the renamed user = %+v", k)
		}
	}
	_, err = c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: s("ops")})
	answers(t, "DeleteUser", err, 409, "DeleteConflict", "Cannot delete entity, must delete service specific credentials first.")
	for _, k := range list {
		must[*iam.DeleteServiceSpecificCredentialOutput](t)(c.DeleteServiceSpecificCredential(ctx, &iam.DeleteServiceSpecificCredentialInput{UserName: s("ops"), ServiceSpecificCredentialId: k.ServiceSpecificCredentialId}))
	}
	_, err = c.DeleteServiceSpecificCredential(ctx, &iam.DeleteServiceSpecificCredentialInput{UserName: s("ops"), ServiceSpecificCredentialId: a.ServiceSpecificCredentialId})
	answers(t, "a deleted one", err, 404, "NoSuchEntity", "No such credential "+*a.ServiceSpecificCredentialId+" exists")
	must[*iam.DeleteUserOutput](t)(c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: s("ops")}))
}
