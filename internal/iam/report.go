package iam

import (
	"bytes"
	"context"
	"encoding/csv"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func (s *Service) reportOps() []api.Operation {
	return []api.Operation{
		api.NewView("iam", "GenerateCredentialReport", s.generateCredentialReport),
		api.NewView("iam", "GetCredentialReport", s.getCredentialReport),
	}
}

// reports are the credential reports, by account. They are made from the state
// at hand in no time, so they live in memory only.
type reports struct {
	mu sync.Mutex
	m  map[string]report
}

type report struct {
	at   time.Time
	body []byte
}

// reportAge is how long a report is good. Source: IAM User Guide, "Generate
// credential reports for your AWS account".
const reportAge = 4 * time.Hour

var reportColumns = []string{"user", "arn", "user_creation_time", "password_enabled", "password_last_used", "password_last_changed", "password_next_rotation", "mfa_active",
	"access_key_1_active", "access_key_1_last_rotated", "access_key_1_last_used_date", "access_key_1_last_used_region", "access_key_1_last_used_service",
	"access_key_2_active", "access_key_2_last_rotated", "access_key_2_last_used_date", "access_key_2_last_used_region", "access_key_2_last_used_service",
	"cert_1_active", "cert_1_last_rotated", "cert_2_active", "cert_2_last_rotated"}

func (s *Service) generateCredentialReport(_ context.Context, tx *store.Tx, c *api.Call, _ *iam.GenerateCredentialReportInput) (*iam.GenerateCredentialReportOutput, error) {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	if r, ok := s.reports.m[c.Account]; !ok || s.now(c).Sub(r.at) >= reportAge {
		if s.reports.m == nil {
			s.reports.m = map[string]report{}
		}
		s.reports.m[c.Account] = report{s.now(c), s.credentialReport(tx, c.Account)}
	}
	return &iam.GenerateCredentialReportOutput{State: types.ReportStateTypeComplete}, nil
}

func (s *Service) getCredentialReport(_ context.Context, _ *store.Tx, c *api.Call, _ *iam.GetCredentialReportInput) (*iam.GetCredentialReportOutput, error) {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	r, ok := s.reports.m[c.Account]
	if !ok {
		return nil, &types.CredentialReportNotPresentException{Message: aws.String("No report exists for this account; call GenerateCredentialReport first.")}
	}
	if s.now(c).Sub(r.at) >= reportAge {
		return nil, &types.CredentialReportExpiredException{Message: aws.String("The report is older than four hours; call GenerateCredentialReport again.")}
	}
	return &iam.GetCredentialReportOutput{Content: slices.Clone(r.body), GeneratedTime: aws.Time(r.at), ReportFormat: types.ReportFormatTypeTextCsv}, nil
}

func (s *Service) credentialReport(tx *store.Tx, account string) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(reportColumns)
	if a := s.accounts.Get(tx, account); a != nil {
		row := []string{"<root_account>", "arn:aws:iam::" + account + ":root", stamp(a.Created), "not_supported", "not_supported", "not_supported", "not_supported", strconv.FormatBool(len(a.MFA) > 0)}
		_ = w.Write(reportCertificates(s.reportKeys(tx, account, row, a.AccessKeys), a.Certificates))
	}
	p, _ := s.passwordPolicy(tx, account)
	s.users.Scan(tx, account+"/", "", func(_ string, u *user) bool {
		row := []string{u.Name, u.arn(), stamp(u.Created)}
		if u.Login == nil {
			row = append(row, "false", "N/A", "N/A", "N/A")
		} else {
			next := "N/A"
			if p.MaxAgeDays > 0 {
				next = stamp(u.Login.Changed.AddDate(0, 0, int(p.MaxAgeDays)))
			}
			used := "no_information"
			if !u.SignedIn.IsZero() {
				used = stamp(u.SignedIn)
			}
			row = append(row, "true", used, stamp(u.Login.Changed), next)
		}
		row = append(row, strconv.FormatBool(len(u.MFA) > 0))
		_ = w.Write(reportCertificates(s.reportKeys(tx, account, row, u.AccessKeys), u.Certificates))
		return true
	})
	w.Flush()
	return b.Bytes()
}

func (s *Service) reportKeys(tx *store.Tx, account string, row, ids []string) []string {
	for i := range 2 {
		var k *accessKey
		if i < len(ids) {
			k = s.keys.Get(tx, account+"/"+ids[i])
		}
		if k == nil {
			row = append(row, "false", "N/A", "N/A", "N/A", "N/A")
			continue
		}
		row = append(row, strconv.FormatBool(k.Active), stamp(k.Created))
		if l, ok := s.lastUse(tx, use{account, k.ID, ""}); ok {
			row = append(row, stamp(l.Time), l.Region, l.Service)
		} else {
			row = append(row, "N/A", "N/A", "N/A")
		}
	}
	return row
}

func reportCertificates(row []string, certs []signingCertificate) []string {
	for i := range maxCertificates {
		if i < len(certs) {
			row = append(row, strconv.FormatBool(!certs[i].Inactive), stamp(certs[i].Uploaded))
		} else {
			row = append(row, "false", "N/A")
		}
	}
	return row
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05+00:00") }
