package audit

import (
	"encoding/json"
	"time"
)

// Record is one CloudTrail record. Field names and order are those of the
// CloudTrail User Guide, "CloudTrail record contents". A record never holds
// plaintext, ciphertext, secret keys, passwords or tokens.
type Record struct {
	EventVersion        string         `json:"eventVersion"`
	UserIdentity        UserIdentity   `json:"userIdentity"`
	EventTime           Time           `json:"eventTime"`
	EventSource         string         `json:"eventSource"` // "kms.amazonaws.com"
	EventName           string         `json:"eventName"`
	AWSRegion           string         `json:"awsRegion"`
	SourceIPAddress     string         `json:"sourceIPAddress"`
	UserAgent           string         `json:"userAgent"`
	ErrorCode           string         `json:"errorCode,omitempty"`
	ErrorMessage        string         `json:"errorMessage,omitempty"`
	RequestParameters   map[string]any `json:"requestParameters"` // null when none
	ResponseElements    map[string]any `json:"responseElements"`  // null for calls that change nothing
	AdditionalEventData map[string]any `json:"additionalEventData,omitempty"`
	RequestID           string         `json:"requestID,omitempty"` // "" for what no request asked for
	EventID             string         `json:"eventID"`
	ReadOnly            bool           `json:"readOnly"`
	Resources           []Resource     `json:"resources,omitempty"`
	EventType           string         `json:"eventType"` // AwsApiCall, AwsServiceEvent, AwsConsoleSignIn
	ManagementEvent     bool           `json:"managementEvent"`
	RecipientAccountID  string         `json:"recipientAccountId"`
	// ServiceEventDetails says what an AwsServiceEvent did.
	ServiceEventDetails map[string]any `json:"serviceEventDetails,omitempty"`
	SharedEventID       string         `json:"sharedEventID,omitempty"`
	EventCategory       string         `json:"eventCategory"`
	TLSDetails          *TLSDetails    `json:"tlsDetails,omitempty"`
	// SessionCredentialFromConsole is "true" for calls made by the console.
	SessionCredentialFromConsole string `json:"sessionCredentialFromConsole,omitempty"`
}

// UserIdentity says who called. Source: CloudTrail User Guide, "CloudTrail
// userIdentity element".
type UserIdentity struct {
	Type           string          `json:"type,omitempty"` // Root, IAMUser, AssumedRole, FederatedUser, AWSService, AWSAccount
	PrincipalID    string          `json:"principalId,omitempty"`
	ARN            string          `json:"arn,omitempty"`
	AccountID      string          `json:"accountId,omitempty"`
	AccessKeyID    string          `json:"accessKeyId,omitempty"`
	UserName       string          `json:"userName,omitempty"`
	SessionContext *SessionContext `json:"sessionContext,omitempty"`
	InvokedBy      string          `json:"invokedBy,omitempty"` // "workspaces.amazonaws.com"
	// IdentityProvider vouched for a WebIdentityUser or SAMLUser.
	IdentityProvider string `json:"identityProvider,omitempty"`
}

// SessionContext describes the session of temporary credentials.
type SessionContext struct {
	SessionIssuer *SessionIssuer    `json:"sessionIssuer,omitempty"`
	Attributes    map[string]string `json:"attributes,omitempty"` // creationDate, mfaAuthenticated
}

// SessionIssuer is who handed the session out: for an assumed role, the role.
type SessionIssuer struct {
	Type        string `json:"type"`
	PrincipalID string `json:"principalId"`
	ARN         string `json:"arn"`
	AccountID   string `json:"accountId"`
	UserName    string `json:"userName"`
}

// Resource is one resource that the call touched.
type Resource struct {
	AccountID string `json:"accountId,omitempty"`
	Type      string `json:"type,omitempty"` // "AWS::KMS::Key"
	ARN       string `json:"ARN"`
}

// TLSDetails describes the connection of a call made over TLS.
type TLSDetails struct {
	TLSVersion               string `json:"tlsVersion"`
	CipherSuite              string `json:"cipherSuite"`
	ClientProvidedHostHeader string `json:"clientProvidedHostHeader"`
}

// Time prints as CloudTrail prints time: UTC, whole seconds.
type Time struct{ time.Time }

// MarshalJSON yields "2006-01-02T15:04:05Z".
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05Z"`)), nil
}

// UnmarshalJSON reads an RFC 3339 time.
func (t *Time) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &t.Time) }
