package iam

import (
	"slices"

	"github.com/sealdesk/sealdesk/internal/api"
)

// Operations are the rows of the operation table that IAM serves.
func (s *Service) Operations() []api.Operation {
	return slices.Concat(s.userOps(), s.keyOps(), s.groupOps(), s.roleOps(), s.profileOps(), s.policyOps(), s.attachOps(), s.accountOps(),
		s.sshKeyOps(), s.certificateOps(), s.serverCertificateOps(), s.serviceCredentialOps(), s.loginOps(), s.mfaOps(), s.providerOps(), s.reportOps(), s.simulateOps(), s.accessOps())
}
