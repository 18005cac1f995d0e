package ec2

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

const maxTags = 50

func (s *Service) tagOperations() []api.Operation {
	return []api.Operation{
		update("CreateTags", s.createTags, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.CreateTagsInput) ([]api.Target, error) {
			return s.onTagged(tx, c, in.Resources, tagMap(in.Tags)), nil
		})),
		update("DeleteTags", s.deleteTags, api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DeleteTagsInput) ([]api.Target, error) {
			return s.onTagged(tx, c, in.Resources, tagMap(in.Tags)), nil
		})),
		view("DescribeTags", s.describeTags),
	}
}

func (s *Service) onTagged(tx *store.Tx, c *api.Call, ids []string, tags map[string]string) []api.Target {
	var out []api.Target
	for _, id := range ids {
		kind := kindOf(id)
		t := api.Target{ARN: resourceARN(c, kind, id), Keys: map[string][]string{"ec2:Region": {c.Region}}}
		if have, _, err := s.tagsOf(tx, c, id); err == nil {
			resourceTagKeys(t.Keys, have)
		}
		requestTagKeys(t.Keys, tags)
		out = append(out, t)
	}
	return out
}

// kindOf is the resource type that an ID's prefix tells.
func kindOf(id string) string {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case "vol":
		return "volume"
	case "snap":
		return "snapshot"
	case "i":
		return "instance"
	case "vpc":
		return "vpc"
	case "subnet":
		return "subnet"
	case "sg":
		return "security-group"
	}
	return "*"
}

// tagsOf returns a resource's tags and how to store them.
func (s *Service) tagsOf(tx *store.Tx, c *api.Call, id string) (map[string]string, func(map[string]string) error, error) {
	k := key(c.Account, c.Region, id)
	switch kindOf(id) {
	case "volume":
		v, err := s.find(tx, c, id)
		if err != nil {
			return nil, nil, err
		}
		return v.Tags, func(t map[string]string) error {
			e := s.volumes.Edit(tx, k)
			e.Tags = t
			return s.volumes.Put(tx, k, e)
		}, nil
	case "snapshot":
		n, err := s.findSnapshot(tx, c, id)
		if err != nil {
			return nil, nil, err
		}
		return n.Tags, func(t map[string]string) error {
			e := s.snapshots.Edit(tx, k)
			e.Tags = t
			return s.snapshots.Put(tx, k, e)
		}, nil
	case "instance", "vpc", "subnet", "security-group":
		if !s.isPlace(c, id) {
			return nil, nil, fail("InvalidID", "The ID '%s' is not valid", id)
		}
		var have map[string]string
		if t := s.tags.Get(tx, k); t != nil {
			have = t.Tags
		}
		return have, func(t map[string]string) error { return s.tags.Put(tx, k, &tagSet{Tags: t}) }, nil
	}
	return nil, nil, fail("InvalidID", "The ID '%s' is not valid", id)
}

func (s *Service) createTags(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.CreateTagsInput) (*ec2.CreateTagsOutput, error) {
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	if len(in.Tags) == 0 || len(in.Resources) == 0 {
		return nil, fail("MissingParameter", "The request must contain the parameters resourceIdSet and tagSet")
	}
	for _, id := range in.Resources {
		have, put, err := s.tagsOf(tx, c, id)
		if err != nil {
			return nil, err
		}
		next := make(map[string]string, len(have)+len(in.Tags))
		for k, v := range have {
			next[k] = v
		}
		for k, v := range tagMap(in.Tags) {
			next[k] = v
		}
		if len(next) > maxTags {
			return nil, fail("TagLimitExceeded", "The maximum number of Tags for a resource has been reached. (%s, %d)", id, maxTags)
		}
		if err := put(next); err != nil {
			return nil, err
		}
	}
	return &ec2.CreateTagsOutput{}, nil
}

// deleteTags removes the tags named; a tag given with a value only when it has it,
// and all tags when none is named.
func (s *Service) deleteTags(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DeleteTagsInput) (*ec2.DeleteTagsOutput, error) {
	for _, id := range in.Resources {
		have, put, err := s.tagsOf(tx, c, id)
		if err != nil {
			return nil, err
		}
		next := map[string]string{}
		for k, v := range have {
			remove := len(in.Tags) == 0 || slices.ContainsFunc(in.Tags, func(t types.Tag) bool {
				return aws.ToString(t.Key) == k && (t.Value == nil || *t.Value == v)
			})
			if !remove {
				next[k] = v
			}
		}
		if err := put(next); err != nil {
			return nil, err
		}
	}
	return &ec2.DeleteTagsOutput{}, nil
}

var tagFilters = fields[*types.TagDescription]{of: map[string]func(*types.TagDescription) []string{
	"key":           func(t *types.TagDescription) []string { return one(*t.Key) },
	"resource-id":   func(t *types.TagDescription) []string { return one(*t.ResourceId) },
	"resource-type": func(t *types.TagDescription) []string { return one(string(t.ResourceType)) },
	"value":         func(t *types.TagDescription) []string { return one(*t.Value) },
}, tags: func(t *types.TagDescription) map[string]string { return map[string]string{*t.Key: *t.Value} }}

func (s *Service) describeTags(_ context.Context, tx *store.Tx, c *api.Call, in *ec2.DescribeTagsInput) (*ec2.DescribeTagsOutput, error) {
	p, err := pageOf("DescribeTags", in.MaxResults, in.NextToken, 5, 1000, "", nil)
	if err != nil {
		return nil, err
	}
	match, err := tagFilters.matcher(in.Filters)
	if err != nil {
		return nil, err
	}
	list := []types.TagDescription{}
	add := func(id string, tags map[string]string) {
		for k, v := range tags {
			d := types.TagDescription{Key: aws.String(k), Value: aws.String(v), ResourceId: aws.String(id), ResourceType: types.ResourceType(kindOf(id))}
			if match(&d) {
				list = append(list, d)
			}
		}
	}
	prefix := key(c.Account, c.Region, "")
	s.volumes.Scan(tx, prefix, "", func(_ string, v *volume) bool {
		if !v.Draft {
			add(v.ID, v.Tags)
		}
		return true
	})
	s.snapshots.Scan(tx, prefix, "", func(_ string, n *snapshot) bool {
		if !n.Draft && !n.Deleting {
			add(n.ID, n.Tags)
		}
		return true
	})
	s.tags.Scan(tx, prefix, "", func(k string, t *tagSet) bool {
		add(strings.TrimPrefix(k, prefix), t.Tags)
		return true
	})
	id := func(t *types.TagDescription) string { return *t.ResourceId + "\x00" + *t.Key }
	sort.Slice(list, func(i, j int) bool { return id(&list[i]) < id(&list[j]) })
	out := &ec2.DescribeTagsOutput{}
	out.Tags, out.NextToken = cut(p, list, id)
	return out, nil
}

// checkTags applies the rules for tags. Source: EC2 User Guide, "Tag restrictions".
func checkTags(tags []types.Tag) error {
	seen := map[string]bool{}
	for _, t := range tags {
		k, v := aws.ToString(t.Key), aws.ToString(t.Value)
		switch {
		case k == "":
			return fail("InvalidParameterValue", "Tag key cannot be empty.")
		case len([]rune(k)) > 128:
			return fail("InvalidParameterValue", "Tag key exceeds the maximum length of 128 characters: %.32s…", k)
		case len([]rune(v)) > 256:
			return fail("InvalidParameterValue", "Value of tag %s exceeds the maximum length of 256 characters.", k)
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			return fail("InvalidParameterValue", "Value ( %s ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved for internal use", k)
		case seen[k]:
			return fail("InvalidParameterValue", "Duplicate tag key '%s' specified.", k)
		}
		seen[k] = true
	}
	if len(tags) > maxTags {
		return fail("TagLimitExceeded", "The maximum number of Tags for a resource has been reached. (%d)", maxTags)
	}
	return nil
}

// creationTags are the tags that a creation gives to what it makes.
func creationTags(specs []types.TagSpecification, kind types.ResourceType) (map[string]string, error) {
	var all []types.Tag
	for _, sp := range specs {
		if sp.ResourceType != kind {
			return nil, fail("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", sp.ResourceType)
		}
		all = append(all, sp.Tags...)
	}
	if err := checkTags(all); err != nil {
		return nil, err
	}
	return tagMap(all), nil
}

func tagMap(tags []types.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}

// tagList is in order of key. Without tags it is nil: what is described then has no Tags.
func tagList(tags map[string]string) []types.Tag {
	var out []types.Tag
	for k, v := range tags {
		out = append(out, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	sort.Slice(out, func(i, j int) bool { return *out[i].Key < *out[j].Key })
	return out
}

// createdTags are the tags in the answer to a creation, which has Tags also when there are none.
func createdTags(tags map[string]string) []types.Tag { return append([]types.Tag{}, tagList(tags)...) }
