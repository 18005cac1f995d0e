package iam

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Server certificates. No service here presents one, so the private key is
// checked against the certificate and not kept: nothing can give it back, and AWS
// does not either.

func (s *Service) serverCertificateOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "UploadServerCertificate", s.uploadServerCertificate, onNew("server-certificate", func(in *iam.UploadServerCertificateInput) (*string, *string) {
			return in.Path, in.ServerCertificateName
		},
			withTags(func(in *iam.UploadServerCertificateInput) []types.Tag { return in.Tags })), api.Sensitive("PrivateKey")),
		api.NewView("iam", "GetServerCertificate", s.getServerCertificate, onServerCert(s, func(in *iam.GetServerCertificateInput) *string { return in.ServerCertificateName })),
		api.NewView("iam", "ListServerCertificates", s.listServerCertificates, onList("server-certificate", func(in *iam.ListServerCertificatesInput) *string { return in.PathPrefix })),
		api.NewUpdate("iam", "UpdateServerCertificate", s.updateServerCertificate, api.On(s.onUpdateServerCertificate)),
		api.NewUpdate("iam", "DeleteServerCertificate", s.deleteServerCertificate, onServerCert(s, func(in *iam.DeleteServerCertificateInput) *string { return in.ServerCertificateName })),
		api.NewUpdate("iam", "TagServerCertificate", s.tagServerCertificate, onServerCert(s, func(in *iam.TagServerCertificateInput) *string { return in.ServerCertificateName }, withTags(func(in *iam.TagServerCertificateInput) []types.Tag { return in.Tags }))),
		api.NewUpdate("iam", "UntagServerCertificate", s.untagServerCertificate, onServerCert(s, func(in *iam.UntagServerCertificateInput) *string { return in.ServerCertificateName }, withTagKeys(func(in *iam.UntagServerCertificateInput) []string { return in.TagKeys }))),
		api.NewView("iam", "ListServerCertificateTags", s.listServerCertificateTags, onServerCert(s, func(in *iam.ListServerCertificateTagsInput) *string { return in.ServerCertificateName })),
	}
}

func onServerCert[In any](s *Service, name func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		n := aws.ToString(name(in))
		if k := s.serverCerts.Get(tx, key(c.Account, n)); k != nil {
			return entity{arn: k.arn(), tags: k.Tags}, nil
		}
		return entity{arn: iamARN(c.Account, "server-certificate", "/", n)}, nil
	}, extra)
}

func (s *Service) onUpdateServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateServerCertificateInput) ([]api.Target, error) {
	name := aws.ToString(in.ServerCertificateName)
	k := s.serverCerts.Get(tx, key(c.Account, name))
	if k == nil {
		return []api.Target{{ARN: iamARN(c.Account, "server-certificate", "/", name)}}, nil
	}
	next := *k
	rename(&next.Name, &next.Path, in.NewServerCertificateName, in.NewPath)
	out := []api.Target{{ARN: k.arn()}}
	if next.arn() != k.arn() {
		out = append(out, api.Target{ARN: next.arn()})
	}
	return out, nil
}

func malformedCertificate(message string) error {
	return &types.MalformedCertificateException{Message: aws.String(message)}
}

// privateKey reads an unencrypted private key in PEM: PKCS #8, PKCS #1 or SEC 1.
func privateKey(text string) (crypto.Signer, bool) {
	block, _ := pem.Decode([]byte(text))
	for block != nil && block.Type == "EC PARAMETERS" {
		rest := text[strings.Index(text, "-----END EC PARAMETERS-----"):]
		block, _ = pem.Decode([]byte(rest))
		text = rest
	}
	if block == nil {
		return nil, false
	}
	defer clear(block.Bytes)
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) },
		func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) },
	} {
		if k, err := parse(block.Bytes); err == nil {
			s, ok := k.(crypto.Signer)
			return s, ok
		}
	}
	return nil, false
}

// checkServerCertificate checks a certificate, its chain and its private key.
// Source: IAM User Guide, "Manage server certificates in IAM".
func checkServerCertificate(body, chain, private string, now time.Time) (*x509.Certificate, error) {
	certs, ok := parseCertificates(body)
	if !ok || len(certs) != 1 {
		return nil, malformedCertificate("Unable to parse certificate. Please ensure the certificate is in PEM format.")
	}
	cert := certs[0]
	signer, ok := privateKey(private)
	if !ok {
		return nil, malformedCertificate("Unable to parse key; the body is not a private key in PEM format without a passphrase.")
	}
	if pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(cert.PublicKey) {
		return nil, &types.KeyPairMismatchException{Message: aws.String("The public key certificate and the private key do not match.")}
	}
	if now.After(cert.NotAfter) {
		return nil, malformedCertificate("Certificate is no longer valid. The 'Not After' date restriction on the certificate has passed.")
	}
	if chain == "" {
		return cert, nil
	}
	above, ok := parseCertificates(chain)
	if !ok {
		return nil, malformedCertificate("Unable to parse certificate chain. Please ensure the certificates are in PEM format.")
	}
	at := cert
	for i, up := range above {
		// The names and signatures only: AWS takes roots of any make.
		if up.CheckSignature(at.SignatureAlgorithm, at.RawTBSCertificate, at.Signature) != nil {
			return nil, malformedCertificate("Unable to validate certificate chain. The certificate chain must start with the immediate signing certificate, followed by any intermediaries in order. The index within the chain of the invalid certificate is: " + strconv.Itoa(i))
		}
		at = up
	}
	return cert, nil
}

func noServerCert(name string) error {
	return noSuchEntity("The Server Certificate with name %s cannot be found.", name)
}

func showServerCert(k *serverCertificate) types.ServerCertificateMetadata {
	return types.ServerCertificateMetadata{ServerCertificateName: aws.String(k.Name), Path: aws.String(k.Path), ServerCertificateId: aws.String(k.ID), Arn: aws.String(k.arn()),
		UploadDate: aws.Time(k.Uploaded), Expiration: aws.Time(k.Expires)}
}

func (s *Service) editServerCert(tx *store.Tx, c *api.Call, name *string) (*serverCertificate, error) {
	k := s.serverCerts.Edit(tx, key(c.Account, aws.ToString(name)))
	if k == nil {
		return nil, noServerCert(aws.ToString(name))
	}
	return k, nil
}

func (s *Service) putServerCert(tx *store.Tx, k *serverCertificate) error {
	return s.serverCerts.Put(tx, key(k.Account, k.Name), k)
}

func (s *Service) uploadServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UploadServerCertificateInput) (*iam.UploadServerCertificateOutput, error) {
	name := aws.ToString(in.ServerCertificateName)
	if s.serverCerts.Get(tx, key(c.Account, name)) != nil {
		return nil, entityExists("The Server Certificate with name %s already exists.", name)
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	cert, err := checkServerCertificate(aws.ToString(in.CertificateBody), aws.ToString(in.CertificateChain), aws.ToString(in.PrivateKey), s.now(c))
	if err != nil {
		return nil, err
	}
	if countTo(tx, s.serverCerts, c.Account, maxServerCertificates) {
		return nil, limitExceeded("Cannot exceed quota for ServerCertificatesPerAccount: %d", maxServerCertificates)
	}
	tags, err := newTags(in.Tags, exactCase)
	if err != nil {
		return nil, err
	}
	k := &serverCertificate{Account: c.Account, Name: name, Path: path, ID: ids.IAM("ASCA", 17), Uploaded: s.now(c), Expires: cert.NotAfter.UTC(),
		Body: strings.TrimSpace(*in.CertificateBody), Chain: strings.TrimSpace(aws.ToString(in.CertificateChain)), Tags: tags}
	if err := s.putServerCert(tx, k); err != nil {
		return nil, err
	}
	show := showServerCert(k)
	return &iam.UploadServerCertificateOutput{ServerCertificateMetadata: &show, Tags: showTags(tags)}, nil
}

func (s *Service) getServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.GetServerCertificateInput) (*iam.GetServerCertificateOutput, error) {
	k, err := s.editServerCert(tx, c, in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	show := showServerCert(k)
	out := &types.ServerCertificate{ServerCertificateMetadata: &show, CertificateBody: aws.String(k.Body), Tags: allTags(k.Tags)}
	if k.Chain != "" {
		out.CertificateChain = aws.String(k.Chain)
	}
	return &iam.GetServerCertificateOutput{ServerCertificate: out}, nil
}

func (s *Service) listServerCertificates(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListServerCertificatesInput) (*iam.ListServerCertificatesOutput, error) {
	p, err := newPage("ListServerCertificates", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := scanPage(tx, s.serverCerts, c.Account+"/", p, func(k *serverCertificate) bool { return underPath(k.Path, in.PathPrefix) }, showServerCert)
	return &iam.ListServerCertificatesOutput{ServerCertificateMetadataList: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) updateServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateServerCertificateInput) (*iam.UpdateServerCertificateOutput, error) {
	k, err := s.editServerCert(tx, c, in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	if in.NewPath != nil {
		if _, err := checkPath(in.NewPath); err != nil {
			return nil, err
		}
	}
	oldKey := key(k.Account, k.Name)
	rename(&k.Name, &k.Path, in.NewServerCertificateName, in.NewPath)
	if newKey := key(k.Account, k.Name); newKey != oldKey {
		if s.serverCerts.Get(tx, newKey) != nil {
			return nil, entityExists("The Server Certificate with name %s already exists.", k.Name)
		}
		if err := s.serverCerts.Delete(tx, oldKey); err != nil {
			return nil, err
		}
	}
	return &iam.UpdateServerCertificateOutput{}, s.putServerCert(tx, k)
}

func (s *Service) deleteServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteServerCertificateInput) (*iam.DeleteServerCertificateOutput, error) {
	k, err := s.editServerCert(tx, c, in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	return &iam.DeleteServerCertificateOutput{}, s.serverCerts.Delete(tx, key(k.Account, k.Name))
}

func (s *Service) tagServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.TagServerCertificateInput) (*iam.TagServerCertificateOutput, error) {
	k, err := s.editServerCert(tx, c, in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	if k.Tags, err = mergeTags(k.Tags, in.Tags, exactCase); err != nil {
		return nil, err
	}
	return &iam.TagServerCertificateOutput{}, s.putServerCert(tx, k)
}

func (s *Service) untagServerCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UntagServerCertificateInput) (*iam.UntagServerCertificateOutput, error) {
	k, err := s.editServerCert(tx, c, in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	k.Tags = dropTags(k.Tags, in.TagKeys, exactCase)
	return &iam.UntagServerCertificateOutput{}, s.putServerCert(tx, k)
}

func (s *Service) listServerCertificateTags(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListServerCertificateTagsInput) (*iam.ListServerCertificateTagsOutput, error) {
	k, err := s.editServerCert(tx, c, in.ServerCertificateName)
	if err != nil {
		return nil, err
	}
	tags, p, err := tagPage("ListServerCertificateTags", in.Marker, in.MaxItems, k.Tags)
	if err != nil {
		return nil, err
	}
	return &iam.ListServerCertificateTagsOutput{Tags: tags, IsTruncated: p.more, Marker: p.marker}, nil
}
