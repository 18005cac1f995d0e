package cloudtrail_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/app/apptest"
	"github.com/sealdesk/sealdesk/internal/audit"
)

// A caller finds the call it has just made, by each attribute, in its own region only.
func TestLookupEventsThroughTheServer(t *testing.T) {
	ctx := context.Background()
	s := apptest.New(t)
	keys, trail := s.KMS(), s.CloudTrail()
	key, err := keys.CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String("x")})
	if err != nil {
		t.Fatal(err)
	}
	arn := *key.KeyMetadata.Arn
	if _, err := keys.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/not-there")}); err == nil {
		t.Fatal("DescribeKey of an unknown alias succeeded")
	}
	if _, err := keys.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &arn, NumberOfBytes: aws.Int32(64), EncryptionContext: map[string]string{"aws:ebs:id": "vol-1"}}); err != nil {
		t.Fatal(err)
	}
	find := func(k types.LookupAttributeKey, v string) []types.Event {
		t.Helper()
		out, err := trail.LookupEvents(ctx, &ct.LookupEventsInput{LookupAttributes: []types.LookupAttribute{{AttributeKey: k, AttributeValue: &v}}})
		if err != nil {
			t.Fatalf("LookupEvents by %s: %v", k, err)
		}
		return out.Events
	}
	created := find(types.LookupAttributeKeyEventName, "CreateKey")
	if len(created) != 1 {
		t.Fatalf("CreateKey is on the record %d times, want once", len(created))
	}
	e := created[0]
	if *e.EventSource != "kms.amazonaws.com" || *e.ReadOnly != "false" || *e.Username != "root" || *e.AccessKeyId != apptest.RootAccessKeyID || time.Since(*e.EventTime) > time.Minute {
		t.Errorf("event %+v", e)
	}
	if !slices.ContainsFunc(e.Resources, func(r types.Resource) bool { return *r.ResourceName == arn && *r.ResourceType == "AWS::KMS::Key" }) {
		t.Errorf("resources %+v, want the key %s", e.Resources, arn)
	}
	used := find(types.LookupAttributeKeyEventName, "GenerateDataKeyWithoutPlaintext")
	var r audit.Record
	if len(used) != 1 || json.Unmarshal([]byte(*used[0].CloudTrailEvent), &r) != nil {
		t.Fatalf("events %+v", used)
	}
	if got, _ := json.Marshal(r.RequestParameters["encryptionContext"]); string(got) != `{"aws:ebs:id":"vol-1"}` || r.EventID != *used[0].EventId || r.AWSRegion != apptest.Region {
		t.Errorf("record %s", *used[0].CloudTrailEvent)
	}
	failed := find(types.LookupAttributeKeyEventName, "DescribeKey")
	if len(failed) != 1 || json.Unmarshal([]byte(*failed[0].CloudTrailEvent), &r) != nil || r.ErrorCode == "" {
		t.Errorf("the refused DescribeKey: %+v", failed)
	}
	// A call that reads is readOnly also when it is refused before it runs.
	if _, err := keys.ListKeys(ctx, &kms.ListKeysInput{Limit: aws.Int32(0)}); err == nil {
		t.Error("ListKeys of no keys succeeded")
	}
	if got := find(types.LookupAttributeKeyEventName, "ListKeys"); len(got) != 1 || *got[0].ReadOnly != "true" {
		t.Errorf("the refused ListKeys: %+v", got)
	}
	for k, v := range map[types.LookupAttributeKey]string{types.LookupAttributeKeyEventId: *e.EventId, types.LookupAttributeKeyResourceName: arn, types.LookupAttributeKeyResourceType: "AWS::KMS::Key",
		types.LookupAttributeKeyUsername: "root", types.LookupAttributeKeyAccessKeyId: apptest.RootAccessKeyID, types.LookupAttributeKeyEventSource: "kms.amazonaws.com", types.LookupAttributeKeyReadOnly: "false"} {
		if got := find(k, v); !slices.ContainsFunc(got, func(x types.Event) bool { return *x.EventId == *e.EventId }) {
			t.Errorf("by %s=%s %d events without %s", k, v, len(got), *e.EventId)
		}
	}
	if got := find(types.LookupAttributeKeyEventName, "NoSuchCall"); len(got) != 0 {
		t.Errorf("%d events of a call nobody made", len(got))
	}
	// Pages, each event once, newest first.
	var seen []string
	in := &ct.LookupEventsInput{MaxResults: aws.Int32(3), EndTime: aws.Time(time.Now().Add(time.Hour)), LookupAttributes: []types.LookupAttribute{{AttributeKey: types.LookupAttributeKeyEventSource, AttributeValue: aws.String("cloudtrail.amazonaws.com")}}}
	last := time.Now().Add(time.Hour)
	for {
		out, err := trail.LookupEvents(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range out.Events {
			seen = append(seen, *e.EventId)
			if e.EventTime.After(last) {
				t.Errorf("event of %v after one of %v", e.EventTime, last)
			}
			last = *e.EventTime
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if n := len(seen); n < 10 || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != n {
		t.Errorf("pages gave %d events: %v", n, seen)
	}
	out, err := trail.LookupEvents(ctx, &ct.LookupEventsInput{LookupAttributes: []types.LookupAttribute{{AttributeKey: types.LookupAttributeKeyEventSource, AttributeValue: aws.String("kms.amazonaws.com")}}},
		func(o *ct.Options) { o.Region = "eu-west-1" })
	if err != nil || len(out.Events) != 0 {
		t.Errorf("another region sees %d events, %v", len(out.Events), err)
	}
}

func TestLookupEventsRefuses(t *testing.T) {
	w := open(t)
	w.record(5, "us-west-2", "kms.amazonaws.com", true)
	attr := func(k types.LookupAttributeKey, v string) types.LookupAttribute {
		return types.LookupAttribute{AttributeKey: k, AttributeValue: &v}
	}
	now := w.clock.Now()
	page := must[ct.LookupEventsOutput](w, "LookupEvents", &ct.LookupEventsInput{MaxResults: aws.Int32(2)})
	if len(page.Events) != 2 || page.NextToken == nil || *page.Events[0].EventId != "event-0005" {
		t.Fatalf("first page %+v", page)
	}
	for _, c := range []struct {
		code string
		in   *ct.LookupEventsInput
	}{
		{"InvalidMaxResultsException", &ct.LookupEventsInput{MaxResults: aws.Int32(51)}},
		{"InvalidMaxResultsException", &ct.LookupEventsInput{MaxResults: aws.Int32(0)}},
		{"InvalidLookupAttributesException", &ct.LookupEventsInput{LookupAttributes: []types.LookupAttribute{attr("EventName", "a"), attr("EventId", "b")}}},
		{"InvalidLookupAttributesException", &ct.LookupEventsInput{LookupAttributes: []types.LookupAttribute{attr("EventNom", "a")}}},
		{"InvalidLookupAttributesException", &ct.LookupEventsInput{LookupAttributes: []types.LookupAttribute{attr("EventName", "")}}},
		{"InvalidLookupAttributesException", &ct.LookupEventsInput{LookupAttributes: []types.LookupAttribute{attr("ReadOnly", "yes")}}},
		{"InvalidTimeRangeException", &ct.LookupEventsInput{StartTime: &now, EndTime: aws.Time(now.Add(-time.Second))}},
		{"InvalidTimeRangeException", &ct.LookupEventsInput{StartTime: aws.Time(time.Unix(-5, 0))}},
		{"InvalidEventCategoryException", &ct.LookupEventsInput{EventCategory: "other"}},
		{"InvalidNextTokenException", &ct.LookupEventsInput{NextToken: aws.String("nonsense")}},
		{"InvalidNextTokenException", &ct.LookupEventsInput{NextToken: aws.String("")}},
		{"InvalidNextTokenException", &ct.LookupEventsInput{NextToken: page.NextToken, LookupAttributes: []types.LookupAttribute{attr("EventName", "Op")}}},
	} {
		refused(w, c.code, "LookupEvents", c.in)
	}
	// What is older than 90 days is not shown.
	w.clock.Advance(91 * 24 * time.Hour)
	if out := must[ct.LookupEventsOutput](w, "LookupEvents", &ct.LookupEventsInput{StartTime: &now}); len(out.Events) != 0 {
		t.Errorf("%d events older than 90 days", len(out.Events))
	}
	var e smithy.APIError
	if _, err := try[ct.LookupEventsOutput](w, "LookupEvents", &ct.LookupEventsInput{EventCategory: types.EventCategoryInsight}); errors.As(err, &e) {
		t.Errorf("insights: %v, want none", err)
	}
}

// The status of a trail that is not there is refused by its ARN, as AWS does; who may not
// ask for trails is not told that there is none.
func TestStatusOfNoTrail(t *testing.T) {
	ctx, s := context.Background(), apptest.New(t)
	in := &ct.GetTrailStatusInput{Name: aws.String("unknowntrail")}
	_, err := s.CloudTrail().GetTrailStatus(ctx, in)
	var missing *types.TrailNotFoundException
	if !errors.As(err, &missing) || !strings.HasPrefix(missing.ErrorMessage(), "Unknown trail: arn:aws:cloudtrail:"+apptest.Region+":") || !strings.Contains(missing.ErrorMessage(), ":trail/unknowntrail for the user: ") {
		t.Errorf("GetTrailStatus of an unknown trail = %v, want TrailNotFoundException with its ARN", err)
	}
	if _, err := s.IAM().CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("nobody")}); err != nil {
		t.Fatal(err)
	}
	k, err := s.IAM().CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.CloudTrail(apptest.Keys(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")).GetTrailStatus(ctx, in)
	var denied smithy.APIError
	if !errors.As(err, &denied) || denied.ErrorCode() != "AccessDeniedException" {
		t.Errorf("GetTrailStatus by a user without permissions = %v, want AccessDeniedException", err)
	}
}
