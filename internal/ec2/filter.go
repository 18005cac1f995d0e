package ec2

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// fields are the filters of one kind of resource: the values that a resource has
// under each filter name. tags, when not nil, adds tag:<key>, tag-key and tag-value.
// absent are documented filters for what no resource here has: they match nothing.
type fields[T any] struct {
	of     map[string]func(T) []string
	absent []string
	tags   func(T) map[string]string
}

// matcher checks the filters and returns a function that tells whether a resource
// matches all of them. Values may use * and ?, with \ to take them literally.
// Source: EC2 User Guide, "Filter the results using the AWS CLI / API".
func (f fields[T]) matcher(filters []types.Filter) (func(T) bool, error) {
	type test struct {
		values func(T) []string
		want   []string
	}
	var tests []test
	for _, x := range filters {
		name := aws.ToString(x.Name)
		t := test{want: x.Values}
		switch {
		case f.of[name] != nil:
			t.values = f.of[name]
		case slices.Contains(f.absent, name):
			t.values = func(T) []string { return nil }
		case f.tags != nil && name == "tag-key":
			t.values = func(r T) []string { return slices.Collect(maps.Keys(f.tags(r))) }
		case f.tags != nil && name == "tag-value":
			t.values = func(r T) []string { return slices.Collect(maps.Values(f.tags(r))) }
		case f.tags != nil && strings.HasPrefix(name, "tag:"):
			k := name[len("tag:"):]
			t.values = func(r T) []string {
				if v, ok := f.tags(r)[k]; ok {
					return []string{v}
				}
				return nil
			}
		default:
			return nil, fail("InvalidParameterValue", "The filter '%s' is invalid", name)
		}
		if len(x.Values) == 0 {
			return nil, fail("InvalidParameterValue", "The filter '%s' has no value", name)
		}
		if len(x.Values) > 200 {
			return nil, fail("FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200")
		}
		tests = append(tests, t)
	}
	return func(r T) bool {
		for _, t := range tests {
			have := t.values(r)
			if !slices.ContainsFunc(t.want, func(p string) bool {
				return slices.ContainsFunc(have, func(v string) bool { return glob(p, v) })
			}) {
				return false
			}
		}
		return true
	}, nil
}

// glob matches v against a pattern with * and ?; \ takes the next character literally.
func glob(p, v string) bool {
	// Iterative with one point of return: linear in practice, no recursion on input.
	pi, vi, star, mark := 0, 0, -1, 0
	for vi < len(v) {
		if pi < len(p) {
			switch c := p[pi]; {
			case c == '*':
				star, mark = pi, vi
				pi++
				continue
			case c == '?':
				pi++
				vi++
				continue
			case c == '\\' && pi+1 < len(p) && p[pi+1] == v[vi]:
				pi += 2
				vi++
				continue
			case c == v[vi]:
				pi++
				vi++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		pi, vi = star+1, mark
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

// page is the part of a list that one call returns. Lists are ordered by ID; a token
// names the last ID returned and the operation it is for.
type page struct {
	operation string
	after     string
	max       int
}

func tokenSum(operation, after string) string {
	h := sha256.Sum256([]byte("ec2 page\x00" + operation + "\x00" + after))
	return hex.EncodeToString(h[:6])
}

// pageOf checks MaxResults (least to most; 0 for no paging) and NextToken. ids are
// the IDs that the call names: with them MaxResults is not allowed.
func pageOf(operation string, maxResults *int32, nextToken *string, least, most int32, idsName string, ids []string) (page, error) {
	p := page{operation: operation}
	if maxResults != nil {
		if len(ids) > 0 {
			return p, fail("InvalidParameterCombination", "The parameter %s cannot be used with the parameter maxResults", idsName)
		}
		if *maxResults < least {
			return p, fail("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than or equal to %d.", *maxResults, least)
		}
		p.max = int(min(*maxResults, most))
	}
	if t := aws.ToString(nextToken); t != "" {
		raw, err := base64.RawURLEncoding.DecodeString(t)
		sum, after, ok := strings.Cut(string(raw), " ")
		if err != nil || !ok || sum != tokenSum(operation, after) {
			return p, fail("InvalidParameterValue", "Unable to parse pagination token")
		}
		p.after = after
	}
	return p, nil
}

// cut returns the page of items, which are in order of id, and the token for the next.
func cut[T any](p page, items []T, id func(*T) string) ([]T, *string) {
	from := sort.Search(len(items), func(i int) bool { return id(&items[i]) > p.after })
	items = items[from:]
	if p.max == 0 || len(items) <= p.max {
		return items, nil
	}
	items = items[:p.max]
	last := id(&items[p.max-1])
	return items, aws.String(base64.RawURLEncoding.EncodeToString([]byte(tokenSum(p.operation, last) + " " + last)))
}

// one, number and flag make filter values.
func one(v string) []string { return []string{v} }
func number(n *int32) []string {
	if n == nil {
		return nil
	}
	return []string{strconv.Itoa(int(*n))}
}
func flag(b bool) []string {
	if b {
		return []string{"true"}
	}
	return []string{"false"}
}
