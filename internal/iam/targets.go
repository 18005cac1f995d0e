package iam

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// This file says what each operation touches: the ARN and condition keys that
// policies see. Source: Service Authorization Reference, "Actions, resources,
// and condition keys for AWS Identity and Access Management". An entity that
// does not exist is authorised under the ARN it would have with path /, so that
// only a caller who may ask learns that it is not there.

// entity is what a request names: its ARN and, when it exists, tags and boundary.
type entity struct {
	arn      string
	tags     []tag
	boundary string
}

// more adds the condition keys that an operation has besides resource tags.
type more[In any] func(in *In, e entity, keys map[string][]string)

func one[In any](f func(tx *store.Tx, c *api.Call, in *In) (entity, error), extra []more[In]) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		e, err := f(tx, c, in)
		if err != nil {
			return nil, err
		}
		keys := map[string][]string{}
		resourceTagKeys(keys, e.tags)
		for _, m := range extra {
			m(in, e, keys)
		}
		return []api.Target{{ARN: e.arn, Account: c.Account, Keys: keys}}, nil
	})
}

// onUser: the operation touches a user. A missing name is the caller's own, for
// the operations that default it and, harmlessly, for those whose name is required.
func onUser[In any](s *Service, name func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		n := name(in)
		if n == nil {
			switch c.Principal.Type {
			case api.Root:
				return entity{arn: "arn:aws:iam::" + c.Account + ":root"}, nil
			case api.IAMUser:
				n = &c.Principal.UserName
			default:
				return entity{}, errNotUser
			}
		}
		if u := s.users.Get(tx, key(c.Account, *n)); u != nil {
			return entity{u.arn(), u.Tags, u.Boundary}, nil
		}
		return entity{arn: iamARN(c.Account, "user", "/", *n)}, nil
	}, extra)
}

var errNotUser = validation("Must specify userName when calling with non-User credentials")

func onGroup[In any](s *Service, name func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		n := aws.ToString(name(in))
		if g := s.groups.Get(tx, key(c.Account, n)); g != nil {
			return entity{arn: g.arn()}, nil
		}
		return entity{arn: iamARN(c.Account, "group", "/", n)}, nil
	}, extra)
}

func onRole[In any](s *Service, name func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		n := aws.ToString(name(in))
		if r := s.roles.Get(tx, key(c.Account, n)); r != nil {
			return entity{r.arn(), r.Tags, r.Boundary}, nil
		}
		return entity{arn: iamARN(c.Account, "role", "/", n)}, nil
	}, extra)
}

func onPolicy[In any](s *Service, arn func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		a := aws.ToString(arn(in))
		if m := s.managed(tx, c.Account, a); m != nil {
			return entity{arn: a, tags: m.Tags}, nil
		}
		return entity{arn: a}, nil
	}, extra)
}

func onProfile[In any](s *Service, name func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		n := aws.ToString(name(in))
		if p := s.profiles.Get(tx, key(c.Account, n)); p != nil {
			return entity{arn: p.arn(), tags: p.Tags}, nil
		}
		return entity{arn: iamARN(c.Account, "instance-profile", "/", n)}, nil
	}, extra)
}

func onProvider[In any](s *Service, arn func(*In) *string, extra ...more[In]) api.Option {
	return one(func(tx *store.Tx, c *api.Call, in *In) (entity, error) {
		a := aws.ToString(arn(in))
		if p := s.provider(tx, c.Account, a); p != nil {
			return entity{arn: a, tags: p.Tags}, nil
		}
		return entity{arn: a}, nil
	}, extra)
}

// onNew: the operation makes an entity of that kind.
func onNew[In any](kind string, f func(*In) (path, name *string), extra ...more[In]) api.Option {
	return one(func(_ *store.Tx, c *api.Call, in *In) (entity, error) {
		path, name := f(in)
		return entity{arn: iamARN(c.Account, kind, pathOf(path), aws.ToString(name))}, nil
	}, extra)
}

// The condition keys that inputs bring.

func withTags[In any](f func(*In) []types.Tag) more[In] {
	return func(in *In, _ entity, keys map[string][]string) { requestTagKeys(keys, f(in)) }
}

func withTagKeys[In any](f func(*In) []string) more[In] {
	return func(in *In, _ entity, keys map[string][]string) { keys["aws:TagKeys"] = f(in) }
}

// withPolicyARN sets iam:PolicyARN: the managed policy to attach or detach.
func withPolicyARN[In any](f func(*In) *string) more[In] {
	return func(in *In, _ entity, keys map[string][]string) {
		keys["iam:PolicyARN"] = []string{aws.ToString(f(in))}
	}
}

// withBoundary sets iam:PermissionsBoundary when the request brings one.
func withBoundary[In any](f func(*In) *string) more[In] {
	return func(in *In, _ entity, keys map[string][]string) {
		if b := f(in); b != nil {
			keys["iam:PermissionsBoundary"] = []string{*b}
		}
	}
}

// ownBoundary sets iam:PermissionsBoundary to the boundary the user or role has:
// the operations that change its policies may be limited to entities that
// carry a certain boundary.
func ownBoundary[In any](_ *In, e entity, keys map[string][]string) {
	if e.boundary != "" {
		keys["iam:PermissionsBoundary"] = []string{e.boundary}
	}
}

func pathOf(p *string) string {
	if p == nil || *p == "" {
		return "/"
	}
	return *p
}

// onList: the operation lists entities of that kind under a path; AWS authorises
// it on the path: arn:aws:iam::ACCT:user/division/.
func onList[In any](kind string, prefix func(*In) *string) api.Option {
	return api.On(func(_ context.Context, _ *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		return []api.Target{{ARN: iamARN(c.Account, kind, pathOf(prefix(in)), "")}}, nil
	})
}
