package kms

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

var aliasPattern = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]+$`)

// checkAliasName refuses names that no alias of a customer can have.
func checkAliasName(name string) error {
	switch {
	case !strings.HasPrefix(name, "alias/") || name == "alias/":
		return errValidation(`Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`)
	case strings.HasPrefix(name, awsAlias):
		return &smithy.GenericAPIError{Code: "NotAuthorizedException", Message: "The alias prefix alias/aws/ is reserved for AWS managed keys.", Fault: smithy.FaultClient}
	case strings.Contains(name, ":"):
		return errValidation("%s contains invalid characters for an alias", name)
	case !aliasPattern.MatchString(name):
		return errValidation("1 validation error detected: Value '%s' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^alias/[a-zA-Z0-9/_-]+$", name)
	case len(name) > 256:
		return &types.InvalidAliasNameException{Message: ptr("An alias name has at most 256 characters.")}
	}
	return nil
}

// aliasTarget finds the key that an alias shall stand for.
func (s *Service) aliasTarget(ctx context.Context, tx *store.Tx, c *api.Call, id *string) (found, error) {
	if ref := str(id); strings.HasPrefix(ref, "alias/") || strings.HasPrefix(ref, "arn:") && strings.Contains(ref, ":alias/") {
		return found{}, errValidation("Aliases must refer to keys. Not aliases")
	}
	return s.find(ctx, tx, c, id, byKey)
}

// onAlias are the questions of an operation on an alias: it needs permission on
// the alias (by IAM, an alias has no policy) and on each key concerned.
func (s *Service) onAlias(c *api.Call, action, name string, keys ...found) ([]api.Target, error) {
	arn := aliasARN(c.Account, c.Region, name)
	note(c, arn)
	targets := []api.Target{{Action: "kms:" + action, ARN: arn, Keys: caller(c)}}
	for _, f := range keys {
		t, err := s.ask(c, f, action, s.about(f, c), nil)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func (s *Service) onCreateAlias(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CreateAliasInput) ([]api.Target, error) {
	if err := checkAliasName(str(in.AliasName)); err != nil {
		return nil, err
	}
	f, err := s.aliasTarget(ctx, tx, c, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	return s.onAlias(c, "CreateAlias", *in.AliasName, f)
}

// createAlias is CreateAlias.
func (s *Service) createAlias(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.CreateAliasInput) (*kms.CreateAliasOutput, error) {
	f, err := s.aliasTarget(ctx, tx, c, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	name := *in.AliasName
	p := path(c.Account, c.Region, name)
	if s.aliases.Get(tx, p) != nil {
		return nil, &types.AlreadyExistsException{Message: ptr("An alias with the name " + aliasARN(c.Account, c.Region, name) + " already exists")}
	}
	if err := describing.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	if err := s.roomForAlias(f.Key); err != nil {
		return nil, err
	}
	return &kms.CreateAliasOutput{}, s.aliases.Put(tx, p, &Alias{Name: name, Target: f.ID, Created: c.Time, Updated: c.Time})
}

func (s *Service) roomForAlias(k *Key) error {
	if most := s.cfg.Quotas.AliasesPerKey; s.byTarget.Count(k.path(), most) >= most {
		return errLimit("The key %s already has %d aliases, the most a key can have.", k.arn(), most)
	}
	return nil
}

// aliasAndKey finds an alias of the caller's account and the key it stands for.
func (s *Service) aliasAndKey(tx *store.Tx, c *api.Call, name string) (*Alias, found, error) {
	if err := checkAliasName(name); err != nil {
		return nil, found{}, err
	}
	a := s.aliases.Get(tx, path(c.Account, c.Region, name))
	if a == nil {
		return nil, found{}, errNoAlias(aliasARN(c.Account, c.Region, name))
	}
	k := s.keys.Get(tx, path(c.Account, c.Region, a.Target))
	if k == nil {
		return nil, found{}, errNoKey(keyARN(c.Account, c.Region, a.Target))
	}
	return a, found{Key: k, alias: name}, nil
}

func (s *Service) onUpdateAlias(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UpdateAliasInput) ([]api.Target, error) {
	_, old, err := s.aliasAndKey(tx, c, str(in.AliasName))
	if err != nil {
		return nil, err
	}
	f, err := s.aliasTarget(ctx, tx, c, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	return s.onAlias(c, "UpdateAlias", *in.AliasName, old, f)
}

// updateAlias is UpdateAlias.
func (s *Service) updateAlias(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UpdateAliasInput) (*kms.UpdateAliasOutput, error) {
	a, old, err := s.aliasAndKey(tx, c, str(in.AliasName))
	if err != nil {
		return nil, err
	}
	f, err := s.aliasTarget(ctx, tx, c, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	if err := describing.check(f.Key, c.Time); err != nil {
		return nil, err
	}
	if old.Usage != f.Usage || (old.Spec == specSymmetric) != (f.Spec == specSymmetric) || old.asymmetric() != f.asymmetric() {
		return nil, errState("Alias " + a.Name + " cannot be changed from a " + old.Spec + " key for " + old.Usage + " to a " + f.Spec + " key for " + f.Usage +
			": the current and the new key must be of the same type and have the same key usage.")
	}
	if a.Target != f.ID {
		if err := s.roomForAlias(f.Key); err != nil {
			return nil, err
		}
	}
	return &kms.UpdateAliasOutput{}, s.aliases.Put(tx, path(c.Account, c.Region, a.Name), &Alias{Name: a.Name, Target: f.ID, Created: a.Created, Updated: c.Time})
}

func (s *Service) onDeleteAlias(_ context.Context, tx *store.Tx, c *api.Call, in *kms.DeleteAliasInput) ([]api.Target, error) {
	_, f, err := s.aliasAndKey(tx, c, str(in.AliasName))
	if err != nil {
		return nil, err
	}
	return s.onAlias(c, "DeleteAlias", *in.AliasName, f)
}

// deleteAlias is DeleteAlias.
func (s *Service) deleteAlias(_ context.Context, tx *store.Tx, c *api.Call, in *kms.DeleteAliasInput) (*kms.DeleteAliasOutput, error) {
	a, _, err := s.aliasAndKey(tx, c, str(in.AliasName))
	if err != nil {
		return nil, err
	}
	return &kms.DeleteAliasOutput{}, s.aliases.Delete(tx, path(c.Account, c.Region, a.Name))
}

// listAliases is ListAliases. The aliases of AWS managed keys are listed before
// their keys are made, then without a target: clients look there for the key of a
// service, which the first DescribeKey makes.
func (s *Service) listAliases(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ListAliasesInput) (*kms.ListAliasesOutput, error) {
	prefix := path(c.Account, c.Region, "")
	var target string
	if in.KeyId != nil {
		f, err := s.find(ctx, tx, c, in.KeyId, byKey)
		if err != nil {
			return nil, err
		}
		target = f.ID
	}
	pg, err := newPage(c, "ListAliases", prefix, in.Limit, 50, 100, in.Marker)
	if err != nil {
		return nil, err
	}
	out := &kms.ListAliasesOutput{Aliases: []types.AliasListEntry{}}
	add := func(p string, e types.AliasListEntry) bool {
		if !pg.more(p) {
			return false
		}
		e.AliasName = ptr(p[len(prefix):])
		e.AliasArn = ptr(aliasARN(c.Account, c.Region, *e.AliasName))
		out.Aliases = append(out.Aliases, e)
		return true
	}
	var unmade []string
	if target == "" {
		unmade = s.unmade(tx, prefix, pg.after)
	}
	full := false
	s.aliases.Scan(tx, prefix, pg.after, func(p string, a *Alias) bool {
		for ; len(unmade) > 0 && unmade[0] < p; unmade = unmade[1:] {
			if full = !add(unmade[0], types.AliasListEntry{}); full {
				return false
			}
		}
		if target != "" && a.Target != target {
			return true
		}
		full = !add(p, types.AliasListEntry{TargetKeyId: ptr(a.Target), CreationDate: ptr(a.Created), LastUpdatedDate: ptr(a.Updated)})
		return !full
	})
	for ; !full && len(unmade) > 0; unmade = unmade[1:] {
		full = !add(unmade[0], types.AliasListEntry{})
	}
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}

// unmade are the aliases, in order and after the key given, of AWS managed keys that
// nobody has used yet.
func (s *Service) unmade(tx *store.Tx, prefix, after string) (paths []string) {
	for _, service := range slices.Sorted(maps.Keys(managed)) {
		if p := prefix + awsAlias + service; p > after && s.aliases.Get(tx, p) == nil {
			paths = append(paths, p)
		}
	}
	return paths
}
