package iam

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// tagCase says whether keys that differ in case only are the same tag: they are
// for users and roles, and not for what else IAM tags.
// Source: IAM User Guide, "Tags for IAM resources", "Rules for tagging".
type tagCase bool

const (
	foldCase  tagCase = true
	exactCase tagCase = false
)

func (c tagCase) same(a, b string) bool { return a == b || bool(c) && strings.EqualFold(a, b) }

func (c tagCase) id(key string) string {
	if c {
		return strings.ToLower(key)
	}
	return key
}

// newTags checks and converts the tags of a request.
func newTags(in []types.Tag, c tagCase) ([]tag, error) { return mergeTags(nil, in, c) }

// mergeTags adds tags to those there are; a key that exists gets the new value.
func mergeTags(old []tag, in []types.Tag, c tagCase) ([]tag, error) {
	out := slices.Clone(old)
	seen := map[string]bool{}
	for _, t := range in {
		k, v := aws.ToString(t.Key), aws.ToString(t.Value)
		if k == "" || len([]rune(k)) > 128 || len([]rune(v)) > 256 {
			return nil, validation("Tag key %q: keys have 1 to 128 characters and values up to 256.", k)
		}
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, invalidInput("Tag keys beginning with aws: are reserved for system use.")
		}
		if id := c.id(k); seen[id] {
			if c == exactCase {
				return nil, invalidInput("Duplicate tag keys found.")
			}
			return nil, invalidInput("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		} else {
			seen[id] = true
		}
		if i := slices.IndexFunc(out, func(o tag) bool { return c.same(o.Key, k) }); i >= 0 {
			out[i] = tag{k, v}
		} else {
			out = append(out, tag{k, v})
		}
	}
	if len(out) > maxTags {
		return nil, limitExceeded("The number of tags has reached the maximum limit.")
	}
	return out, nil
}

func dropTags(old []tag, keys []string, c tagCase) []tag {
	return slices.DeleteFunc(slices.Clone(old), func(t tag) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return c.same(k, t.Key) })
	})
}

// showTags is nil when there are none, as most replies leave the member out then;
// allTags is empty.
func showTags(tags []tag) []types.Tag {
	if len(tags) == 0 {
		return nil
	}
	return allTags(tags)
}

func allTags(tags []tag) []types.Tag {
	out := make([]types.Tag, len(tags))
	for i, t := range tags {
		out[i] = types.Tag{Key: aws.String(t.Key), Value: aws.String(t.Value)}
	}
	return out
}

// tagPage is a page of an entity's tags, for the List…Tags operations.
func tagPage(op string, marker *string, max *int32, tags []tag) ([]types.Tag, *page, error) {
	p, err := newPage(op, marker, max)
	if err != nil {
		return nil, nil, err
	}
	sorted := slices.SortedFunc(slices.Values(tags), func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return allTags(slicePage(sorted, p, func(t tag) string { return t.Key })), p, nil
}

// resourceTagKeys adds the condition keys of an entity's tags. Users and roles
// have iam:ResourceTag besides aws:ResourceTag.
func resourceTagKeys(keys map[string][]string, tags []tag) {
	for _, t := range tags {
		keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
		keys["iam:ResourceTag/"+t.Key] = []string{t.Value}
	}
}

// requestTagKeys adds the condition keys of the tags a request brings.
func requestTagKeys(keys map[string][]string, tags []types.Tag) {
	for _, t := range tags {
		k := aws.ToString(t.Key)
		keys["aws:RequestTag/"+k] = []string{aws.ToString(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], k)
	}
}
