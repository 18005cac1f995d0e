package iam

import (
	"slices"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
)

// Operations are the rows of the operation table that IAM serves.
func (s *Service) Operations() []api.Operation {
	ops := slices.Concat(s.userOps(), s.keyOps(), s.groupOps(), s.roleOps(), s.profileOps(), s.policyOps(), s.attachOps(), s.accountOps(),
		s.sshKeyOps(), s.certificateOps(), s.serverCertificateOps(), s.serviceCredentialOps(), s.loginOps(), s.mfaOps(), s.providerOps(), s.reportOps(), s.simulateOps(), s.accessOps())
	for i := range ops {
		ops[i].Admit = admit
	}
	return ops
}

// admit refuses temporary credentials with which AWS calls no IAM operation, in
// AWS's words, before any policy is asked; see sessionLimits.
func admit(c *api.Call) error {
	if len(c.Via) == 0 && len(sessionLimits(&c.Principal)) > 0 {
		return &smithy.GenericAPIError{Code: "InvalidClientTokenId", Message: "The security token included in the request is invalid", Fault: smithy.FaultClient}
	}
	return nil
}
