package api

import "github.com/sealdesk/sealdesk/internal/policy"

// Role is what STS needs to know of an IAM role.
type Role struct {
	Account, Name, ID, ARN string
	Trust                  *policy.Document
	MaxSession             int32 // seconds
	Tags                   map[string]string
}
