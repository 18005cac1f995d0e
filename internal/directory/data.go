package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

const dsData = "ds-data"

// dataOperations are those of ds-data.
func (s *Service) dataOperations() []api.Operation {
	return []api.Operation{
		dataUpdate(s, "CreateUser", s.createUser),
		dataUpdate(s, "UpdateUser", s.updateUser),
		dataUpdate(s, "DisableUser", s.disableUser),
		dataUpdate(s, "DeleteUser", s.deleteUser),
		dataView(s, "DescribeUser", s.describeUser),
		dataView(s, "ListUsers", s.listUsers),
		dataView(s, "SearchUsers", s.searchUsers),
		dataUpdate(s, "CreateGroup", s.createGroup),
		dataUpdate(s, "UpdateGroup", s.updateGroup),
		dataUpdate(s, "DeleteGroup", s.deleteGroup),
		dataView(s, "DescribeGroup", s.describeGroup),
		dataView(s, "ListGroups", s.listGroups),
		dataView(s, "SearchGroups", s.searchGroups),
		dataUpdate(s, "AddGroupMember", s.addGroupMember),
		dataUpdate(s, "RemoveGroupMember", s.removeGroupMember),
		dataView(s, "ListGroupMembers", s.listGroupMembers),
		dataView(s, "ListGroupsForMember", s.listGroupsForMember),
	}
}

// dataView makes an operation that reads a directory's data.
func dataView[In, Out any](s *Service, name string, f func(tx *store.Tx, d *directory, in *In) (*Out, error)) api.Operation {
	return api.NewView(dsData, name, func(_ context.Context, tx *store.Tx, c *api.Call, in *In) (*Out, error) {
		d, err := s.data(tx, c, in)
		if err != nil {
			return nil, err
		}
		return f(tx, d, in)
	}, onData[In](s, name))
}

// dataUpdate makes an operation that changes a directory's data, once for a ClientToken.
func dataUpdate[In, Out any](s *Service, name string, f func(tx *store.Tx, d *directory, now time.Time, in *In) (*Out, error)) api.Operation {
	return api.NewUpdate(dsData, name, func(_ context.Context, tx *store.Tx, c *api.Call, in *In) (*Out, error) {
		d, err := s.data(tx, c, in)
		if err != nil {
			return nil, err
		}
		touched(c, d)
		return once(s, tx, d, c.Time, name, in, func() (*Out, error) { return f(tx, d, c.Time, in) })
	}, onData[In](s, name))
}

// member reads a *string member of an input by name; nil when there is none.
func member(in any, name string) *string {
	switch name {
	case "DirectoryId", "SAMAccountName", "GroupName", "MemberName", "Realm", "MemberRealm", "ClientToken":
	default:
		panic("directory: no such member: " + name)
	}
	return memberOf(in, name)
}

// onData asks the two questions that AWS asks: may the caller use the operation,
// and may the caller use the directory's data at all (ds:AccessDSData). Source:
// Service Authorization Reference, "Actions, resources, and condition keys for AWS
// Directory Service Data".
func onData[In any](s *Service, name string) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		d := s.lookup(tx, c, deref(member(in, "DirectoryId")))
		if d == nil {
			return nil, noDirectory(deref(member(in, "DirectoryId")))
		}
		access, call := d.target(), d.target()
		access.Action = "ds:AccessDSData"
		call.Action = dsData + ":" + name
		for key, m := range map[string]string{"ds-data:SAMAccountName": "SAMAccountName", "ds-data:MemberName": "MemberName", "ds-data:Realm": "Realm", "ds-data:MemberRealm": "MemberRealm"} {
			if v := member(in, m); v != nil {
				call.Keys[key] = []string{*v}
			}
		}
		if v := member(in, "GroupName"); v != nil {
			call.Keys["ds-data:SAMAccountName"] = []string{*v}
		}
		if v := call.Keys["ds-data:SAMAccountName"]; v != nil {
			call.Keys["ds-data:Identifier"] = []string{"SAMAccountName"}
		}
		return []api.Target{call, access}, nil
	})
}

func noDirectory(id string) error {
	return &dsdata.ResourceNotFoundException{Message: sprintf("Directory %s does not exist.", id)}
}

// data finds the directory whose data a call is about, open for such calls.
func (s *Service) data(tx *store.Tx, c *api.Call, in any) (*directory, error) {
	id := deref(member(in, "DirectoryId"))
	d := s.lookup(tx, c, id)
	if d == nil {
		return nil, noDirectory(id)
	}
	if d.Stage != string(dstypes.DirectoryStageActive) {
		return nil, &dsdata.DirectoryUnavailableException{Reason: dsdata.DirectoryUnavailableReasonInvalidDirectoryState,
			Message: sprintf("Directory %s is not available: its stage is %s, not Active.", d.ID, d.Stage)}
	}
	if !d.DataAccess {
		return nil, &dsdata.AccessDeniedException{Reason: dsdata.AccessDeniedReasonDataDisabled,
			Message: sprintf("Data access of directory %s is disabled. Enable it with ds:EnableDirectoryDataAccess.", d.ID)}
	}
	for _, m := range []string{"Realm", "MemberRealm"} {
		if r := member(in, m); r != nil && !strings.EqualFold(strings.TrimSuffix(*r, "."), d.Name) {
			return nil, refuse(dsdata.ValidationExceptionReasonInvalidRealm, "%s %s is not the domain of directory %s, %s; trusts are not supported.", m, *r, d.ID, d.Name)
		}
	}
	return d, nil
}

// replayTime is how long a ClientToken is remembered. Source: ds-data API, ClientToken.
const replayTime = 8 * time.Hour

// once runs do, or gives the reply that an earlier call with the same ClientToken got.
func once[In, Out any](s *Service, tx *store.Tx, d *directory, now time.Time, operation string, in *In, do func() (*Out, error)) (*Out, error) {
	token := member(in, "ClientToken")
	if token == nil {
		return do()
	}
	js, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode the input of %s: %w", operation, err)
	}
	input, name := sha256.Sum256(js), sha256.Sum256([]byte(*token))
	key, sum := d.key()+"/"+hex.EncodeToString(name[:]), hex.EncodeToString(input[:])
	if r := s.replays.Get(tx, key); r != nil && r.Expires.After(now) {
		if r.Operation != operation || r.Input != sum {
			return nil, &dsdata.ConflictException{Message: ptr("The ClientToken was used before with other parameters. Use a new one.")}
		}
		out := new(Out)
		if err := json.Unmarshal(r.Output, out); err != nil {
			return nil, fmt.Errorf("read the remembered reply of %s: %w", operation, err)
		}
		return out, nil
	}
	out, err := do()
	if err != nil {
		return nil, err
	}
	if js, err = json.Marshal(out); err != nil {
		return nil, fmt.Errorf("encode the reply of %s: %w", operation, err)
	}
	return out, s.replays.Put(tx, key, &replay{Operation: operation, Input: sum, Output: js, Expires: now.Add(replayTime)})
}

// Pages of ds-data.
const (
	dataDefault = 100
	dataMax     = 250
)

// dataPage is one page of a list.
type dataPage struct {
	what  string
	after string
	left  int
	next  *string
}

func newDataPage(what string, max *int32, token *string) (*dataPage, error) {
	p := &dataPage{what: what, left: dataDefault}
	if max != nil {
		if *max < 1 || *max > dataMax {
			return nil, refuse("", "MaxResults must be between 1 and %d, not %d.", dataMax, *max)
		}
		p.left = int(*max)
	}
	var ok bool
	if p.after, ok = readToken(what, token); !ok {
		return nil, refuse(dsdata.ValidationExceptionReasonInvalidNextToken, "The NextToken value is not valid: use the one that the previous page of the same list returned.")
	}
	return p, nil
}

// take says whether the item goes on the page; false also ends the scan.
func (p *dataPage) take(key string) bool {
	if p.left == 0 {
		p.next = makeToken(p.what, p.after)
		return false
	}
	p.left--
	p.after = key
	return true
}

func lower(s string) string { return strings.ToLower(s) }
