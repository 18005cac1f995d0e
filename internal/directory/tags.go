package directory

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	dstypes "github.com/aws/aws-sdk-go-v2/service/directoryservice/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

const maxTags = 50

// mergeTags returns old with tags added. Source: AWS General Reference, "Tag naming limits".
func mergeTags(old map[string]string, tags []dstypes.Tag) (map[string]string, error) {
	out := maps.Clone(old)
	if out == nil && len(tags) > 0 {
		out = map[string]string{}
	}
	for _, t := range tags {
		k := deref(t.Key)
		if k == "" || strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, invalid("The tag key %q is not valid: it must not be empty or begin with aws:.", k)
		}
		out[k] = deref(t.Value)
	}
	if len(out) > maxTags {
		return nil, &dstypes.TagLimitExceededException{Message: sprintf("Tag limit exceeded: a directory has at most %d tags.", maxTags)}
	}
	return out, nil
}

func (s *Service) onTags(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.AddTagsToResourceInput) ([]api.Target, error) {
	d, err := s.find(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	t := d.target()
	requestTags(t.Keys, in.Tags)
	return []api.Target{t}, nil
}

func (s *Service) onUntag(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.RemoveTagsFromResourceInput) ([]api.Target, error) {
	d, err := s.find(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	t := d.target()
	t.Keys["aws:TagKeys"] = in.TagKeys
	return []api.Target{t}, nil
}

func (s *Service) addTags(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.AddTagsToResourceInput) (*directoryservice.AddTagsToResourceOutput, error) {
	d, err := s.edit(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	if d.Tags, err = mergeTags(d.Tags, in.Tags); err != nil {
		return nil, err
	}
	touched(c, d)
	return &directoryservice.AddTagsToResourceOutput{}, s.directories.Put(tx, d.key(), d)
}

func (s *Service) removeTags(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.RemoveTagsFromResourceInput) (*directoryservice.RemoveTagsFromResourceOutput, error) {
	d, err := s.edit(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	for _, k := range in.TagKeys {
		delete(d.Tags, k)
	}
	touched(c, d)
	return &directoryservice.RemoveTagsFromResourceOutput{}, s.directories.Put(tx, d.key(), d)
}

func (s *Service) listTags(_ context.Context, tx *store.Tx, c *api.Call, in *directoryservice.ListTagsForResourceInput) (*directoryservice.ListTagsForResourceOutput, error) {
	d, err := s.find(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	after, ok := readToken("tags "+d.ID, in.NextToken)
	if !ok {
		return nil, badToken()
	}
	limit := int(deref(in.Limit))
	if limit <= 0 || limit > maxTags {
		limit = maxTags
	}
	out := &directoryservice.ListTagsForResourceOutput{Tags: []dstypes.Tag{}}
	for _, k := range slices.Sorted(maps.Keys(d.Tags)) {
		if k <= after && after != "" {
			continue
		}
		if len(out.Tags) == limit {
			out.NextToken = makeToken("tags "+d.ID, *out.Tags[limit-1].Key)
			break
		}
		out.Tags = append(out.Tags, dstypes.Tag{Key: ptr(k), Value: ptr(d.Tags[k])})
	}
	return out, nil
}
