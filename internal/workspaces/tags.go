package workspaces

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// maxTags a resource may have. Source: WorkSpaces API, CreateTags.
const maxTags = 50

// kinds of resource by ID prefix, as ARNs name them.
var kinds = []struct{ prefix, kind string }{{"ws-", "workspace"}, {"wsb-", "workspacebundle"}, {"wsi-", "workspaceimage"}, {"wsipg-", "workspaceipgroup"}, {"wsca-", "connectionalias"}, {"d-", "directory"}}

func kindOf(id string) string {
	for _, k := range kinds {
		if strings.HasPrefix(id, k.prefix) {
			return k.kind
		}
	}
	return "workspace"
}

func (s *Service) tagOperations() []api.Operation {
	target := func(c *api.Call, id *string, tags []wstypes.Tag, tagKeys []string) []api.Target {
		t := s.targets(c, kindOf(deref(id)), []string{deref(id)})
		if t[0].Keys == nil {
			t[0].Keys = map[string][]string{}
		}
		for _, tag := range tags {
			t[0].Keys["aws:RequestTag/"+deref(tag.Key)] = []string{deref(tag.Value)}
			tagKeys = append(tagKeys, deref(tag.Key))
		}
		if len(tagKeys) > 0 {
			t[0].Keys["aws:TagKeys"] = tagKeys
		}
		return t
	}
	return []api.Operation{
		api.NewUpdate(name, "CreateTags", s.createTags, api.On(on(func(c *api.Call, in *workspaces.CreateTagsInput) []api.Target {
			return target(c, in.ResourceId, in.Tags, nil)
		}))),
		api.NewUpdate(name, "DeleteTags", s.deleteTags, api.On(on(func(c *api.Call, in *workspaces.DeleteTagsInput) []api.Target {
			return target(c, in.ResourceId, nil, slices.Clone(in.TagKeys))
		}))),
		api.NewView(name, "DescribeTags", s.describeTags, api.On(on(func(c *api.Call, in *workspaces.DescribeTagsInput) []api.Target {
			return target(c, in.ResourceId, nil, nil)
		}))),
	}
}

// tagMap checks new tags.
func tagMap(tags []wstypes.Tag) (map[string]string, error) {
	m := map[string]string{}
	for _, t := range tags {
		if workspaceTag.MatchString(deref(t.Key)) {
			return nil, invalidValues("Tag keys that begin with aws: are reserved.")
		}
		m[deref(t.Key)] = deref(t.Value)
	}
	if len(m) > maxTags {
		msg := "A resource has at most 50 tags."
		return nil, &wstypes.ResourceLimitExceededException{Message: &msg}
	}
	return m, nil
}

// tagsOf finds the tags of any kind of resource.
func (s *Service) tagsOf(tx *store.Tx, c *api.Call, id string) (map[string]string, bool) {
	var tags map[string]string
	_, ok := s.onTagged(tx, c, id, func(t map[string]string) map[string]string { tags = t; return nil })
	return tags, ok
}

// onTagged shows f the tags of a resource and, when f returns some, returns how
// to store them in their place.
func (s *Service) onTagged(tx *store.Tx, c *api.Call, id string, f func(map[string]string) map[string]string) (save func() error, ok bool) {
	k := key(c.Account, c.Region, id)
	switch kindOf(id) {
	case "workspace":
		if r := s.workspaces.Get(tx, k); r != nil {
			tags := f(r.Tags)
			return func() error { e := s.workspaces.Edit(tx, k); e.Tags = tags; return s.workspaces.Put(tx, k, e) }, true
		}
	case "workspacebundle":
		if r := s.bundles.Get(tx, k); r != nil {
			tags := f(r.Tags)
			return func() error { e := s.bundles.Edit(tx, k); e.Tags = tags; return s.bundles.Put(tx, k, e) }, true
		}
	case "workspaceipgroup":
		if r := s.ipGroups.Get(tx, k); r != nil {
			tags := f(r.Tags)
			return func() error { e := s.ipGroups.Edit(tx, k); e.Tags = tags; return s.ipGroups.Put(tx, k, e) }, true
		}
	case "workspaceimage":
		if r := s.images.Get(tx, k); r != nil {
			tags := f(r.Tags)
			return func() error { e := s.images.Edit(tx, k); e.Tags = tags; return s.images.Put(tx, k, e) }, true
		}
	case "connectionalias":
		if r := s.aliases.Get(tx, k); r != nil {
			tags := f(r.Tags)
			return func() error { e := s.aliases.Edit(tx, k); e.Tags = tags; return s.aliases.Put(tx, k, e) }, true
		}
	case "directory":
		if r := s.directories.Get(tx, k); r != nil {
			tags := f(r.Tags)
			return func() error { e := s.directories.Edit(tx, k); e.Tags = tags; return s.directories.Put(tx, k, e) }, true
		}
	}
	return nil, false
}

func (s *Service) createTags(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.CreateTagsInput) (*workspaces.CreateTagsOutput, error) {
	add, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	count := 0
	save, ok := s.onTagged(tx, c, deref(in.ResourceId), func(tags map[string]string) map[string]string {
		all := maps.Clone(tags)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, add)
		count = len(all)
		return all
	})
	if !ok {
		return nil, notFound("resource", deref(in.ResourceId))
	}
	if count > maxTags {
		m := "A resource has at most 50 tags."
		return nil, &wstypes.ResourceLimitExceededException{Message: &m}
	}
	return &workspaces.CreateTagsOutput{}, save()
}

func (s *Service) deleteTags(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DeleteTagsInput) (*workspaces.DeleteTagsOutput, error) {
	save, ok := s.onTagged(tx, c, deref(in.ResourceId), func(tags map[string]string) map[string]string {
		left := maps.Clone(tags)
		for _, k := range in.TagKeys {
			delete(left, k)
		}
		return left
	})
	if !ok {
		return nil, notFound("resource", deref(in.ResourceId))
	}
	return &workspaces.DeleteTagsOutput{}, save()
}

func (s *Service) describeTags(_ context.Context, tx *store.Tx, c *api.Call, in *workspaces.DescribeTagsInput) (*workspaces.DescribeTagsOutput, error) {
	tags, ok := s.tagsOf(tx, c, deref(in.ResourceId))
	if !ok {
		return nil, notFound("resource", deref(in.ResourceId))
	}
	out := &workspaces.DescribeTagsOutput{TagList: []wstypes.Tag{}}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		v := tags[k]
		out.TagList = append(out.TagList, wstypes.Tag{Key: &k, Value: &v})
	}
	return out, nil
}
