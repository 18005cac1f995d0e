package cloudtrail

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/arn"
	"github.com/sealdesk/sealdesk/internal/store"
)

// trail is a stored trail. Key: account/home region/name.
type trail struct {
	Account     string     `json:"account"`
	Region      string     `json:"region"` // home region
	Name        string     `json:"name"`
	Bucket      string     `json:"bucket"`
	Prefix      string     `json:"prefix,omitempty"`
	Global      bool       `json:"global"` // include events of global services
	MultiRegion bool       `json:"multiRegion"`
	Validation  bool       `json:"validation"`
	Selectors   []selector `json:"selectors,omitempty"` // none: all management events
	// Advanced are the advanced selectors as given; Selectors are what they mean.
	Advanced []advancedSelector `json:"advanced,omitempty"`
	Tags     map[string]string  `json:"tags,omitempty"`
	Logging  bool               `json:"logging"`
	Started  time.Time          `json:"started,omitzero"`
	Stopped  time.Time          `json:"stopped,omitzero"`
	// Log, From and Until are the records to deliver: those of the audit log Log
	// after record From up to Until (0: open).
	Log   string `json:"log,omitempty"`
	From  uint64 `json:"from"`
	Until uint64 `json:"until"`
}

func (t *trail) key() string { return t.Account + "/" + t.Region + "/" + t.Name }

func (t *trail) arn() string {
	return "arn:aws:cloudtrail:" + t.Region + ":" + t.Account + ":trail/" + t.Name
}

// trailLimit is how many trails a region has. Source: CloudTrail User Guide, quotas.
const trailLimit = 5

const trailLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// checkTrailName. Source: CloudTrail API, CreateTrail, Name, and AWS's words.
func checkTrailName(s string) error {
	bad := func(format string, args ...any) error {
		return &types.InvalidTrailNameException{Message: sprintf(format, args...)}
	}
	switch _, err := netip.ParseAddr(s); {
	case len(s) < 3:
		return bad("Trail name too short. Minimum allowed length: 3 characters. Specified name length: %d characters.", len(s))
	case len(s) > 128:
		return bad("Trail name too long. Maximum allowed length: 128 characters. Specified name length: %d characters.", len(s))
	case !strings.Contains(trailLetters, s[:1]):
		return bad("Trail name must starts with a letter or number.")
	case !strings.Contains(trailLetters, s[len(s)-1:]):
		return bad("Trail name must ends with a letter or number.")
	case strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(trailLetters+"._-", r) }):
		return bad("Trail name or ARN can only contain uppercase letters, lowercase letters, numbers, periods (.), hyphens (-), and underscores (_).")
	case !trailName.MatchString(s):
		return bad("Trail name cannot contain adjacent periods, hyphens or underscores.")
	case err == nil:
		return bad("Trail name cannot be in IP address format.")
	}
	return nil
}

var trailName = regexp.MustCompile(`^[a-zA-Z0-9]([._-]?[a-zA-Z0-9])*$`)

var bucketName = regexp.MustCompile(`^[a-z0-9]([.-]?[a-z0-9]|--)*$`)

// checkBucket checks the name of a bucket and that it is there.
func (s *Service) checkBucket(bucket, prefix string) error {
	if len(bucket) < 3 || len(bucket) > 63 || !bucketName.MatchString(bucket) {
		return &types.InvalidS3BucketNameException{Message: sprintf("The bucket name %q is not valid.", bucket)}
	}
	if prefix != "" {
		bad := len(prefix) > 200 || strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!_.*'()/-") != ""
		for _, part := range strings.Split(prefix, "/") {
			bad = bad || part == "" || part == "." || part == ".."
		}
		if bad {
			return &types.InvalidS3PrefixException{Message: sprintf("The prefix %q is not valid.", prefix)}
		}
	}
	if fi, err := os.Stat(filepath.Join(s.cfg.Dir, bucket)); err != nil || !fi.IsDir() {
		return &types.S3BucketDoesNotExistException{Message: sprintf("S3 bucket %s does not exist! Buckets are directories on the server: make one of that name in its trails directory.", bucket)}
	}
	return nil
}

// unsupported refuses what a trail cannot do here.
func unsupported(logGroup, role, topic, key *string, organization *bool) error {
	switch {
	case deref(logGroup) != "":
		return &types.CloudWatchLogsDeliveryUnavailableException{Message: ptr("CloudWatch Logs is not available here: leave CloudWatchLogsLogGroupArn out.")}
	case deref(role) != "":
		return &types.CloudWatchLogsDeliveryUnavailableException{Message: ptr("CloudWatch Logs is not available here: leave CloudWatchLogsRoleArn out.")}
	case deref(topic) != "":
		return &types.InvalidSnsTopicNameException{Message: ptr("Amazon SNS is not available here: leave SnsTopicName out.")}
	case deref(key) != "":
		return &types.KmsException{Message: ptr("Log files cannot be encrypted under a KMS key here: leave KmsKeyId out.")}
	case deref(organization):
		return &types.OrganizationsNotInUseException{Message: ptr("The account is in no organization: IsOrganizationTrail must be false.")}
	}
	return nil
}

// find finds a trail by name, in the caller's region, or by ARN.
func (s *Service) find(tx *store.Tx, c *api.Call, id string) (*trail, error) {
	region, trailName := c.Region, id
	if strings.HasPrefix(id, "arn:") {
		a, err := arn.Parse(id)
		rest, ok := strings.CutPrefix(a.Resource, "trail/")
		if err != nil || !ok || a.Service != name {
			return nil, &types.CloudTrailARNInvalidException{Message: sprintf("%s is not the ARN of a trail.", id)}
		}
		if a.Account != c.Account {
			return nil, notFound(c, id)
		}
		region, trailName = a.Region, rest
	}
	if err := checkTrailName(trailName); err != nil {
		return nil, err
	}
	if t := s.trails.Get(tx, c.Account+"/"+region+"/"+trailName); t != nil && (region == c.Region || t.MultiRegion) {
		return t, nil
	}
	return nil, notFound(c, id)
}

// arnOf is the ARN of the trail that a call names by name or ARN.
func arnOf(c *api.Call, id string) string {
	if strings.HasPrefix(id, "arn:") {
		return id
	}
	return "arn:aws:cloudtrail:" + c.Region + ":" + c.Account + ":trail/" + id
}

func notFound(c *api.Call, id string) error {
	return &types.TrailNotFoundException{Message: sprintf("Unknown trail: %s for the user: %s", id, c.Account)}
}

// edit is find for an operation that changes the trail, which only its home region may.
func (s *Service) edit(tx *store.Tx, c *api.Call, id string) (*trail, error) {
	t, err := s.find(tx, c, id)
	if err != nil {
		return nil, err
	}
	if t.Region != c.Region {
		return nil, &types.InvalidHomeRegionException{Message: sprintf("The home region of trail %s is %s: call it there.", t.arn(), t.Region)}
	}
	touched(c, t)
	return s.trails.Edit(tx, t.key()), nil
}

func (s *Service) onCreateTrail(_ context.Context, _ *store.Tx, c *api.Call, in *ct.CreateTrailInput) ([]api.Target, error) {
	t := &trail{Account: c.Account, Region: c.Region, Name: deref(in.Name)}
	target := t.target()
	requestTags(target.Keys, in.TagsList)
	return []api.Target{target}, nil
}

func (s *Service) createTrail(_ context.Context, tx *store.Tx, c *api.Call, in *ct.CreateTrailInput) (*ct.CreateTrailOutput, error) {
	t := &trail{Account: c.Account, Region: c.Region, Name: deref(in.Name), Bucket: deref(in.S3BucketName), Prefix: deref(in.S3KeyPrefix), Global: in.IncludeGlobalServiceEvents == nil || *in.IncludeGlobalServiceEvents,
		MultiRegion: deref(in.IsMultiRegionTrail), Validation: deref(in.EnableLogFileValidation)}
	if err := checkTrailName(t.Name); err != nil {
		return nil, err
	}
	if err := unsupported(in.CloudWatchLogsLogGroupArn, in.CloudWatchLogsRoleArn, in.SnsTopicName, in.KmsKeyId, in.IsOrganizationTrail); err != nil {
		return nil, err
	}
	if t.MultiRegion && !t.Global {
		return nil, &types.InvalidParameterCombinationException{Message: ptr("Multi-Region trail must include global service events.")}
	}
	if err := s.checkBucket(t.Bucket, t.Prefix); err != nil {
		return nil, err
	}
	if s.trails.Get(tx, t.key()) != nil {
		return nil, &types.TrailAlreadyExistsException{Message: sprintf("Trail %s already exists for customer: %s", t.Name, t.Account)}
	}
	n := 0
	s.trails.Scan(tx, c.Account+"/"+c.Region+"/", "", func(string, *trail) bool { n++; return true })
	if n >= trailLimit {
		return nil, &types.MaximumNumberOfTrailsExceededException{Message: sprintf("There are %d trails in %s, which is the limit.", n, c.Region)}
	}
	var err error
	if t.Tags, err = mergeTags(nil, in.TagsList); err != nil {
		return nil, err
	}
	touched(c, t)
	return &ct.CreateTrailOutput{Name: &t.Name, TrailARN: ptr(t.arn()), S3BucketName: &t.Bucket, S3KeyPrefix: opt(t.Prefix), IncludeGlobalServiceEvents: &t.Global,
		IsMultiRegionTrail: &t.MultiRegion, IsOrganizationTrail: ptr(false), LogFileValidationEnabled: &t.Validation}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) updateTrail(_ context.Context, tx *store.Tx, c *api.Call, in *ct.UpdateTrailInput) (*ct.UpdateTrailOutput, error) {
	t, err := s.edit(tx, c, deref(in.Name))
	if err != nil {
		return nil, err
	}
	if err := unsupported(in.CloudWatchLogsLogGroupArn, in.CloudWatchLogsRoleArn, in.SnsTopicName, in.KmsKeyId, in.IsOrganizationTrail); err != nil {
		return nil, err
	}
	if in.S3BucketName != nil {
		t.Bucket = *in.S3BucketName
	}
	if in.S3KeyPrefix != nil {
		t.Prefix = *in.S3KeyPrefix
	}
	if in.IncludeGlobalServiceEvents != nil {
		t.Global = *in.IncludeGlobalServiceEvents
	}
	if in.IsMultiRegionTrail != nil {
		t.MultiRegion = *in.IsMultiRegionTrail
	}
	if in.EnableLogFileValidation != nil {
		t.Validation = *in.EnableLogFileValidation
	}
	if t.MultiRegion && !t.Global {
		return nil, &types.InvalidParameterCombinationException{Message: ptr("Multi-Region trail must include global service events.")}
	}
	if err := s.checkBucket(t.Bucket, t.Prefix); err != nil {
		return nil, err
	}
	return &ct.UpdateTrailOutput{Name: &t.Name, TrailARN: ptr(t.arn()), S3BucketName: &t.Bucket, S3KeyPrefix: opt(t.Prefix), IncludeGlobalServiceEvents: &t.Global,
		IsMultiRegionTrail: &t.MultiRegion, IsOrganizationTrail: ptr(false), LogFileValidationEnabled: &t.Validation}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) deleteTrail(_ context.Context, tx *store.Tx, c *api.Call, in *ct.DeleteTrailInput) (*ct.DeleteTrailOutput, error) {
	t, err := s.edit(tx, c, deref(in.Name))
	if err != nil {
		return nil, err
	}
	if err := s.deliveries.Delete(tx, t.key()); err != nil {
		return nil, err
	}
	return &ct.DeleteTrailOutput{}, s.trails.Delete(tx, t.key())
}

func (t *trail) show() types.Trail {
	return types.Trail{Name: &t.Name, TrailARN: ptr(t.arn()), HomeRegion: &t.Region, S3BucketName: &t.Bucket, S3KeyPrefix: opt(t.Prefix), IncludeGlobalServiceEvents: &t.Global,
		IsMultiRegionTrail: &t.MultiRegion, IsOrganizationTrail: ptr(false), LogFileValidationEnabled: &t.Validation, HasCustomEventSelectors: ptr(len(t.Selectors) > 0), HasInsightSelectors: ptr(false)}
}

func (s *Service) getTrail(_ context.Context, tx *store.Tx, c *api.Call, in *ct.GetTrailInput) (*ct.GetTrailOutput, error) {
	t, err := s.find(tx, c, deref(in.Name))
	if err != nil {
		return nil, err
	}
	return &ct.GetTrailOutput{Trail: ptr(t.show())}, nil
}

// describeTrails lists the trails of the region, and the trails of all regions
// whose home is elsewhere ("shadow trails") unless told not to.
func (s *Service) describeTrails(_ context.Context, tx *store.Tx, c *api.Call, in *ct.DescribeTrailsInput) (*ct.DescribeTrailsOutput, error) {
	out := &ct.DescribeTrailsOutput{TrailList: []types.Trail{}}
	shadows := in.IncludeShadowTrails == nil || *in.IncludeShadowTrails
	for _, id := range in.TrailNameList {
		if t, err := s.find(tx, c, id); err == nil && (t.Region == c.Region || shadows) {
			out.TrailList = append(out.TrailList, t.show())
		}
	}
	if len(in.TrailNameList) > 0 {
		return out, nil
	}
	s.trails.Scan(tx, c.Account+"/", "", func(_ string, t *trail) bool {
		if t.Region == c.Region || shadows && t.MultiRegion {
			out.TrailList = append(out.TrailList, t.show())
		}
		return true
	})
	return out, nil
}

const listAtOnce = 100

func (s *Service) listTrails(_ context.Context, tx *store.Tx, c *api.Call, in *ct.ListTrailsInput) (*ct.ListTrailsOutput, error) {
	after, err := readToken("ListTrails"+c.Account, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &ct.ListTrailsOutput{Trails: []types.TrailInfo{}}
	last := ""
	s.trails.Scan(tx, c.Account+"/", after, func(key string, t *trail) bool {
		if len(out.Trails) == listAtOnce {
			out.NextToken = makeToken("ListTrails"+c.Account, last)
			return false
		}
		last = key
		out.Trails = append(out.Trails, types.TrailInfo{Name: &t.Name, TrailARN: ptr(t.arn()), HomeRegion: &t.Region})
		return true
	})
	return out, nil
}

func (s *Service) startLogging(_ context.Context, tx *store.Tx, c *api.Call, in *ct.StartLoggingInput) (*ct.StartLoggingOutput, error) {
	t, err := s.edit(tx, c, deref(in.Name))
	if err != nil || t.Logging {
		return &ct.StartLoggingOutput{}, err
	}
	head := s.cfg.Log.Head()
	t.Logging, t.Started, t.Log, t.From, t.Until = true, c.Time, head.Log, head.Seq, 0
	return &ct.StartLoggingOutput{}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) stopLogging(_ context.Context, tx *store.Tx, c *api.Call, in *ct.StopLoggingInput) (*ct.StopLoggingOutput, error) {
	t, err := s.edit(tx, c, deref(in.Name))
	if err != nil || !t.Logging {
		return &ct.StopLoggingOutput{}, err
	}
	t.Logging, t.Stopped, t.Until = false, c.Time, max(s.cfg.Log.Head().Seq, 1)
	return &ct.StopLoggingOutput{}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) getTrailStatus(_ context.Context, tx *store.Tx, c *api.Call, in *ct.GetTrailStatusInput) (*ct.GetTrailStatusOutput, error) {
	t, err := s.find(tx, c, arnOf(c, deref(in.Name))) // by ARN: so AWS names one that is not there
	if err != nil {
		return nil, err
	}
	out := &ct.GetTrailStatusOutput{IsLogging: &t.Logging}
	at := func(when time.Time) (*time.Time, *string) {
		if when.IsZero() {
			return nil, ptr("")
		}
		return &when, ptr(when.UTC().Format("2006-01-02T15:04:05Z"))
	}
	out.StartLoggingTime, out.TimeLoggingStarted = at(t.Started)
	out.StopLoggingTime, out.TimeLoggingStopped = at(t.Stopped)
	out.LatestNotificationAttemptTime, out.LatestNotificationAttemptSucceeded = ptr(""), ptr("")
	d := s.deliveries.Get(tx, t.key())
	if d == nil {
		d = &delivery{}
	}
	out.LatestDeliveryTime, out.LatestDeliveryAttemptSucceeded = at(d.Delivered)
	_, out.LatestDeliveryAttemptTime = at(d.Tried)
	out.LatestDeliveryError = opt(d.Error)
	out.LatestDigestDeliveryTime, _ = at(d.Digested)
	out.LatestDigestDeliveryError = opt(d.DigestError)
	return out, nil
}

const maxTags = 50

func mergeTags(old map[string]string, tags []types.Tag) (map[string]string, error) {
	out := maps.Clone(old)
	if out == nil {
		out = map[string]string{}
	}
	for _, t := range tags {
		k := deref(t.Key)
		if k == "" || len(k) > 128 || len(deref(t.Value)) > 256 || strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, &types.InvalidTagParameterException{Message: sprintf("The tag %q is not valid: a key has 1 to 128 characters and does not begin with aws:, a value at most 256.", k)}
		}
		out[k] = deref(t.Value)
	}
	if len(out) > maxTags {
		return nil, &types.TagsLimitExceededException{Message: sprintf("A trail has at most %d tags.", maxTags)}
	}
	return out, nil
}

// findTagged finds the trail that a tag operation names by ARN.
func (s *Service) findTagged(tx *store.Tx, c *api.Call, id string) (*trail, error) {
	if !strings.HasPrefix(id, "arn:") {
		return nil, &types.CloudTrailARNInvalidException{Message: sprintf("%s is not the ARN of a trail.", id)}
	}
	t, err := s.find(tx, c, id)
	if _, gone := err.(*types.TrailNotFoundException); gone {
		return nil, &types.ResourceNotFoundException{Message: sprintf("There is no trail %s.", id)}
	}
	return t, err
}

func (s *Service) onAddTags(_ context.Context, tx *store.Tx, c *api.Call, in *ct.AddTagsInput) ([]api.Target, error) {
	t, err := s.findTagged(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	target := t.target()
	requestTags(target.Keys, in.TagsList)
	return []api.Target{target}, nil
}

func (s *Service) onRemoveTags(_ context.Context, tx *store.Tx, c *api.Call, in *ct.RemoveTagsInput) ([]api.Target, error) {
	t, err := s.findTagged(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	target := t.target()
	for _, tag := range in.TagsList {
		target.Keys["aws:TagKeys"] = append(target.Keys["aws:TagKeys"], deref(tag.Key))
	}
	return []api.Target{target}, nil
}

func (s *Service) onListTags(_ context.Context, tx *store.Tx, c *api.Call, in *ct.ListTagsInput) ([]api.Target, error) {
	var out []api.Target
	for _, id := range in.ResourceIdList {
		t, err := s.findTagged(tx, c, id)
		if err != nil {
			return nil, err
		}
		out = append(out, t.target())
	}
	return out, nil
}

func (s *Service) addTags(_ context.Context, tx *store.Tx, c *api.Call, in *ct.AddTagsInput) (*ct.AddTagsOutput, error) {
	t, err := s.edit(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	if t.Tags, err = mergeTags(t.Tags, in.TagsList); err != nil {
		return nil, err
	}
	return &ct.AddTagsOutput{}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) removeTags(_ context.Context, tx *store.Tx, c *api.Call, in *ct.RemoveTagsInput) (*ct.RemoveTagsOutput, error) {
	t, err := s.edit(tx, c, deref(in.ResourceId))
	if err != nil {
		return nil, err
	}
	for _, tag := range in.TagsList {
		if v, ok := t.Tags[deref(tag.Key)]; ok && (tag.Value == nil || *tag.Value == v) {
			delete(t.Tags, deref(tag.Key))
		}
	}
	return &ct.RemoveTagsOutput{}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) listTags(_ context.Context, tx *store.Tx, c *api.Call, in *ct.ListTagsInput) (*ct.ListTagsOutput, error) {
	if _, err := readToken("ListTags", in.NextToken); err != nil || in.NextToken != nil {
		return nil, &types.InvalidTokenException{Message: ptr("The NextToken value is not valid: all tags are on one page.")}
	}
	out := &ct.ListTagsOutput{ResourceTagList: []types.ResourceTag{}}
	for _, id := range in.ResourceIdList {
		t, err := s.findTagged(tx, c, id)
		if err != nil {
			return nil, err
		}
		r := types.ResourceTag{ResourceId: ptr(t.arn()), TagsList: []types.Tag{}}
		for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
			r.TagsList = append(r.TagsList, types.Tag{Key: ptr(k), Value: ptr(t.Tags[k])})
		}
		out.ResourceTagList = append(out.ResourceTagList, r)
	}
	return out, nil
}
