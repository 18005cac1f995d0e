// Package arn is the word for Amazon Resource Names: taking them apart, putting
// them together, and matching them against patterns with * and ?.
//
// An ARN is six fields separated by colons; only the last may itself hold colons:
//
//	arn:partition:service:region:account:resource
//
// Partitions are aws, aws-cn, aws-us-gov and the others that AWS runs; a name of
// another partition is refused, so that a typing error does not become a
// resource that nobody owns. Matching never backtracks, whatever the pattern
// (see Wildcard).
//
// Source: AWS General Reference, "Amazon Resource Names (ARNs)"; IAM User Guide,
// "IAM JSON policy elements: Resource".
package arn

import (
	"fmt"
	"strings"
)

// ARN is an Amazon Resource Name in its fields. Region and Account may be empty.
type ARN struct {
	Partition string // "aws"
	Service   string // "kms"
	Region    string // "us-west-2", empty for global services
	Account   string // 12 digits, "aws" for AWS's own, or empty
	Resource  string // "key/1234abcd-…", "user/path/name", "root"
}

// Partitions are the partitions that a name may be in.
var partitions = map[string]bool{
	"aws": true, "aws-cn": true, "aws-us-gov": true, "aws-iso": true, "aws-iso-b": true, "aws-iso-e": true, "aws-iso-f": true, "aws-eusc": true,
}

// IsPartition tells whether s is a partition that AWS runs.
func IsPartition(s string) bool { return partitions[s] }

// Split cuts s into the six fields of an ARN ("arn" is the first) without
// judging them. It is false when s has fewer, or does not begin with "arn:".
func Split(s string) (f [6]string, ok bool) {
	if !strings.HasPrefix(s, "arn:") {
		return f, false
	}
	f[0] = s[:3]
	rest := s[4:]
	for i := 1; i < 5; i++ {
		j := strings.IndexByte(rest, ':')
		if j < 0 {
			return f, false
		}
		f[i], rest = rest[:j], rest[j+1:]
	}
	f[5] = rest
	return f, true
}

// Parse takes an ARN apart. The partition must be a known one, service and
// resource must be there, and an account must be 12 digits or "aws".
func Parse(s string) (ARN, error) {
	f, ok := Split(s)
	if !ok {
		return ARN{}, fmt.Errorf("%q is not an ARN: want arn:partition:service:region:account:resource", s)
	}
	a := ARN{Partition: f[1], Service: f[2], Region: f[3], Account: f[4], Resource: f[5]}
	switch {
	case !partitions[a.Partition]:
		return ARN{}, fmt.Errorf("%q is not an ARN: there is no partition %q", s, a.Partition)
	case a.Service == "":
		return ARN{}, fmt.Errorf("%q is not an ARN: it names no service", s)
	case a.Resource == "":
		return ARN{}, fmt.Errorf("%q is not an ARN: it names no resource", s)
	case a.Account != "" && a.Account != "aws" && !IsAccount(a.Account):
		return ARN{}, fmt.Errorf("%q is not an ARN: account %q is not 12 digits", s, a.Account)
	}
	return a, nil
}

// String puts the ARN together.
func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + a.Service + ":" + a.Region + ":" + a.Account + ":" + a.Resource
}

// Type is what stands before the first / or : of the resource: "key" in
// "key/1234abcd", "log-group" in "log-group:x", and all of "root".
func (a ARN) Type() string {
	if i := strings.IndexAny(a.Resource, "/:"); i >= 0 {
		return a.Resource[:i]
	}
	return a.Resource
}

// Name is what stands after the first / or : of the resource, path included:
// "a/b" in "user/a/b", and "" in "root".
func (a ARN) Name() string {
	if i := strings.IndexAny(a.Resource, "/:"); i >= 0 {
		return a.Resource[i+1:]
	}
	return ""
}

// IsAccount tells whether s is an account ID: 12 digits.
func IsAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Match tells whether name matches pattern field by field: * and ? stand for
// characters within one field (in the last, also for colons). The pattern "*"
// matches everything; a pattern that is not an ARN matches nothing else.
func Match(pattern, name string) bool {
	if pattern == "*" {
		return true
	}
	p, ok := Split(pattern)
	if !ok {
		return false
	}
	n, ok := Split(name)
	if !ok {
		return false
	}
	for i := range p {
		if !CompileWildcard(p[i]).Match(n[i]) {
			return false
		}
	}
	return true
}
