// Package client calls AWS Directory Service Data (ds-data) with the structs of
// package dsdata, signed with Signature Version 4. It exists because the SDK's
// own module for this service is not among this project's dependencies; it
// retries nothing and follows nothing.
package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/sealdesk/sealdesk/internal/wire"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// Client calls one endpoint. Take endpoint, region, credentials and HTTP client from
// an aws.Config with NewFromConfig.
type Client struct {
	endpoint string
	region   string
	creds    aws.CredentialsProvider
	http     aws.HTTPClient
	signer   *v4.Signer
	service  *wire.Service
	now      func() time.Time
}

// NewFromConfig returns a client. Without a BaseEndpoint it calls AWS in the
// region of the configuration.
func NewFromConfig(cfg aws.Config) *Client {
	s, _ := wire.Lookup("ds-data")
	c := &Client{endpoint: "https://ds-data." + cfg.Region + ".amazonaws.com", region: cfg.Region, creds: cfg.Credentials,
		http: cfg.HTTPClient, signer: v4.NewSigner(), service: s, now: time.Now}
	if cfg.BaseEndpoint != nil {
		c.endpoint = *cfg.BaseEndpoint
	}
	if c.http == nil {
		c.http = http.DefaultClient
	}
	return c
}

// call sends one operation. Errors of the service are smithy.APIError.
func (c *Client) call(ctx context.Context, name string, in, out any) error {
	op, ok := c.service.Operation(name)
	if !ok {
		return fmt.Errorf("ds-data has no operation %s", name)
	}
	// An idempotency token makes a repeated call harmless; the caller's goes first.
	if f := reflect.ValueOf(in).Elem().FieldByName("ClientToken"); f.IsValid() && f.IsNil() {
		token := rand.Text()
		f.Set(reflect.ValueOf(&token))
		defer f.SetZero()
	}
	r, body, err := op.NewRequest(c.endpoint, in)
	if err != nil {
		return err
	}
	if c.creds == nil {
		return fmt.Errorf("call %s: no credentials are configured", name)
	}
	creds, err := c.creds.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("call %s: get credentials: %w", name, err)
	}
	hash := sha256.Sum256(body)
	if err := c.signer.SignHTTP(ctx, creds, r, hex.EncodeToString(hash[:]), c.service.SigningName, c.region, c.now()); err != nil {
		return fmt.Errorf("call %s: sign: %w", name, err)
	}
	resp, err := c.http.Do(r.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("call %s: %w", name, err)
	}
	defer resp.Body.Close()
	return op.ReadReply(resp, out)
}

// AddGroupMember calls the operation AddGroupMember.
func (c *Client) AddGroupMember(ctx context.Context, in *dsdata.AddGroupMemberInput) (*dsdata.AddGroupMemberOutput, error) {
	out := new(dsdata.AddGroupMemberOutput)
	if err := c.call(ctx, "AddGroupMember", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// CreateGroup calls the operation CreateGroup.
func (c *Client) CreateGroup(ctx context.Context, in *dsdata.CreateGroupInput) (*dsdata.CreateGroupOutput, error) {
	out := new(dsdata.CreateGroupOutput)
	if err := c.call(ctx, "CreateGroup", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// CreateUser calls the operation CreateUser.
func (c *Client) CreateUser(ctx context.Context, in *dsdata.CreateUserInput) (*dsdata.CreateUserOutput, error) {
	out := new(dsdata.CreateUserOutput)
	if err := c.call(ctx, "CreateUser", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteGroup calls the operation DeleteGroup.
func (c *Client) DeleteGroup(ctx context.Context, in *dsdata.DeleteGroupInput) (*dsdata.DeleteGroupOutput, error) {
	out := new(dsdata.DeleteGroupOutput)
	if err := c.call(ctx, "DeleteGroup", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteUser calls the operation DeleteUser.
func (c *Client) DeleteUser(ctx context.Context, in *dsdata.DeleteUserInput) (*dsdata.DeleteUserOutput, error) {
	out := new(dsdata.DeleteUserOutput)
	if err := c.call(ctx, "DeleteUser", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeGroup calls the operation DescribeGroup.
func (c *Client) DescribeGroup(ctx context.Context, in *dsdata.DescribeGroupInput) (*dsdata.DescribeGroupOutput, error) {
	out := new(dsdata.DescribeGroupOutput)
	if err := c.call(ctx, "DescribeGroup", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeUser calls the operation DescribeUser.
func (c *Client) DescribeUser(ctx context.Context, in *dsdata.DescribeUserInput) (*dsdata.DescribeUserOutput, error) {
	out := new(dsdata.DescribeUserOutput)
	if err := c.call(ctx, "DescribeUser", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// DisableUser calls the operation DisableUser.
func (c *Client) DisableUser(ctx context.Context, in *dsdata.DisableUserInput) (*dsdata.DisableUserOutput, error) {
	out := new(dsdata.DisableUserOutput)
	if err := c.call(ctx, "DisableUser", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ListGroupMembers calls the operation ListGroupMembers.
func (c *Client) ListGroupMembers(ctx context.Context, in *dsdata.ListGroupMembersInput) (*dsdata.ListGroupMembersOutput, error) {
	out := new(dsdata.ListGroupMembersOutput)
	if err := c.call(ctx, "ListGroupMembers", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ListGroups calls the operation ListGroups.
func (c *Client) ListGroups(ctx context.Context, in *dsdata.ListGroupsInput) (*dsdata.ListGroupsOutput, error) {
	out := new(dsdata.ListGroupsOutput)
	if err := c.call(ctx, "ListGroups", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ListGroupsForMember calls the operation ListGroupsForMember.
func (c *Client) ListGroupsForMember(ctx context.Context, in *dsdata.ListGroupsForMemberInput) (*dsdata.ListGroupsForMemberOutput, error) {
	out := new(dsdata.ListGroupsForMemberOutput)
	if err := c.call(ctx, "ListGroupsForMember", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ListUsers calls the operation ListUsers.
func (c *Client) ListUsers(ctx context.Context, in *dsdata.ListUsersInput) (*dsdata.ListUsersOutput, error) {
	out := new(dsdata.ListUsersOutput)
	if err := c.call(ctx, "ListUsers", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// RemoveGroupMember calls the operation RemoveGroupMember.
func (c *Client) RemoveGroupMember(ctx context.Context, in *dsdata.RemoveGroupMemberInput) (*dsdata.RemoveGroupMemberOutput, error) {
	out := new(dsdata.RemoveGroupMemberOutput)
	if err := c.call(ctx, "RemoveGroupMember", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// SearchGroups calls the operation SearchGroups.
func (c *Client) SearchGroups(ctx context.Context, in *dsdata.SearchGroupsInput) (*dsdata.SearchGroupsOutput, error) {
	out := new(dsdata.SearchGroupsOutput)
	if err := c.call(ctx, "SearchGroups", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// SearchUsers calls the operation SearchUsers.
func (c *Client) SearchUsers(ctx context.Context, in *dsdata.SearchUsersInput) (*dsdata.SearchUsersOutput, error) {
	out := new(dsdata.SearchUsersOutput)
	if err := c.call(ctx, "SearchUsers", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// UpdateGroup calls the operation UpdateGroup.
func (c *Client) UpdateGroup(ctx context.Context, in *dsdata.UpdateGroupInput) (*dsdata.UpdateGroupOutput, error) {
	out := new(dsdata.UpdateGroupOutput)
	if err := c.call(ctx, "UpdateGroup", in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// UpdateUser calls the operation UpdateUser.
func (c *Client) UpdateUser(ctx context.Context, in *dsdata.UpdateUserInput) (*dsdata.UpdateUserOutput, error) {
	out := new(dsdata.UpdateUserOutput)
	if err := c.call(ctx, "UpdateUser", in, out); err != nil {
		return nil, err
	}
	return out, nil
}
