package iam

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Signing certificates of users and of the root user.

func (s *Service) certificateOps() []api.Operation {
	return []api.Operation{
		api.NewUpdate("iam", "UploadSigningCertificate", s.uploadSigningCertificate, onUser(s, func(in *iam.UploadSigningCertificateInput) *string { return in.UserName })),
		api.NewView("iam", "ListSigningCertificates", s.listSigningCertificates, onUser(s, func(in *iam.ListSigningCertificatesInput) *string { return in.UserName })),
		api.NewUpdate("iam", "UpdateSigningCertificate", s.updateSigningCertificate, onUser(s, func(in *iam.UpdateSigningCertificateInput) *string { return in.UserName })),
		api.NewUpdate("iam", "DeleteSigningCertificate", s.deleteSigningCertificate, onUser(s, func(in *iam.DeleteSigningCertificateInput) *string { return in.UserName })),
	}
}

// parseCertificates reads PEM that holds X.509 certificates and nothing else but
// text around them.
func parseCertificates(text string) ([]*x509.Certificate, bool) {
	var out []*x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, false
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, false
		}
		out = append(out, c)
	}
	return out, len(out) > 0 && !strings.Contains(string(rest), "-----BEGIN")
}

// certHolder is who has signing certificates: a user or, with name "", the root user.
type certHolder struct {
	name  string
	certs *[]signingCertificate
	put   func(tx *store.Tx) error
}

func (s *Service) certHolder(tx *store.Tx, c *api.Call, name *string) (*certHolder, error) {
	n, root, err := self(c, name)
	if err != nil {
		return nil, err
	}
	if root {
		a := s.editAccount(tx, c)
		return &certHolder{certs: &a.Certificates, put: func(tx *store.Tx) error { return s.accounts.Put(tx, a.ID, a) }}, nil
	}
	u, err := s.editUser(tx, c.Account, n)
	if err != nil {
		return nil, err
	}
	return &certHolder{name: u.Name, certs: &u.Certificates, put: func(tx *store.Tx) error { return s.putUser(tx, u) }}, nil
}

func (h *certHolder) find(id *string) (int, error) {
	i := slices.IndexFunc(*h.certs, func(k signingCertificate) bool { return k.ID == aws.ToString(id) })
	if i < 0 {
		return 0, noSuchEntity("The Certificate with id %s cannot be found.", aws.ToString(id))
	}
	return i, nil
}

func (h *certHolder) show(k *signingCertificate) types.SigningCertificate {
	return types.SigningCertificate{UserName: aws.String(h.name), CertificateId: aws.String(k.ID), CertificateBody: aws.String(k.Body), Status: statusOf(k.Inactive), UploadDate: aws.Time(k.Uploaded)}
}

func (s *Service) uploadSigningCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UploadSigningCertificateInput) (*iam.UploadSigningCertificateOutput, error) {
	h, err := s.certHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	body := aws.ToString(in.CertificateBody)
	certs, ok := parseCertificates(body)
	if !ok || len(certs) != 1 {
		return nil, &types.MalformedCertificateException{Message: aws.String("Certificate " + body + " is malformed.")}
	}
	if s.certificateInUse(tx, c.Account, certs[0]) {
		return nil, &types.DuplicateCertificateException{Message: aws.String("The certificate is already associated with a user of this account.")}
	}
	if len(*h.certs) >= maxCertificates {
		return nil, limitExceeded("Cannot exceed quota for CertificatesPerUser: %d", maxCertificates)
	}
	k := signingCertificate{ID: ids.IAM("", 28), Body: body, Uploaded: s.now(c)}
	*h.certs = append(*h.certs, k)
	if err := h.put(tx); err != nil {
		return nil, err
	}
	show := h.show(&k)
	return &iam.UploadSigningCertificateOutput{Certificate: &show}, nil
}

// certificateInUse says whether anybody of the account has the certificate.
func (s *Service) certificateInUse(tx *store.Tx, account string, cert *x509.Certificate) bool {
	has := func(list []signingCertificate) bool {
		return slices.ContainsFunc(list, func(k signingCertificate) bool {
			c, ok := parseCertificates(k.Body)
			return ok && c[0].Equal(cert)
		})
	}
	if a := s.accounts.Get(tx, account); a != nil && has(a.Certificates) {
		return true
	}
	found := false
	s.users.Scan(tx, account+"/", "", func(_ string, u *user) bool { found = has(u.Certificates); return !found })
	return found
}

func (s *Service) listSigningCertificates(_ context.Context, tx *store.Tx, c *api.Call, in *iam.ListSigningCertificatesInput) (*iam.ListSigningCertificatesOutput, error) {
	h, err := s.certHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	p, err := newPage("ListSigningCertificates", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := []types.SigningCertificate{}
	sorted := slices.SortedFunc(slices.Values(*h.certs), func(a, b signingCertificate) int { return strings.Compare(a.ID, b.ID) })
	for _, k := range slicePage(sorted, p, func(k signingCertificate) string { return k.ID }) {
		list = append(list, h.show(&k))
	}
	return &iam.ListSigningCertificatesOutput{Certificates: list, IsTruncated: p.more, Marker: p.marker}, nil
}

func (s *Service) updateSigningCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.UpdateSigningCertificateInput) (*iam.UpdateSigningCertificateOutput, error) {
	h, err := s.certHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	i, err := h.find(in.CertificateId)
	if err != nil {
		return nil, err
	}
	if (*h.certs)[i].Inactive, err = inactive(in.Status); err != nil {
		return nil, err
	}
	return &iam.UpdateSigningCertificateOutput{}, h.put(tx)
}

func (s *Service) deleteSigningCertificate(_ context.Context, tx *store.Tx, c *api.Call, in *iam.DeleteSigningCertificateInput) (*iam.DeleteSigningCertificateOutput, error) {
	h, err := s.certHolder(tx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	i, err := h.find(in.CertificateId)
	if err != nil {
		return nil, err
	}
	*h.certs = slices.Delete(*h.certs, i, i+1)
	return &iam.DeleteSigningCertificateOutput{}, h.put(tx)
}
