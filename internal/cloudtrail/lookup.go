package cloudtrail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
)

const (
	history    = 90 * 24 * time.Hour // how far back LookupEvents sees
	maxResults = 50
)

var attributes = map[types.LookupAttributeKey]audit.Attribute{
	types.LookupAttributeKeyEventId: audit.EventID, types.LookupAttributeKeyEventName: audit.EventName, types.LookupAttributeKeyReadOnly: audit.ReadOnly,
	types.LookupAttributeKeyUsername: audit.Username, types.LookupAttributeKeyResourceType: audit.ResourceType, types.LookupAttributeKeyResourceName: audit.ResourceName,
	types.LookupAttributeKeyEventSource: audit.EventSource, types.LookupAttributeKeyAccessKeyId: audit.AccessKeyID,
}

// lookupEvents finds events of the caller's account and region, newest first.
func (s *Service) lookupEvents(ctx context.Context, c *api.Call, in *ct.LookupEventsInput) (*ct.LookupEventsOutput, error) {
	q := audit.Query{Account: c.Account, Region: c.Region, Limit: maxResults}
	if in.MaxResults != nil {
		if *in.MaxResults < 1 || *in.MaxResults > maxResults {
			return nil, &types.InvalidMaxResultsException{Message: sprintf("MaxResults must be between 1 and %d, not %d.", maxResults, *in.MaxResults)}
		}
		q.Limit = int(*in.MaxResults)
	}
	switch in.EventCategory {
	case "", types.EventCategoryInsight:
	default:
		return nil, &types.InvalidEventCategoryException{Message: sprintf("EventCategory %q is not valid: leave it out for management events, or use insight.", in.EventCategory)}
	}
	if len(in.LookupAttributes) > 1 {
		return nil, &types.InvalidLookupAttributesException{Message: ptr("LookupAttributes can have only one attribute.")}
	}
	for _, a := range in.LookupAttributes {
		v := deref(a.AttributeValue)
		attr, ok := attributes[a.AttributeKey]
		switch {
		case !ok:
			return nil, &types.InvalidLookupAttributesException{Message: sprintf("There is no lookup attribute %q.", a.AttributeKey)}
		case v == "" || len(v) > 2000:
			return nil, &types.InvalidLookupAttributesException{Message: sprintf("The value of %s must have 1 to 2000 characters.", a.AttributeKey)}
		case attr == audit.ReadOnly && v != "true" && v != "false":
			return nil, &types.InvalidLookupAttributesException{Message: sprintf("The value of ReadOnly must be true or false, not %q.", v)}
		}
		q.Attribute, q.Value = attr, v
	}
	if in.StartTime != nil && in.EndTime != nil && in.StartTime.After(*in.EndTime) {
		return nil, &types.InvalidTimeRangeException{Message: ptr("StartTime is after EndTime.")}
	}
	for _, t := range []*time.Time{in.StartTime, in.EndTime} {
		if t != nil && (t.Unix() < 0 || t.Unix() >= 1<<32) {
			return nil, &types.InvalidTimeRangeException{Message: ptr("The time range is outside the range of possible values.")}
		}
	}
	q.Start, q.End = c.Time.Add(-history), deref(in.EndTime)
	if in.StartTime != nil && in.StartTime.After(q.Start) {
		q.Start = *in.StartTime
	}
	what := fmt.Sprint("LookupEvents", c.Account, c.Region, in.EventCategory, q.Attribute, q.Value, deref(in.StartTime).UnixNano(), deref(in.EndTime).UnixNano())
	sum := sha256.Sum256([]byte(what))
	what = hex.EncodeToString(sum[:8])
	after, err := readToken(what, in.NextToken)
	if err != nil {
		return nil, err
	}
	if after != "" {
		q.After = new(audit.Cursor)
		if n, err := fmt.Sscanf(after, "%d.%d", &q.After.Time, &q.After.Seq); err != nil || n != 2 || after != cursor(q.After) {
			return nil, &types.InvalidNextTokenException{Message: ptr("The NextToken value is not valid: use the one that the previous page returned, with the same parameters.")}
		}
	}
	out := &ct.LookupEventsOutput{Events: []types.Event{}}
	if in.EventCategory == types.EventCategoryInsight {
		return out, nil // no trail has insights
	}
	if err := s.cfg.Log.Settled(ctx); err != nil {
		return nil, fmt.Errorf("wait for the audit log: %w", err)
	}
	events, next, err := s.cfg.Log.Lookup(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("look up events: %w", err)
	}
	for i := range events {
		out.Events = append(out.Events, show(&events[i]))
	}
	if next != nil {
		out.NextToken = makeToken(what, cursor(next))
	}
	return out, nil
}

func cursor(c *audit.Cursor) string { return fmt.Sprintf("%d.%d", c.Time, c.Seq) }

// show is a record as LookupEvents gives it.
func show(e *audit.Event) types.Event {
	r := e.Record
	out := types.Event{EventId: &r.EventID, EventName: &r.EventName, EventSource: &r.EventSource, EventTime: ptr(r.EventTime.UTC()), ReadOnly: sprintf("%t", r.ReadOnly),
		Username: opt(r.Username()), AccessKeyId: opt(r.UserIdentity.AccessKeyID), CloudTrailEvent: ptr(string(e.Raw)), Resources: []types.Resource{}}
	for i := range r.Resources {
		out.Resources = append(out.Resources, types.Resource{ResourceType: opt(r.Resources[i].Type), ResourceName: ptr(r.Resources[i].Name())})
	}
	return out
}
