package iam

import "github.com/sealdesk/sealdesk/internal/api"

func (s *Service) simulateOps() []api.Operation { return nil }
