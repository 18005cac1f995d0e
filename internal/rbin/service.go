// Package rbin is Recycle Bin: rules that keep deleted snapshots for some days, so
// that they can be restored. It promises:
//
//   - A deleted snapshot that a rule matches is kept for the rule's days, with its
//     sealed data key; the longest rule counts. What a deletion finds in the rules is what
//     holds: a rule made, changed or deleted later changes nothing for it.
//   - A locked rule can be neither changed nor deleted, and stays in force for the
//     whole delay after it is unlocked.
//
// Rules are for snapshots only: there are no AMIs here, and a volume's deletion
// destroys its key at once, by design.
//
// Source: Recycle Bin API Reference; EBS User Guide, "Recycle Bin".
package rbin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rbin"
	"github.com/aws/aws-sdk-go-v2/service/rbin/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// maxRules is AWS's quota of rules in a region.
const maxRules = 250

// rule is a retention rule, under account/region/identifier.
type rule struct {
	ID, Account, Region string
	Description         string
	Days                int32
	// Match are the tags of which a snapshot must have one; empty: the rule is for all
	// of the region but those that have one of Exclude.
	Match, Exclude []tag
	Tags           map[string]string

	// UnlockDays is the delay of a locked rule, 0 when it is not locked; UnlockedAt is when
	// it was asked to be unlocked.
	UnlockDays int32     `json:",omitempty"`
	UnlockedAt time.Time `json:",omitzero"`
}

// tag is a key and a value; Any matches whatever the value.
type tag struct {
	Key, Value string
	Any        bool `json:",omitempty"`
}

func (r *rule) key() string { return r.Account + "/" + r.Region + "/" + r.ID }

func (r *rule) arn() string {
	return "arn:aws:rbin:" + r.Region + ":" + r.Account + ":rule/" + r.ID
}

func (r *rule) lockEnd() time.Time { return r.UnlockedAt.AddDate(0, 0, int(r.UnlockDays)) }

// lockState is "" for a rule that was never locked.
func (r *rule) lockState(now time.Time) types.LockState {
	switch {
	case r.UnlockDays == 0:
		return ""
	case r.UnlockedAt.IsZero():
		return types.LockStateLocked
	case now.Before(r.lockEnd()):
		return types.LockStatePendingUnlock
	}
	return types.LockStateUnlocked
}

func has(tags map[string]string, list []tag) bool {
	return slices.ContainsFunc(list, func(t tag) bool {
		v, ok := tags[t.Key]
		return ok && (t.Any || v == t.Value)
	})
}

// applies tells whether the rule keeps a snapshot with these tags.
func (r *rule) applies(tags map[string]string) bool {
	if len(r.Match) > 0 {
		return has(tags, r.Match)
	}
	return !has(tags, r.Exclude)
}

// Service serves the Recycle Bin API.
type Service struct{ rules *store.Table[rule] }

// New declares the service's table; call it before Store.Start.
func New(st *store.Store) *Service {
	return &Service{rules: store.Define[rule](st, "rbin/rule", 1)}
}

// SnapshotDays is for how many days a snapshot that is deleted now must be kept; 0: not at all.
func (s *Service) SnapshotDays(tx *store.Tx, account, region string, tags map[string]string) int {
	days := int32(0)
	s.rules.Scan(tx, account+"/"+region+"/", "", func(_ string, r *rule) bool {
		if r.applies(tags) {
			days = max(days, r.Days)
		}
		return true
	})
	return int(days)
}

// Operations is the service's part of the operation table.
func (s *Service) Operations() []api.Operation {
	on := func(id func(any) *string) api.Option {
		return func(o *api.Operation) {
			o.Targets = func(_ context.Context, tx *store.Tx, c *api.Call, in any) ([]api.Target, error) {
				return []api.Target{s.target(tx, c, aws.ToString(id(in)))}, nil
			}
		}
	}
	byARN := func(arn *string) *string {
		id := (*string)(nil)
		if i := strings.LastIndexByte(aws.ToString(arn), '/'); i >= 0 {
			id = aws.String((*arn)[i+1:])
		}
		return id
	}
	return []api.Operation{
		api.NewUpdate("rbin", "CreateRule", s.createRule, api.On(func(_ context.Context, _ *store.Tx, c *api.Call, in *rbin.CreateRuleInput) ([]api.Target, error) {
			keys := map[string][]string{"rbin:Request/ResourceType": {string(in.ResourceType)}}
			for _, t := range in.Tags {
				keys["aws:RequestTag/"+aws.ToString(t.Key)] = []string{aws.ToString(t.Value)}
				keys["aws:TagKeys"] = append(keys["aws:TagKeys"], aws.ToString(t.Key))
			}
			return []api.Target{{ARN: "arn:aws:rbin:" + c.Region + ":" + c.Account + ":rule/*", Keys: keys}}, nil
		})),
		api.NewView("rbin", "GetRule", s.getRule, on(func(in any) *string { return in.(*rbin.GetRuleInput).Identifier })),
		api.NewView("rbin", "ListRules", s.listRules, api.On(func(_ context.Context, _ *store.Tx, c *api.Call, in *rbin.ListRulesInput) ([]api.Target, error) {
			return []api.Target{{ARN: "*", Keys: map[string][]string{"rbin:Request/ResourceType": {string(in.ResourceType)}}}}, nil
		})),
		api.NewUpdate("rbin", "UpdateRule", s.updateRule, on(func(in any) *string { return in.(*rbin.UpdateRuleInput).Identifier })),
		api.NewUpdate("rbin", "DeleteRule", s.deleteRule, on(func(in any) *string { return in.(*rbin.DeleteRuleInput).Identifier })),
		api.NewUpdate("rbin", "LockRule", s.lockRule, on(func(in any) *string { return in.(*rbin.LockRuleInput).Identifier })),
		api.NewUpdate("rbin", "UnlockRule", s.unlockRule, on(func(in any) *string { return in.(*rbin.UnlockRuleInput).Identifier })),
		api.NewView("rbin", "ListTagsForResource", s.listTags, on(func(in any) *string { return byARN(in.(*rbin.ListTagsForResourceInput).ResourceArn) })),
		api.NewUpdate("rbin", "TagResource", s.tagResource, on(func(in any) *string { return byARN(in.(*rbin.TagResourceInput).ResourceArn) })),
		api.NewUpdate("rbin", "UntagResource", s.untagResource, on(func(in any) *string { return byARN(in.(*rbin.UntagResourceInput).ResourceArn) })),
	}
}

func (s *Service) target(tx *store.Tx, c *api.Call, id string) api.Target {
	t := api.Target{ARN: "arn:aws:rbin:" + c.Region + ":" + c.Account + ":rule/" + id, Keys: map[string][]string{"rbin:Attribute/ResourceType": {string(types.ResourceTypeEbsSnapshot)}}}
	if r := s.rules.Get(tx, c.Account+"/"+c.Region+"/"+id); r != nil {
		for k, v := range r.Tags {
			t.Keys["aws:ResourceTag/"+k] = []string{v}
		}
	}
	return t
}

func invalid(format string, a ...any) error {
	return &types.ValidationException{Message: aws.String(fmt.Sprintf(format, a...)), Reason: types.ValidationExceptionReasonInvalidParameterValue}
}

func (s *Service) find(tx *store.Tx, c *api.Call, id *string) (*rule, error) {
	r := s.rules.Edit(tx, c.Account+"/"+c.Region+"/"+aws.ToString(id))
	if r == nil {
		return nil, &types.ResourceNotFoundException{Message: aws.String("Rule " + aws.ToString(id) + " was not found."), Reason: types.ResourceNotFoundExceptionReasonRuleNotFound}
	}
	return r, nil
}

// findByARN finds a rule by its ARN, which must be of the caller's account and region.
func (s *Service) findByARN(tx *store.Tx, c *api.Call, arn *string) (*rule, error) {
	id, ok := strings.CutPrefix(aws.ToString(arn), "arn:aws:rbin:"+c.Region+":"+c.Account+":rule/")
	if !ok {
		return nil, &types.ResourceNotFoundException{Message: aws.String("Rule " + aws.ToString(arn) + " was not found."), Reason: types.ResourceNotFoundExceptionReasonRuleNotFound}
	}
	return s.find(tx, c, &id)
}

// unlocked refuses what a locked rule forbids.
func unlocked(c *api.Call, r *rule, what string) error {
	switch r.lockState(c.Time) {
	case types.LockStateLocked:
		return conflict("Rule %s is locked and cannot be %s. Unlock it first (UnlockRule); it stays in force for %d days after that.", r.ID, what, r.UnlockDays)
	case types.LockStatePendingUnlock:
		return conflict("Rule %s is being unlocked and cannot be %s before %s.", r.ID, what, r.lockEnd().Format(time.RFC3339))
	}
	return nil
}

func conflict(format string, a ...any) error {
	return &types.ConflictException{Message: aws.String(fmt.Sprintf(format, a...)), Reason: types.ConflictExceptionReasonInvalidRuleState}
}

// tagsOf checks the tags that a rule matches or excludes.
func tagsOf(list []types.ResourceTag, most int) ([]tag, error) {
	if len(list) > most {
		return nil, invalid("%d resource tags; at most %d are allowed.", len(list), most)
	}
	var out []tag
	for _, t := range list {
		out = append(out, tag{Key: aws.ToString(t.ResourceTagKey), Value: aws.ToString(t.ResourceTagValue), Any: t.ResourceTagValue == nil})
	}
	return out, nil
}

func resourceTags(list []tag) []types.ResourceTag {
	out := []types.ResourceTag{}
	for _, t := range list {
		o := types.ResourceTag{ResourceTagKey: aws.String(t.Key)}
		if !t.Any {
			o.ResourceTagValue = aws.String(t.Value)
		}
		out = append(out, o)
	}
	return out
}

func checkType(t types.ResourceType) error {
	if t != types.ResourceTypeEbsSnapshot {
		return invalid("ResourceType %s is not supported: rules are for EBS_SNAPSHOT. There are no AMIs here, and the deletion of a volume destroys its key at once.", t)
	}
	return nil
}

// retain sets what a rule keeps and for how long.
func (r *rule) retain(p *types.RetentionPeriod, match, exclude []types.ResourceTag) (err error) {
	if p != nil {
		days := aws.ToInt32(p.RetentionPeriodValue)
		if days < 1 || days > 365 || p.RetentionPeriodUnit != types.RetentionPeriodUnitDays {
			return invalid("RetentionPeriod %d %s: want 1 to 365 DAYS.", days, p.RetentionPeriodUnit)
		}
		r.Days = days
	}
	if match != nil {
		if r.Match, err = tagsOf(match, 50); err != nil {
			return err
		}
	}
	if exclude != nil {
		if r.Exclude, err = tagsOf(exclude, 5); err != nil {
			return err
		}
	}
	if len(r.Match) > 0 && len(r.Exclude) > 0 {
		return invalid("A rule has either ResourceTags or ExcludeResourceTags: exclusions are of rules for the whole region.")
	}
	return nil
}

// lock sets the delay after which an unlocked rule can be changed.
func (r *rule) lock(l *types.LockConfiguration) error {
	if len(r.Match) > 0 {
		return invalid("Only rules for the whole region can be locked; this one has ResourceTags.")
	}
	if l == nil || l.UnlockDelay == nil {
		return invalid("LockConfiguration needs UnlockDelay.")
	}
	days := aws.ToInt32(l.UnlockDelay.UnlockDelayValue)
	if days < 7 || days > 30 || l.UnlockDelay.UnlockDelayUnit != types.UnlockDelayUnitDays {
		return invalid("UnlockDelay %d %s: want 7 to 30 DAYS.", days, l.UnlockDelay.UnlockDelayUnit)
	}
	r.UnlockDays, r.UnlockedAt = days, time.Time{}
	return nil
}

func (s *Service) createRule(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.CreateRuleInput) (*rbin.CreateRuleOutput, error) {
	if err := checkType(in.ResourceType); err != nil {
		return nil, err
	}
	n := 0
	s.rules.Scan(tx, c.Account+"/"+c.Region+"/", "", func(string, *rule) bool { n++; return true })
	if n >= maxRules {
		return nil, &types.ServiceQuotaExceededException{Message: aws.String(fmt.Sprintf("There are %d retention rules in this region, the most that are allowed.", n)), Reason: types.ServiceQuotaExceededExceptionReasonServiceQuotaExceeded}
	}
	r := &rule{ID: ids.Hex("", 11), Account: c.Account, Region: c.Region, Description: aws.ToString(in.Description), Tags: map[string]string{}}
	if err := r.retain(in.RetentionPeriod, in.ResourceTags, in.ExcludeResourceTags); err != nil {
		return nil, err
	}
	if in.LockConfiguration != nil {
		if err := r.lock(in.LockConfiguration); err != nil {
			return nil, err
		}
	}
	for _, t := range in.Tags {
		r.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	o := r.show(c.Time)
	return &rbin.CreateRuleOutput{Description: o.Description, ExcludeResourceTags: o.ExcludeResourceTags, Identifier: o.Identifier, LockConfiguration: o.LockConfiguration, LockState: o.LockState,
		ResourceTags: o.ResourceTags, ResourceType: o.ResourceType, RetentionPeriod: o.RetentionPeriod, RuleArn: o.RuleArn, Status: o.Status, Tags: in.Tags}, s.rules.Put(tx, r.key(), r)
}

func (r *rule) period() *types.RetentionPeriod {
	return &types.RetentionPeriod{RetentionPeriodUnit: types.RetentionPeriodUnitDays, RetentionPeriodValue: aws.Int32(r.Days)}
}

func (r *rule) show(now time.Time) *rbin.GetRuleOutput {
	o := &rbin.GetRuleOutput{Description: aws.String(r.Description), Identifier: aws.String(r.ID), LockState: r.lockState(now), ResourceTags: resourceTags(r.Match), ExcludeResourceTags: resourceTags(r.Exclude),
		ResourceType: types.ResourceTypeEbsSnapshot, RetentionPeriod: r.period(), RuleArn: aws.String(r.arn()), Status: types.RuleStatusAvailable}
	if r.UnlockDays != 0 {
		o.LockConfiguration = &types.LockConfiguration{UnlockDelay: &types.UnlockDelay{UnlockDelayUnit: types.UnlockDelayUnitDays, UnlockDelayValue: aws.Int32(r.UnlockDays)}}
		if !r.UnlockedAt.IsZero() {
			o.LockEndTime = aws.Time(r.lockEnd())
		}
	}
	return o
}

func (s *Service) getRule(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.GetRuleInput) (*rbin.GetRuleOutput, error) {
	r, err := s.find(tx, c, in.Identifier)
	if err != nil {
		return nil, err
	}
	return r.show(c.Time), nil
}

func (s *Service) listRules(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.ListRulesInput) (*rbin.ListRulesOutput, error) {
	match, err := tagsOf(in.ResourceTags, 50)
	if err != nil {
		return nil, err
	}
	exclude, err := tagsOf(in.ExcludeResourceTags, 5)
	if err != nil {
		return nil, err
	}
	subset := func(want, of []tag) bool {
		return !slices.ContainsFunc(want, func(t tag) bool { return !slices.Contains(of, t) })
	}
	most, prefix := 1000, c.Account+"/"+c.Region+"/"
	if in.MaxResults != nil {
		most = int(*in.MaxResults)
	}
	after := ""
	if t := aws.ToString(in.NextToken); t != "" {
		if s.rules.Get(tx, prefix+t) == nil {
			return nil, &types.ValidationException{Message: aws.String("NextToken is not one of this operation, or its rule is gone: begin again."), Reason: types.ValidationExceptionReasonInvalidPageToken}
		}
		after = prefix + t
	}
	out := &rbin.ListRulesOutput{Rules: []types.RuleSummary{}}
	s.rules.Scan(tx, prefix, after, func(_ string, r *rule) bool {
		if in.ResourceType != types.ResourceTypeEbsSnapshot || in.LockState != "" && r.lockState(c.Time) != in.LockState || !subset(match, r.Match) || !subset(exclude, r.Exclude) {
			return true
		}
		if len(out.Rules) == most {
			out.NextToken = out.Rules[most-1].Identifier
			return false
		}
		out.Rules = append(out.Rules, types.RuleSummary{Identifier: aws.String(r.ID), Description: aws.String(r.Description), LockState: r.lockState(c.Time), RetentionPeriod: r.period(), RuleArn: aws.String(r.arn())})
		return true
	})
	return out, nil
}

func (s *Service) updateRule(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.UpdateRuleInput) (*rbin.UpdateRuleOutput, error) {
	r, err := s.find(tx, c, in.Identifier)
	if err != nil {
		return nil, err
	}
	if err := unlocked(c, r, "changed"); err != nil {
		return nil, err
	}
	if in.ResourceType != "" {
		if err := checkType(in.ResourceType); err != nil {
			return nil, err
		}
	}
	if in.Description != nil {
		r.Description = *in.Description
	}
	if err := r.retain(in.RetentionPeriod, in.ResourceTags, in.ExcludeResourceTags); err != nil {
		return nil, err
	}
	o := r.show(c.Time)
	return &rbin.UpdateRuleOutput{Description: o.Description, ExcludeResourceTags: o.ExcludeResourceTags, Identifier: o.Identifier, LockEndTime: o.LockEndTime, LockState: o.LockState, ResourceTags: o.ResourceTags,
		ResourceType: o.ResourceType, RetentionPeriod: o.RetentionPeriod, RuleArn: o.RuleArn, Status: o.Status}, s.rules.Put(tx, r.key(), r)
}

func (s *Service) deleteRule(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.DeleteRuleInput) (*rbin.DeleteRuleOutput, error) {
	r, err := s.find(tx, c, in.Identifier)
	if err != nil {
		return nil, err
	}
	if err := unlocked(c, r, "deleted"); err != nil {
		return nil, err
	}
	return &rbin.DeleteRuleOutput{}, s.rules.Delete(tx, r.key())
}

func (s *Service) lockRule(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.LockRuleInput) (*rbin.LockRuleOutput, error) {
	r, err := s.find(tx, c, in.Identifier)
	if err != nil {
		return nil, err
	}
	if r.lockState(c.Time) == types.LockStateLocked {
		return nil, conflict("Rule %s is locked already.", r.ID)
	}
	if err := r.lock(in.LockConfiguration); err != nil {
		return nil, err
	}
	o := r.show(c.Time)
	return &rbin.LockRuleOutput{Description: o.Description, ExcludeResourceTags: o.ExcludeResourceTags, Identifier: o.Identifier, LockConfiguration: o.LockConfiguration, LockState: o.LockState, ResourceTags: o.ResourceTags,
		ResourceType: o.ResourceType, RetentionPeriod: o.RetentionPeriod, RuleArn: o.RuleArn, Status: o.Status}, s.rules.Put(tx, r.key(), r)
}

func (s *Service) unlockRule(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.UnlockRuleInput) (*rbin.UnlockRuleOutput, error) {
	r, err := s.find(tx, c, in.Identifier)
	if err != nil {
		return nil, err
	}
	if r.lockState(c.Time) != types.LockStateLocked {
		return nil, conflict("Rule %s is not locked.", r.ID)
	}
	r.UnlockedAt = c.Time
	o := r.show(c.Time)
	return &rbin.UnlockRuleOutput{Description: o.Description, ExcludeResourceTags: o.ExcludeResourceTags, Identifier: o.Identifier, LockConfiguration: o.LockConfiguration, LockEndTime: o.LockEndTime, LockState: o.LockState,
		ResourceTags: o.ResourceTags, ResourceType: o.ResourceType, RetentionPeriod: o.RetentionPeriod, RuleArn: o.RuleArn, Status: o.Status}, s.rules.Put(tx, r.key(), r)
}

func (s *Service) listTags(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.ListTagsForResourceInput) (*rbin.ListTagsForResourceOutput, error) {
	r, err := s.findByARN(tx, c, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	out := &rbin.ListTagsForResourceOutput{Tags: []types.Tag{}}
	for k, v := range r.Tags {
		out.Tags = append(out.Tags, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	slices.SortFunc(out.Tags, func(a, b types.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	return out, nil
}

func (s *Service) tagResource(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.TagResourceInput) (*rbin.TagResourceOutput, error) {
	r, err := s.findByARN(tx, c, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	for _, t := range in.Tags {
		r.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	if len(r.Tags) > 50 {
		return nil, &types.ServiceQuotaExceededException{Message: aws.String("A rule has at most 50 tags."), Reason: types.ServiceQuotaExceededExceptionReasonServiceQuotaExceeded}
	}
	return &rbin.TagResourceOutput{}, s.rules.Put(tx, r.key(), r)
}

func (s *Service) untagResource(_ context.Context, tx *store.Tx, c *api.Call, in *rbin.UntagResourceInput) (*rbin.UntagResourceOutput, error) {
	r, err := s.findByARN(tx, c, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	for _, k := range in.TagKeys {
		delete(r.Tags, k)
	}
	return &rbin.UntagResourceOutput{}, s.rules.Put(tx, r.key(), r)
}
