package kms

import (
	"context"
	"sort"
	"strconv"
	"strings"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// conditions are the service's condition keys of one question.
// Source: KMS developer guide, "AWS KMS condition keys".
type conditions map[string][]string

func (k conditions) set(name string, values ...string) {
	if len(values) > 0 {
		k[name] = values
	}
}

func (k conditions) text(name, value string) {
	if value != "" {
		k[name] = []string{value}
	}
}

func (k conditions) flag(name string, v bool) { k[name] = []string{strconv.FormatBool(v)} }

func (k conditions) context(context map[string]string) {
	if len(context) == 0 {
		return
	}
	names := make([]string, 0, len(context))
	for name, v := range context {
		k["kms:EncryptionContext:"+name] = []string{v}
		names = append(names, name)
	}
	sort.Strings(names)
	k["kms:EncryptionContextKeys"] = names
}

func (k conditions) requestTags(tags map[string]string) {
	if len(tags) == 0 {
		return
	}
	names := make([]string, 0, len(tags))
	for name, v := range tags {
		k["aws:RequestTag/"+name] = []string{v}
		names = append(names, name)
	}
	sort.Strings(names)
	k["aws:TagKeys"] = names
}

// caller are the keys that every KMS operation has.
func caller(c *api.Call) conditions {
	k := make(conditions, 16)
	k["kms:CallerAccount"] = []string{c.Principal.Account}
	k.text("kms:ViaService", c.ViaService())
	return k
}

// describe are the keys that say what the key is.
func describe(f *Key) conditions {
	k := make(conditions, 16)
	k["kms:KeySpec"] = []string{f.Spec}
	k["kms:CustomerMasterKeySpec"] = k["kms:KeySpec"]
	k["kms:KeyUsage"] = []string{f.Usage}
	k["kms:CustomerMasterKeyUsage"] = k["kms:KeyUsage"]
	k["kms:KeyOrigin"] = []string{f.Origin}
	k.flag("kms:MultiRegion", f.MultiRegion)
	if f.MultiRegion {
		if f.isReplica() {
			k.text("kms:MultiRegionKeyType", "REPLICA")
		} else {
			k.text("kms:MultiRegionKeyType", "PRIMARY")
		}
	}
	for name, v := range f.Tags {
		k["aws:ResourceTag/"+name] = []string{v}
	}
	return k
}

// about are the keys that describe the key of the call and the caller.
func (s *Service) about(f found, c *api.Call) conditions {
	k := describe(f.Key)
	k["kms:CallerAccount"] = []string{c.Principal.Account}
	k.text("kms:ViaService", c.ViaService())
	k.text("kms:RequestAlias", f.alias)
	if aliases := s.byTarget.Keys(f.path(), "", 0); len(aliases) > 0 {
		names := make([]string, len(aliases))
		for i, p := range aliases {
			_, _, names[i] = splitPath(p)
		}
		k["kms:ResourceAliases"] = names
	}
	return k
}

// ask is the question whether the caller may do action on the key. granted may be nil.
func (s *Service) ask(c *api.Call, f found, action string, keys conditions, granted func() (policy.Grant, string)) (api.Target, error) {
	doc, err := f.document()
	if err != nil {
		return api.Target{}, err
	}
	arn := f.arn()
	note(c, arn)
	return api.Target{Action: "kms:" + action, ARN: arn, Account: f.Account, Keys: keys, Policy: doc, PolicyID: arn, Mode: policy.ModeKMS, Granted: granted}, nil
}

// askLater is ask with condition keys that are worked out when a policy asks for one.
func (s *Service) askLater(c *api.Call, f found, action string, keys func() map[string][]string, granted func() (policy.Grant, string)) (api.Target, error) {
	t, err := s.ask(c, f, action, nil, granted)
	t.KeysOf = keys
	return t, err
}

// onKey declares an operation on one key. ref gives the KeyId member, more adds
// the operation's own condition keys.
func onKey[In any](s *Service, action string, how accepts, ref func(*In) *string, more func(in *In, f found, k conditions)) api.Option {
	return api.On(func(ctx context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		f, err := s.find(ctx, tx, c, ref(in), how)
		if err != nil {
			return nil, err
		}
		t, err := s.askLater(c, f, action, func() map[string][]string {
			k := s.about(f, c)
			if more != nil {
				more(in, f, k)
			}
			return k
		}, nil)
		return []api.Target{t}, err
	})
}

// onUse is onKey for an operation that a grant can allow. context gives its
// encryption context, nil when the operation has none.
func onUse[In any](s *Service, action string, ref func(*In) *string, context_ func(*In) map[string]string, more func(in *In, f found, k conditions)) api.Option {
	return api.On(func(ctx context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		f, err := s.find(ctx, tx, c, ref(in), byAny)
		if err != nil {
			return nil, err
		}
		if err := s.checkTokens(tx, c); err != nil {
			return nil, err
		}
		var ec map[string]string
		if context_ != nil {
			ec = context_(in)
		}
		t, err := s.askLater(c, f, action, func() map[string][]string {
			k := s.about(f, c)
			k.context(ec)
			if more != nil {
				more(in, f, k)
			}
			return k
		}, func() (policy.Grant, string) { return s.granted(tx, c, f.Key, action, ec) })
		return []api.Target{t}, err
	})
}

// granted tells whether a grant allows the caller the operation.
func (s *Service) granted(tx *store.Tx, c *api.Call, k *Key, operation string, context map[string]string) (policy.Grant, string) {
	g, how := s.matchGrant(tx, c, k, operation, context)
	if g == nil {
		return policy.NoGrant, "no grant allows it"
	}
	return how, "grant " + g.id()
}

// serviceHost tells whether a principal is a service's, such as
// "ec2.us-west-2.amazonaws.com".
func serviceHost(s string) bool {
	name, ok := strings.CutSuffix(s, ".amazonaws.com")
	if !ok || name == "" {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
