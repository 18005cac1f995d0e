package sts

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	maxSessionTags     = 50
	maxPolicyARNs      = 10
	maxSessionPolicy   = policy.MaxSessionPolicy // characters of inline policy and policy ARNs together
	packedAllotment    = 2048                    // bytes that session policies and tags may take when packed
	minDuration        = 900
	maxUserDuration    = 129600
	defaultDuration    = 3600
	defaultUserSession = 43200
	maxRootSession     = 3600
	maxChained         = 3600
)

// scope is what a request narrows a session to: policies, and the tags it brings.
type scope struct {
	policies []string
	arns     []string
	tags     map[string]string
	keys     []string // of tags, in order
	percent  int      // packed size, in percent of what is allotted; 0 without any
}

// newScope checks the session policies and tags of a request. account is where
// the policies must exist: that of the role or user.
func (s *Service) newScope(tx *store.Tx, account string, text *string, arns []types.PolicyDescriptorType, tags []types.Tag) (*scope, error) {
	sc := &scope{}
	plain := 0
	if text != nil {
		if _, err := policy.Parse([]byte(*text), policy.Session); err != nil {
			var pe *policy.ParseError
			if errors.As(err, &pe) {
				return nil, malformedPolicy("%s", pe.Text())
			}
			return nil, malformedPolicy("%s", err)
		}
		sc.policies = []string{*text}
		plain += len([]rune(*text))
	}
	if len(arns) > maxPolicyARNs {
		return nil, validation("A session can have at most %d managed session policies; this request names %d.", maxPolicyARNs, len(arns))
	}
	for _, d := range arns {
		arn := aws.ToString(d.Arn)
		if !s.iam.ManagedPolicyExists(tx, account, arn) {
			return nil, validation("Policy %s does not exist in account %s. Session policies must be in the account of the session.", arn, account)
		}
		sc.arns = append(sc.arns, arn)
		plain += len(arn)
	}
	if plain > maxSessionPolicy {
		return nil, tooLarge((plain*100 + maxSessionPolicy - 1) / maxSessionPolicy)
	}
	if err := sc.addTags(tags); err != nil {
		return nil, err
	}
	sc.pack()
	if sc.percent > 100 {
		return nil, tooLarge(sc.percent)
	}
	return sc, nil
}

// addTags checks session tags. Source: IAM User Guide, "Pass session tags in AWS STS".
func (sc *scope) addTags(tags []types.Tag) error {
	if len(tags) > maxSessionTags {
		return validation("A session can have at most %d tags; this request brings %d.", maxSessionTags, len(tags))
	}
	for _, t := range tags {
		k, v := aws.ToString(t.Key), aws.ToString(t.Value)
		if k == "" || len([]rune(k)) > 128 || len([]rune(v)) > 256 {
			return validation("Session tag %q: keys have 1 to 128 characters and values up to 256.", k)
		}
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return invalidParameter("Tag keys beginning with aws: are reserved for system use.")
		}
		if _, dup := find(sc.tags, k); dup {
			return invalidParameter("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		if sc.tags == nil {
			sc.tags = map[string]string{}
		}
		sc.tags[k] = v
		sc.keys = append(sc.keys, k)
	}
	return nil
}

// find looks a tag up; tag keys are the same in whatever case.
func find(tags map[string]string, key string) (k string, ok bool) {
	for k := range tags {
		if strings.EqualFold(k, key) {
			return k, true
		}
	}
	return "", false
}

// pack computes the packed size.
func (sc *scope) pack() {
	if len(sc.policies)+len(sc.arns)+len(sc.tags) == 0 {
		return
	}
	plain, _ := json.Marshal([]any{sc.policies, sc.arns, sc.tags}) // strings only
	sc.percent = max(1, (len(deflate(plain))*100+packedAllotment-1)/packedAllotment)
}

func (sc *scope) packedSize() *int32 {
	if sc.percent == 0 {
		return nil
	}
	return aws.Int32(int32(sc.percent))
}

// keys of session tags for policies.
func tagKeys(keys map[string][]string, tags []types.Tag, transitive []string) {
	for _, t := range tags {
		k := aws.ToString(t.Key)
		keys["aws:RequestTag/"+k] = []string{aws.ToString(t.Value)}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], k)
	}
	if len(transitive) > 0 {
		keys["sts:TransitiveTagKeys"] = slices.Clone(transitive)
	}
}

// issued are the credentials of a new session, with what newer clients want to
// know of the token.
type issued struct {
	*types.Credentials
	size, utilization *int32
}

// issue makes the credentials of a session of p that lasts for seconds.
func (s *Service) issue(tx *store.Tx, c *api.Call, p api.Principal, seconds int32, minimum *int32) (*issued, error) {
	if m := aws.ToInt32(minimum); m < 0 || m > maxToken {
		return nil, validation("MinimumSessionTokenSize is 0 to %d, not %d.", maxToken, m)
	}
	now := c.Time.UTC()
	p.AccessKeyID = ids.AccessKey("ASIA", p.Account)
	p.SessionIssued = now.Truncate(time.Second)
	p.Tags = nil
	ses := session{AccessKeyID: p.AccessKeyID, Secret: ids.SecretAccessKey(), Expires: now.Truncate(time.Second).Add(time.Duration(seconds) * time.Second), Principal: p}
	plain, err := json.Marshal(&ses)
	if err != nil {
		return nil, fmt.Errorf("encode a session: %w", err)
	}
	token, err := s.seal(tx, sessionInfo, plain, int(aws.ToInt32(minimum)))
	clear(plain)
	if err != nil {
		return nil, err
	}
	if len(token) > maxToken {
		return nil, tooLarge(len(token) * 100 / maxToken)
	}
	return &issued{Credentials: &types.Credentials{AccessKeyId: aws.String(ses.AccessKeyID), SecretAccessKey: aws.String(ses.Secret), SessionToken: aws.String(token), Expiration: aws.Time(ses.Expires)},
		size: aws.Int32(int32(len(token))), utilization: aws.Int32(int32((len(token)*100 + maxToken - 1) / maxToken))}, nil
}

// duration checks DurationSeconds.
func duration(given *int32, def, most int32) (int32, error) {
	if given == nil {
		return min(def, most), nil
	}
	if *given < minDuration {
		return 0, validation("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to %d", *given, minDuration)
	}
	if *given > most {
		return 0, validation("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to %d", *given, most)
	}
	return *given, nil
}

// inherit joins the tags a session inherits from the caller's (its transitive
// tags) with those the request brings.
func inherit(p *api.Principal, sc *scope, transitive []string) (tags map[string]string, keys []string, err error) {
	tags = map[string]string{}
	for _, k := range p.TransitiveTags {
		if v, ok := p.SessionTags[k]; ok {
			tags[k] = v
			keys = append(keys, k)
		}
	}
	for _, k := range sc.keys {
		if _, dup := find(tags, k); dup {
			return nil, nil, invalidParameter("One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
		}
	}
	for k, v := range sc.tags {
		tags[k] = v
	}
	for _, t := range transitive {
		k, ok := find(sc.tags, t)
		if !ok {
			return nil, nil, invalidParameter("The specified transitive tag key must be included in the requested tags.")
		}
		if slices.Contains(keys, k) {
			return nil, nil, invalidParameter("Duplicate transitive tag keys found. Please note that Tag keys are case insensitive.")
		}
		keys = append(keys, k)
	}
	if len(tags) > maxSessionTags {
		return nil, nil, validation("A session can have at most %d tags; with those it inherits this one would have %d.", maxSessionTags, len(tags))
	}
	sort.Strings(keys)
	if len(tags) == 0 {
		tags = nil
	}
	return tags, keys, nil
}
