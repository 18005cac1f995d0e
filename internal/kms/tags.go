package kms

import (
	"context"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

func tagMap(tags []types.Tag) map[string]string {
	if len(tags) == 0 {
		return nil
	}
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[str(t.TagKey)] = str(t.TagValue)
	}
	return m
}

func errTag(message string) error { return &types.TagException{Message: ptr(message)} }

// newTags is old with tags added, checked as AWS does.
func (s *Service) newTags(old map[string]string, tags []types.Tag) (map[string]string, error) {
	out := make(map[string]string, len(old)+len(tags))
	for k, v := range old {
		out[k] = v
	}
	seen := map[string]bool{}
	for _, t := range tags {
		key := str(t.TagKey)
		switch {
		case key == "" || len(key) > 128:
			return nil, errTag("A tag key has 1 to 128 characters.")
		case len(str(t.TagValue)) > 256:
			return nil, errTag("A tag value has at most 256 characters.")
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, errTag("Tags beginning with aws: are reserved")
		case seen[key]:
			return nil, errTag("Duplicate tag keys")
		}
		seen[key] = true
		out[key] = str(t.TagValue)
	}
	if most := s.cfg.Quotas.TagsPerKey; len(out) > most {
		return nil, errTag("Too many tags")
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// tagResource is TagResource.
func (s *Service) tagResource(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.TagResourceInput) (*kms.TagResourceOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, describing)
	if err != nil {
		return nil, err
	}
	if k.Tags, err = s.newTags(k.Tags, in.Tags); err != nil {
		return nil, err
	}
	return &kms.TagResourceOutput{}, s.put(tx, k)
}

// untagResource is UntagResource.
func (s *Service) untagResource(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.UntagResourceInput) (*kms.UntagResourceOutput, error) {
	k, err := s.edit(ctx, tx, c, in.KeyId, describing)
	if err != nil {
		return nil, err
	}
	for _, key := range in.TagKeys {
		delete(k.Tags, key)
	}
	return &kms.UntagResourceOutput{}, s.put(tx, k)
}

// listResourceTags is ListResourceTags.
func (s *Service) listResourceTags(ctx context.Context, tx *store.Tx, c *api.Call, in *kms.ListResourceTagsInput) (*kms.ListResourceTagsOutput, error) {
	f, err := s.find(ctx, tx, c, in.KeyId, byKey)
	if err != nil {
		return nil, err
	}
	pg, err := newPage(c, "ListResourceTags", f.path()+"/", in.Limit, 50, 50, in.Marker)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(f.Tags))
	for k := range f.Tags {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := &kms.ListResourceTagsOutput{Tags: []types.Tag{}}
	for _, k := range keys {
		p := f.path() + "/" + k
		if p <= pg.after {
			continue
		}
		if !pg.more(p) {
			break
		}
		out.Tags = append(out.Tags, types.Tag{TagKey: ptr(k), TagValue: ptr(f.Tags[k])})
	}
	out.NextMarker, out.Truncated = pg.next()
	return out, nil
}
