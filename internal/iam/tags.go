package iam

import (
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// newTags checks and converts the tags of a request.
func newTags(in []types.Tag) ([]tag, error) { return mergeTags(nil, in) }

// mergeTags adds tags to those there are; a key that exists, in whatever case,
// gets the new value. Source: IAM User Guide, "Tags for IAM resources".
func mergeTags(old []tag, in []types.Tag) ([]tag, error) {
	out := slices.Clone(old)
	seen := map[string]bool{}
	for _, t := range in {
		k, v := aws.ToString(t.Key), aws.ToString(t.Value)
		if k == "" || len([]rune(k)) > 128 || len([]rune(v)) > 256 {
			return nil, validation("Tag key %q: keys have 1 to 128 characters and values up to 256.", k)
		}
		lower := strings.ToLower(k)
		if strings.HasPrefix(lower, "aws:") {
			return nil, invalidInput("Tag keys beginning with aws: are reserved for system use.")
		}
		if seen[lower] {
			return nil, invalidInput("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[lower] = true
		if i := slices.IndexFunc(out, func(o tag) bool { return strings.ToLower(o.Key) == lower }); i >= 0 {
			out[i] = tag{k, v}
		} else {
			out = append(out, tag{k, v})
		}
	}
	if len(out) > maxTags {
		return nil, limitExceeded("The number of tags has reached the maximum limit.")
	}
	sort.Slice(out, func(i, j int) bool { return strings.ToLower(out[i].Key) < strings.ToLower(out[j].Key) })
	return out, nil
}

func dropTags(old []tag, keys []string) []tag {
	return slices.DeleteFunc(slices.Clone(old), func(t tag) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, t.Key) })
	})
}

func showTags(tags []tag) []types.Tag {
	if len(tags) == 0 {
		return nil
	}
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
	out := slicePage(tags, p, func(t tag) string { return strings.ToLower(t.Key) })
	show := showTags(out)
	if show == nil {
		show = []types.Tag{}
	}
	return show, p, nil
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
