// Package api is the vocabulary between the gateway and the services: a Call
// (who, where, when), an Operation (one row of the table that routes,
// authorises, audits and documents), and the way one service calls another.
package api

import (
	"context"
	"fmt"
	"time"

	"github.com/sealdesk/sealdesk/internal/audit"
)

// Call is one call of one operation: who makes it, where and when. The gateway
// makes it; a service reads it and annotates Record.
type Call struct {
	RequestID string
	// Time is when the call arrived, UTC, cut to milliseconds.
	Time   time.Time
	Region string
	// Account is the account whose resources are meant: the caller's.
	Account   string
	Principal Principal

	SourceIP  string
	UserAgent string
	Secure    bool // over TLS
	TLS       *audit.TLSDetails

	// Via is the chain of services that forwarded the call, first to last:
	// ["workspaces"] when WorkSpaces calls KMS for the caller. Empty when the
	// caller calls directly.
	Via []string
	// OnBehalfOf is set when a service calls as itself: whose request it works on.
	OnBehalfOf *Principal
	// SourceARN is the resource on whose behalf a service calls (aws:SourceArn).
	SourceARN string
	// GrantTokens are the tokens the call brought.
	GrantTokens []string

	// Prepared is what the operation's Before left for its transaction, or its
	// Targets for the operation.
	Prepared any

	// Record is the CloudTrail record that will be written for this call. An
	// operation may set Resources, AdditionalEventData and, where the input as
	// given is not what AWS records, RequestParameters and ResponseElements.
	Record *audit.Record
}

// Host is a service's name as policies and records show it in a region:
// "workspaces.us-west-2.amazonaws.com".
func Host(service, region string) string {
	return service + "." + region + ".amazonaws.com"
}

// ViaService is the value of kms:ViaService, "" for a direct call.
func (c *Call) ViaService() string {
	if len(c.Via) == 0 {
		return ""
	}
	return Host(c.Via[len(c.Via)-1], c.Region)
}

// InvokedBy is the service that CloudTrail names as invoker, "" for a direct call.
func (c *Call) InvokedBy() string {
	if len(c.Via) == 0 {
		return ""
	}
	return c.Via[len(c.Via)-1] + ".amazonaws.com"
}

// Forward is a call to another service with the caller's own principal and
// permissions, as AWS does with forward access sessions: the caller must be
// allowed to do it, and service shows as kms:ViaService and invokedBy.
func (c *Call) Forward(service string) *Call {
	n := *c
	n.Via = append(append([]string(nil), c.Via...), service)
	n.Record, n.Prepared = nil, nil
	return &n
}

// AsService is a call that a service makes as itself, in the caller's account
// and region, on behalf of the caller.
func (c *Call) AsService(service string) *Call {
	n := *c
	onBehalf := c.Principal
	if c.OnBehalfOf != nil {
		onBehalf = *c.OnBehalfOf
	}
	n.OnBehalfOf = &onBehalf
	n.Principal = ServicePrincipal(service, c.Account, c.Region)
	n.Via = append(append([]string(nil), c.Via...), service)
	n.Record, n.Prepared = nil, nil
	return &n
}

// ServicePrincipal is the principal of a service at work in one account and region.
func ServicePrincipal(service, account, region string) Principal {
	return Principal{Type: AWSService, Account: account, ARN: Host(service, region), ID: Host(service, region), Service: service}
}

// ServiceCall is a call that a service makes on its own account, without a
// request behind it: what a reconciler uses.
func ServiceCall(service, account, region string, now time.Time) *Call {
	host := service + ".amazonaws.com"
	return &Call{Time: now.UTC().Truncate(time.Millisecond), Region: region, Account: account,
		Principal: ServicePrincipal(service, account, region), SourceIP: host, UserAgent: host, Secure: true, Via: []string{service}}
}

// Caller runs operations in process: the same table, authorised and audited as a
// call from outside; only HTTP and SigV4 are skipped. c must come from Forward,
// AsService or ServiceCall.
type Caller interface {
	Invoke(ctx context.Context, c *Call, service, operation string, in any) (out any, err error)
}

// Do is Invoke with the output's type: Do[kms.CreateGrantOutput](ctx, caller, call, "kms", "CreateGrant", in).
func Do[Out any](ctx context.Context, caller Caller, c *Call, service, operation string, in any) (*Out, error) {
	out, err := caller.Invoke(ctx, c, service, operation, in)
	if err != nil {
		return nil, err
	}
	o, ok := out.(*Out)
	if !ok {
		return nil, fmt.Errorf("%s:%s returned %T, want %T", service, operation, out, new(Out))
	}
	return o, nil
}
