package gateway

import (
	"context"
	"crypto/tls"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire"
)

// authorise answers every question that the call raises. It returns the other
// accounts whose resources are touched.
func (g *Gateway) authorise(ctx context.Context, tx *store.Tx, op *api.Operation, c *api.Call, in any) (owners []string, err error) {
	if op.Open && op.Targets == nil {
		return nil, nil
	}
	targets := []api.Target{{ARN: "*"}}
	if op.Targets != nil {
		if targets, err = op.Targets(ctx, tx, c, in); err != nil {
			return nil, err
		}
	}
	pol, err := g.policies(tx, &c.Principal)
	if err != nil {
		return nil, err
	}
	for i := range targets {
		t := &targets[i]
		account := t.Account
		if account == "" {
			account = c.Account
		}
		if account != c.Account && !slices.Contains(owners, account) {
			owners = append(owners, account)
		}
		if op.Open && t.Policy == nil {
			continue
		}
		r := g.request(op, c, t, account)
		layers := policy.Layers{Identity: pol.Identity, Boundary: pol.Boundary, Session: pol.Session, Scoped: pol.Scoped, Mode: t.Mode, Granted: t.Granted}
		if t.Policy != nil {
			layers.Resource = &policy.Source{ID: t.PolicyID, Type: "resource", Document: t.Policy}
		}
		d := policy.Evaluate(r, &layers)
		if d.Allowed() {
			continue
		}
		if t.Hide != nil {
			return owners, t.Hide
		}
		svc, ok := wire.Lookup(op.Service)
		if !ok {
			return owners, &smithy.GenericAPIError{Code: "AccessDeniedException", Message: policy.Message(r, &layers, &d)}
		}
		g.log.Info("call refused", "requestId", c.RequestID, "why", policy.Explain(r, &layers, &d).String())
		message := policy.Message(r, &layers, &d)
		if op.Service == "ec2" {
			message = "You are not authorized to perform this operation. " + message
		}
		reply := svc.Resolve(wire.Denied(message))
		return owners, &smithy.GenericAPIError{Code: reply.Code, Message: reply.Message}
	}
	return owners, nil
}

func (g *Gateway) policies(tx *store.Tx, p *api.Principal) (api.Policies, error) {
	if p.Type == api.AWSService {
		return api.Policies{Identity: g.cfg.ServicePolicies[p.Service]}, nil
	}
	return g.cfg.Identities.Policies(tx, p)
}

// request is one target's question as the policy language sees it.
func (g *Gateway) request(op *api.Operation, c *api.Call, t *api.Target, account string) *policy.Request {
	p := &c.Principal
	r := &policy.Request{Action: t.Action, Resource: t.ARN, ResourceAccount: account, Time: c.Time,
		Principal: policy.Principal{Account: p.Account, ARN: p.ARN, UserID: p.ID, UserName: p.UserName, RoleARN: p.RoleARN, SessionName: p.SessionName, UserARN: p.IssuerARN, IssuerID: p.IssuerID, Service: p.Service, Tags: p.Tags}}
	if r.Action == "" {
		r.Action = op.Action
	}
	switch p.Type {
	case api.Root:
		r.Principal.Type = policy.Root
	case api.IAMUser:
		r.Principal.Type = policy.User
	case api.AssumedRole:
		r.Principal.Type = policy.Role
	case api.FederatedUser:
		r.Principal.Type = policy.Federated
	case api.AWSService:
		r.Principal.Type = policy.Service
	}
	if len(p.SessionTags) > 0 {
		r.Principal.Tags = maps.Clone(p.Tags)
		if r.Principal.Tags == nil {
			r.Principal.Tags = map[string]string{}
		}
		maps.Copy(r.Principal.Tags, p.SessionTags)
	}
	if p.Type != api.AWSService {
		for _, v := range c.Via {
			r.CalledVia = append(r.CalledVia, v+".amazonaws.com")
		}
	}
	r.Keys = func() policy.Context {
		k := globalKeys(c)
		if t.KeysOf != nil {
			maps.Copy(k, t.KeysOf())
		} else {
			maps.Copy(k, t.Keys)
		}
		return k
	}
	return r
}

// globalKeys are the condition keys that the policy package cannot derive from
// the request. Source: IAM user guide, "AWS global condition context keys".
func globalKeys(c *api.Call) map[string][]string {
	p := &c.Principal
	k := make(map[string][]string, 12)
	set := func(key, v string) {
		if v != "" {
			k[key] = []string{v}
		}
	}
	set("aws:RequestedRegion", c.Region)
	set("aws:SecureTransport", strconv.FormatBool(c.Secure))
	set("aws:UserAgent", c.UserAgent)
	if len(c.Via) == 0 {
		set("aws:SourceIp", c.SourceIP)
	} else {
		set("aws:SourceArn", c.SourceARN)
		if p.Type == api.AWSService {
			set("aws:SourceAccount", c.Account)
		}
	}
	set("aws:SourceIdentity", p.SourceIdentity)
	if !p.SessionIssued.IsZero() {
		set("aws:TokenIssueTime", p.SessionIssued.UTC().Format(time.RFC3339))
		set("aws:MultiFactorAuthPresent", strconv.FormatBool(p.MFA))
		if p.MFA {
			set("aws:MultiFactorAuthAge", strconv.FormatInt(int64(c.Time.Sub(p.SessionIssued).Seconds()), 10))
		}
	}
	return k
}

func tlsVersion(v uint16) string { return strings.Replace(tls.VersionName(v), "TLS ", "TLSv", 1) }

func cipherSuite(id uint16) string { return tls.CipherSuiteName(id) }
