package cloudtrail_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/cloudtrail"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/store"
)

const account = "111122223333"

// world is the service on a real store and audit log, authorised by nobody.
type world struct {
	*testing.T
	store   *store.Store
	log     *audit.Log
	clock   *clock.Manual
	service *cloudtrail.Service
	ops     map[string]api.Operation
	dir     string
	region  string
	n       int
	fault   *faultyLog
}

// faultyLog is the audit log, and fails to be read after a while when told.
type faultyLog struct {
	*audit.Log
	after int // records, 0: no fault
}

func (l *faultyLog) Read(ctx context.Context, seq uint64, f func(uint64, []byte) bool) error {
	n := 0
	failed := false
	err := l.Log.Read(ctx, seq, func(seq uint64, b []byte) bool {
		if n++; l.after > 0 && n > l.after {
			failed = true
			return false
		}
		return f(seq, b)
	})
	if failed {
		return errors.New("killed here")
	}
	return err
}

func open(t *testing.T) *world {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	s, err := store.Open(ctx, store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	root, err := keyring.OpenFile(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, store: s, clock: clock.NewManual(time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)), ops: map[string]api.Operation{}, dir: filepath.Join(dir, "trails"), region: "us-west-2"}
	if err := os.MkdirAll(filepath.Join(w.dir, "my-bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	if w.log, err = audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), Store: s, Root: root, Clock: w.clock, SegmentBytes: 20000}); err != nil {
		t.Fatal(err)
	}
	w.fault = &faultyLog{Log: w.log}
	if w.service, err = cloudtrail.New(cloudtrail.Config{Store: s, Clock: w.clock, Log: w.fault, Root: root, Dir: w.dir}); err != nil {
		t.Fatal(err)
	}
	for _, o := range w.service.Operations() {
		w.ops[o.Name] = o
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.log.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.log.Close(); s.Close() })
	return w
}

func try[Out any](w *world, name string, in any) (*Out, error) {
	w.Helper()
	op := w.ops[name]
	c := &api.Call{Account: account, Region: w.region, Time: w.clock.Now()}
	var out any
	run := func(tx *store.Tx) (err error) {
		if op.Targets != nil {
			if _, err := op.Targets(context.Background(), tx, c, in); err != nil {
				return err
			}
		}
		out, err = op.Run(context.Background(), tx, c, in)
		return err
	}
	var err error
	if op.Kind == api.Steps {
		err = run(nil)
	} else {
		err = w.store.Update(context.Background(), run)
	}
	if err != nil {
		return nil, err
	}
	return out.(*Out), nil
}

func must[Out any](w *world, name string, in any) *Out {
	w.Helper()
	out, err := try[Out](w, name, in)
	if err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	return out
}

func refused(w *world, code, name string, in any) {
	w.Helper()
	_, err := try[struct{}](w, name, in)
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		w.Errorf("%s = %v, want %s", name, err, code)
	}
}

// record puts n events of a region on the record.
func (w *world) record(n int, region, source string, readOnly bool) {
	w.Helper()
	for range n {
		w.n++
		err := w.log.Append(context.Background(), &audit.Record{EventVersion: "1.11", EventTime: audit.Time{Time: w.clock.Now()}, EventSource: source, EventName: "Op", AWSRegion: region,
			EventID: fmt.Sprintf("event-%04d", w.n), ReadOnly: readOnly, RecipientAccountID: account, EventType: "AwsApiCall", EventCategory: "Management", ManagementEvent: true})
		if err != nil {
			w.Fatal(err)
		}
	}
}

func (w *world) trail(change func(in *ct.CreateTrailInput)) {
	w.Helper()
	in := &ct.CreateTrailInput{Name: aws.String("my-trail"), S3BucketName: aws.String("my-bucket"), EnableLogFileValidation: aws.Bool(true)}
	if change != nil {
		change(in)
	}
	must[ct.CreateTrailOutput](w, "CreateTrail", in)
	must[ct.StartLoggingOutput](w, "StartLogging", &ct.StartLoggingInput{Name: in.Name})
}

// objects are the names in the bucket that hold part.
func (w *world) objects(part string) []string {
	w.Helper()
	var out []string
	base := filepath.Join(w.dir, "my-bucket")
	err := fs.WalkDir(os.DirFS(base), ".", func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(p, part) && strings.HasSuffix(p, ".json.gz") {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return out
}

func unzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// delivered are the event IDs in the log files.
func (w *world) delivered() []string {
	w.Helper()
	var ids []string
	for _, o := range w.objects("/CloudTrail/") {
		var f struct{ Records []audit.Record }
		if err := json.Unmarshal(unzip(w.T, filepath.Join(w.dir, "my-bucket", o)), &f); err != nil {
			w.Fatalf("%s: %v", o, err)
		}
		for _, r := range f.Records {
			if !strings.Contains(o, "/"+r.AWSRegion+"/") {
				w.Errorf("an event of %s is in %s", r.AWSRegion, o)
			}
			ids = append(ids, r.EventID)
		}
	}
	slices.Sort(ids)
	return ids
}

func events(from, to int) []string {
	var out []string
	for n := from; n <= to; n++ {
		out = append(out, fmt.Sprintf("event-%04d", n))
	}
	return out
}

func (w *world) keys() map[string][]byte {
	w.Helper()
	out := map[string][]byte{}
	for _, k := range must[ct.ListPublicKeysOutput](w, "ListPublicKeys", &ct.ListPublicKeysInput{StartTime: aws.Time(w.clock.Now().Add(-100 * time.Hour))}).PublicKeyList {
		out[*k.Fingerprint] = k.Value
	}
	return out
}

func (w *world) validate() *cloudtrail.Validation {
	w.Helper()
	v, err := cloudtrail.ValidateLogs(w.dir, "my-bucket", "", account, "us-west-2", "us-west-2", "my-trail", time.Time{}, w.keys())
	if err != nil {
		w.Fatal(err)
	}
	return v
}

func TestTrailDeliversOnce(t *testing.T) {
	ctx := context.Background()
	w := open(t)
	w.record(3, "us-west-2", "kms.amazonaws.com", true) // before logging started
	w.trail(nil)
	w.record(5, "us-west-2", "kms.amazonaws.com", true)
	w.record(2, "eu-west-1", "kms.amazonaws.com", true) // another region
	w.service.Deliver(ctx)
	w.service.Deliver(ctx)
	if got := w.delivered(); !slices.Equal(got, events(4, 8)) {
		t.Errorf("delivered %v, want events 4 to 8", got)
	}
	// Killed in the middle of a round, and after writing, before noting it.
	w.record(4, "us-west-2", "kms.amazonaws.com", false)
	w.fault.after = 2
	w.service.Deliver(ctx)
	w.fault.after = 0
	if s := must[ct.GetTrailStatusOutput](w, "GetTrailStatus", &ct.GetTrailStatusInput{Name: aws.String("my-trail")}); s.LatestDeliveryError == nil || !*s.IsLogging {
		t.Errorf("status after a failure %+v, want the error", s)
	}
	w.record(1, "us-west-2", "kms.amazonaws.com", false)
	w.clock.Advance(time.Minute)
	w.service.Deliver(ctx)
	if got, want := w.delivered(), append(events(4, 8), events(11, 15)...); !slices.Equal(got, want) {
		t.Errorf("after a failure delivered %v, want %v", got, want)
	}
	w.record(2, "us-west-2", "kms.amazonaws.com", false)
	must[ct.StopLoggingOutput](w, "StopLogging", &ct.StopLoggingInput{Name: aws.String("my-trail")})
	w.record(2, "us-west-2", "kms.amazonaws.com", false)
	w.service.Deliver(ctx)
	if got, want := w.delivered(), append(events(4, 8), events(11, 17)...); !slices.Equal(got, want) {
		t.Errorf("after StopLogging delivered %v, want %v", got, want)
	}
	must[ct.StartLoggingOutput](w, "StartLogging", &ct.StartLoggingInput{Name: aws.String("my-trail")})
	w.record(1, "us-west-2", "kms.amazonaws.com", false)
	w.service.Deliver(ctx)
	if got, want := w.delivered(), append(append(events(4, 8), events(11, 17)...), events(20, 20)...); !slices.Equal(got, want) {
		t.Errorf("after logging was started again delivered %v, want %v", got, want)
	}
	s := must[ct.GetTrailStatusOutput](w, "GetTrailStatus", &ct.GetTrailStatusInput{Name: aws.String("my-trail")})
	if s.LatestDeliveryTime == nil || s.LatestDeliveryError != nil {
		t.Errorf("status %+v", s)
	}
}

func TestSelectors(t *testing.T) {
	ctx := context.Background()
	w := open(t)
	w.trail(func(in *ct.CreateTrailInput) { in.IsMultiRegionTrail = aws.Bool(true) })
	put := func(e ...types.EventSelector) *ct.PutEventSelectorsInput {
		return &ct.PutEventSelectorsInput{TrailName: aws.String("my-trail"), EventSelectors: e}
	}
	must[ct.PutEventSelectorsOutput](w, "PutEventSelectors", put(types.EventSelector{ReadWriteType: types.ReadWriteTypeWriteOnly, ExcludeManagementEventSources: []string{"kms.amazonaws.com"}}))
	w.record(1, "us-west-2", "kms.amazonaws.com", false)
	w.record(1, "eu-west-1", "ec2.amazonaws.com", false) // the one
	w.record(1, "eu-west-1", "ec2.amazonaws.com", true)
	w.record(1, "us-east-1", "iam.amazonaws.com", false) // and this
	w.service.Deliver(ctx)
	if got := w.delivered(); !slices.Equal(got, []string{"event-0002", "event-0004"}) {
		t.Errorf("delivered %v, want events 2 and 4", got)
	}
	for _, bad := range []*ct.PutEventSelectorsInput{put(), put(types.EventSelector{ReadWriteType: "Some"}), put(types.EventSelector{ExcludeManagementEventSources: []string{"ec2.amazonaws.com"}}),
		put(types.EventSelector{DataResources: []types.DataResource{{Type: aws.String("AWS::S3::Object")}}})} {
		refused(w, "InvalidEventSelectorsException", "PutEventSelectors", bad)
	}
	if out := must[ct.GetEventSelectorsOutput](w, "GetEventSelectors", &ct.GetEventSelectorsInput{TrailName: aws.String("my-trail")}); len(out.EventSelectors) != 1 || out.EventSelectors[0].ReadWriteType != "WriteOnly" {
		t.Errorf("GetEventSelectors = %+v", out)
	}
}

// Advanced selectors replace the basic ones, choose as they say, and are shown as given.
func TestAdvancedSelectors(t *testing.T) {
	w := open(t)
	w.trail(func(in *ct.CreateTrailInput) { in.IsMultiRegionTrail = aws.Bool(true) })
	field := func(name string, equals, not []string) types.AdvancedFieldSelector {
		return types.AdvancedFieldSelector{Field: &name, Equals: equals, NotEquals: not}
	}
	put := func(f ...types.AdvancedFieldSelector) *ct.PutEventSelectorsInput {
		return &ct.PutEventSelectorsInput{TrailName: aws.String("my-trail"), AdvancedEventSelectors: []types.AdvancedEventSelector{{Name: aws.String("writes"), FieldSelectors: f}}}
	}
	management := field("eventCategory", []string{"Management"}, nil)
	good := put(management, field("readOnly", []string{"false"}, nil), field("eventSource", nil, []string{"kms.amazonaws.com"}))
	if out := must[ct.PutEventSelectorsOutput](w, "PutEventSelectors", good); len(out.AdvancedEventSelectors) != 1 || out.EventSelectors != nil {
		t.Errorf("PutEventSelectors = %+v, want the advanced selector alone", out)
	}
	w.record(1, "us-west-2", "kms.amazonaws.com", false)
	w.record(1, "eu-west-1", "ec2.amazonaws.com", false) // the one
	w.record(1, "eu-west-1", "ec2.amazonaws.com", true)
	w.service.Deliver(context.Background())
	if got := w.delivered(); !slices.Equal(got, []string{"event-0002"}) {
		t.Errorf("delivered %v, want event 2", got)
	}
	got := must[ct.GetEventSelectorsOutput](w, "GetEventSelectors", &ct.GetEventSelectorsInput{TrailName: aws.String("my-trail")})
	if got.EventSelectors != nil || len(got.AdvancedEventSelectors) != 1 || !reflect.DeepEqual(got.AdvancedEventSelectors[0].FieldSelectors, good.AdvancedEventSelectors[0].FieldSelectors) {
		t.Errorf("GetEventSelectors = %+v, want what was put", got)
	}
	if tr := must[ct.GetTrailOutput](w, "GetTrail", &ct.GetTrailInput{Name: aws.String("my-trail")}).Trail; !*tr.HasCustomEventSelectors {
		t.Error("HasCustomEventSelectors is false")
	}
	both := put(management)
	both.EventSelectors = []types.EventSelector{{ReadWriteType: types.ReadWriteTypeAll}}
	prefix := management
	prefix.Equals, prefix.StartsWith = nil, []string{"Man"}
	for _, bad := range []*ct.PutEventSelectorsInput{both, put(prefix), put(field("readOnly", []string{"true"}, nil)), put(field("eventCategory", []string{"Data"}, nil)), put(management, management),
		put(management, field("readOnly", []string{"maybe"}, nil)), put(management, field("eventSource", nil, []string{"ec2.amazonaws.com"})), put(management, field("resources.type", []string{"AWS::S3::Object"}, nil))} {
		refused(w, "InvalidEventSelectorsException", "PutEventSelectors", bad)
	}
	must[ct.PutEventSelectorsOutput](w, "PutEventSelectors", &ct.PutEventSelectorsInput{TrailName: aws.String("my-trail"), EventSelectors: []types.EventSelector{{ReadWriteType: types.ReadWriteTypeAll}}})
	if got := must[ct.GetEventSelectorsOutput](w, "GetEventSelectors", &ct.GetEventSelectorsInput{TrailName: aws.String("my-trail")}); got.AdvancedEventSelectors != nil {
		t.Errorf("basic selectors left the advanced ones: %+v", got)
	}
}

// What is of CloudTrail Lake and Insights is answered, and none of it exists.
func TestNoLake(t *testing.T) {
	w := open(t)
	w.trail(func(*ct.CreateTrailInput) {})
	name := aws.String("my-trail")
	const store = "arn:aws:cloudtrail:us-west-2:111122223333:eventdatastore/EXAMPLE-ee54-4813-92d5-999aeEXAMPLE"
	refused(w, "InsightNotEnabledException", "GetInsightSelectors", &ct.GetInsightSelectorsInput{TrailName: name})
	refused(w, "TrailNotFoundException", "GetInsightSelectors", &ct.GetInsightSelectorsInput{TrailName: aws.String("other")})
	refused(w, "InvalidParameterCombinationException", "GetInsightSelectors", &ct.GetInsightSelectorsInput{})
	refused(w, "EventDataStoreNotFoundException", "GetInsightSelectors", &ct.GetInsightSelectorsInput{EventDataStore: aws.String(store)})
	refused(w, "UnsupportedOperationException", "PutInsightSelectors", &ct.PutInsightSelectorsInput{TrailName: name, InsightSelectors: []types.InsightSelector{{InsightType: types.InsightTypeApiCallRateInsight}}})
	if out := must[ct.PutInsightSelectorsOutput](w, "PutInsightSelectors", &ct.PutInsightSelectorsInput{TrailName: name, InsightSelectors: []types.InsightSelector{}}); !strings.HasSuffix(*out.TrailARN, "trail/my-trail") || len(out.InsightSelectors) != 0 {
		t.Errorf("PutInsightSelectors of none = %+v", out)
	}
	if out := must[ct.GetEventConfigurationOutput](w, "GetEventConfiguration", &ct.GetEventConfigurationInput{TrailName: name}); !strings.HasSuffix(*out.TrailARN, "trail/my-trail") {
		t.Errorf("GetEventConfiguration = %+v", out)
	}
	refused(w, "UnsupportedOperationException", "CreateEventDataStore", &ct.CreateEventDataStoreInput{Name: aws.String("lake")})
	refused(w, "EventDataStoreNotFoundException", "GetEventDataStore", &ct.GetEventDataStoreInput{EventDataStore: aws.String(store)})
	refused(w, "EventDataStoreARNInvalidException", "GetEventDataStore", &ct.GetEventDataStoreInput{EventDataStore: aws.String("arn:aws:cloudtrail:us-west-2:111122223333:trail/my-trail")})
	refused(w, "EventDataStoreARNInvalidException", "GetEventDataStore", &ct.GetEventDataStoreInput{EventDataStore: aws.String("lake")})
	refused(w, "ResourceNotFoundException", "GetResourcePolicy", &ct.GetResourcePolicyInput{ResourceArn: aws.String(store)})
	refused(w, "ResourceTypeNotSupportedException", "GetResourcePolicy", &ct.GetResourcePolicyInput{ResourceArn: aws.String("arn:aws:cloudtrail:us-west-2:111122223333:trail/my-trail")})
	refused(w, "ResourceARNNotValidException", "GetResourcePolicy", &ct.GetResourcePolicyInput{ResourceArn: aws.String("arn:aws:s3:::x")})
	refused(w, "ChannelNotFoundException", "GetChannel", &ct.GetChannelInput{Channel: aws.String("EXAMPLE8-0558-4f7e-a06a-43969EXAMPLE")})
	refused(w, "ChannelARNInvalidException", "GetChannel", &ct.GetChannelInput{Channel: aws.String(store)})
	refused(w, "InvalidNextTokenException", "ListChannels", &ct.ListChannelsInput{NextToken: aws.String("more")})
	refused(w, "EventDataStoreNotFoundException", "ListImports", &ct.ListImportsInput{Destination: aws.String(store)})
	if len(must[ct.ListChannelsOutput](w, "ListChannels", &ct.ListChannelsInput{}).Channels)+len(must[ct.ListImportsOutput](w, "ListImports", &ct.ListImportsInput{}).Imports)+
		len(must[ct.ListEventDataStoresOutput](w, "ListEventDataStores", &ct.ListEventDataStoresInput{}).EventDataStores)+len(must[ct.ListDashboardsOutput](w, "ListDashboards", &ct.ListDashboardsInput{}).Dashboards) != 0 {
		t.Error("something of CloudTrail Lake is listed")
	}
}

// What is wrong with a trail's name is said in AWS's words.
func TestTrailNames(t *testing.T) {
	w := open(t)
	for name, want := range map[string]string{
		"a":                      "Trail name too short. Minimum allowed length: 3 characters. Specified name length: 1 characters.",
		strings.Repeat("a", 129): "Trail name too long. Maximum allowed length: 128 characters. Specified name length: 129 characters.",
		"trail!":                 "Trail name must ends with a letter or number.",
		"-trail":                 "Trail name must starts with a letter or number.",
		"my#trail":               "Trail name or ARN can only contain uppercase letters, lowercase letters, numbers, periods (.), hyphens (-), and underscores (_).",
		"my._trail":              "Trail name cannot contain adjacent periods, hyphens or underscores.",
		"192.0.2.1":              "Trail name cannot be in IP address format.",
	} {
		_, err := try[ct.CreateTrailOutput](w, "CreateTrail", &ct.CreateTrailInput{Name: &name, S3BucketName: aws.String("my-bucket")})
		var bad *types.InvalidTrailNameException
		if !errors.As(err, &bad) || *bad.Message != want {
			t.Errorf("CreateTrail(%.20q) = %v, want %q", name, err, want)
		}
	}
	w.trail(func(in *ct.CreateTrailInput) { in.Name = aws.String("my.trail-1_x") })
}

func TestDigests(t *testing.T) {
	ctx := context.Background()
	w := open(t)
	w.trail(nil)
	for range 3 {
		w.record(2, "us-west-2", "kms.amazonaws.com", true)
		w.service.Deliver(ctx)
		w.clock.Advance(30 * time.Minute)
		w.record(2, "us-west-2", "kms.amazonaws.com", true)
		w.service.Deliver(ctx)
		w.clock.Advance(30*time.Minute + time.Second)
		w.service.Deliver(ctx)
	}
	w.clock.Advance(2 * time.Hour) // hours without an event
	w.service.Deliver(ctx)
	if v := w.validate(); !v.OK() || v.Digests != 5 || v.LogFiles != 6 {
		t.Fatalf("ValidateLogs = %+v; want 5 digests, 6 log files and no problem", v)
	}
	logs, digests := w.objects("/CloudTrail/"), w.objects("/CloudTrail-Digest/")
	slices.Sort(digests)
	name := digests[0]
	if !strings.HasPrefix(name, "AWSLogs/111122223333/CloudTrail-Digest/us-west-2/2026/05/06/111122223333_CloudTrail-Digest_us-west-2_my-trail_us-west-2_20260506T080809Z") {
		t.Errorf("first digest is %s", name)
	}
	var first map[string]any
	if err := json.Unmarshal(unzip(t, filepath.Join(w.dir, "my-bucket", name)), &first); err != nil {
		t.Fatal(err)
	}
	if v, ok := first["previousDigestSignature"]; !ok || v != nil {
		t.Errorf("previousDigestSignature of the first digest = %v, want null", v)
	}
	base := filepath.Join(w.dir, "my-bucket")
	for name, spoil := range map[string]func(b string){
		"log file changed":     func(b string) { rezip(t, filepath.Join(b, logs[2]), "event-", "Event-") },
		"log file removed":     func(b string) { _ = os.Remove(filepath.Join(b, logs[2])) },
		"digest changed":       func(b string) { rezip(t, filepath.Join(b, digests[1]), `"logFiles":[`, `"logFiles": [`) },
		"digest removed":       func(b string) { _ = os.Remove(filepath.Join(b, digests[1])) },
		"first digest removed": func(b string) { _ = os.Remove(filepath.Join(b, digests[0])) },
		"signature removed":    func(b string) { _ = os.Remove(filepath.Join(b, digests[1]+".metadata")) },
		"digest moved":         func(b string) { _ = os.Rename(filepath.Join(b, digests[1]), filepath.Join(b, digests[2])) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "my-bucket"), os.DirFS(base)); err != nil {
				t.Fatal(err)
			}
			spoil(filepath.Join(dir, "my-bucket"))
			v, err := cloudtrail.ValidateLogs(dir, "my-bucket", "", account, "us-west-2", "us-west-2", "my-trail", time.Time{}, w.keys())
			if err != nil || v.OK() {
				t.Errorf("ValidateLogs = %+v, %v; want a problem", v, err)
			}
		})
	}
}

// rezip replaces text inside a compressed file.
func rezip(t *testing.T, path, old, new string) {
	t.Helper()
	b := bytes.Replace(unzip(t, path), []byte(old), []byte(new), 1)
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, _ = g.Write(b)
	_ = g.Close()
	if err := os.WriteFile(path, z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTrailLife(t *testing.T) {
	w := open(t)
	w.trail(func(in *ct.CreateTrailInput) {
		in.IsMultiRegionTrail = aws.Bool(true)
		in.TagsList = []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}
	})
	arn := "arn:aws:cloudtrail:us-west-2:111122223333:trail/my-trail"
	create := func(change func(in *ct.CreateTrailInput)) *ct.CreateTrailInput {
		in := &ct.CreateTrailInput{Name: aws.String("other"), S3BucketName: aws.String("my-bucket")}
		change(in)
		return in
	}
	for code, ins := range map[string][]*ct.CreateTrailInput{
		"TrailAlreadyExistsException":   {create(func(in *ct.CreateTrailInput) { in.Name = aws.String("my-trail") })},
		"S3BucketDoesNotExistException": {create(func(in *ct.CreateTrailInput) { in.S3BucketName = aws.String("no-bucket") })},
		"InvalidS3BucketNameException":  {create(func(in *ct.CreateTrailInput) { in.S3BucketName = aws.String("../my-bucket") }), create(func(in *ct.CreateTrailInput) { in.S3BucketName = aws.String("a..b") })},
		"InvalidS3PrefixException":      {create(func(in *ct.CreateTrailInput) { in.S3KeyPrefix = aws.String("a/../../b") }), create(func(in *ct.CreateTrailInput) { in.S3KeyPrefix = aws.String("/etc") })},
		"InvalidTrailNameException": {create(func(in *ct.CreateTrailInput) { in.Name = aws.String("a") }), create(func(in *ct.CreateTrailInput) { in.Name = aws.String("a--b") }),
			create(func(in *ct.CreateTrailInput) { in.Name = aws.String("192.168.5.4") }), create(func(in *ct.CreateTrailInput) { in.Name = aws.String("../x") })},
		"InvalidSnsTopicNameException":               {create(func(in *ct.CreateTrailInput) { in.SnsTopicName = aws.String("t") })},
		"KmsException":                               {create(func(in *ct.CreateTrailInput) { in.KmsKeyId = aws.String("alias/x") })},
		"OrganizationsNotInUseException":             {create(func(in *ct.CreateTrailInput) { in.IsOrganizationTrail = aws.Bool(true) })},
		"CloudWatchLogsDeliveryUnavailableException": {create(func(in *ct.CreateTrailInput) { in.CloudWatchLogsLogGroupArn = aws.String("arn") })},
		"InvalidParameterCombinationException": {create(func(in *ct.CreateTrailInput) {
			in.IsMultiRegionTrail, in.IncludeGlobalServiceEvents = aws.Bool(true), aws.Bool(false)
		})},
	} {
		for _, in := range ins {
			refused(w, code, "CreateTrail", in)
		}
	}
	for i := range 4 {
		must[ct.CreateTrailOutput](w, "CreateTrail", create(func(in *ct.CreateTrailInput) { in.Name = aws.String(fmt.Sprint("trail", i)) }))
	}
	refused(w, "MaximumNumberOfTrailsExceededException", "CreateTrail", create(func(*ct.CreateTrailInput) {}))
	if got := must[ct.ListTagsOutput](w, "ListTags", &ct.ListTagsInput{ResourceIdList: []string{arn}}).ResourceTagList[0].TagsList; len(got) != 1 || *got[0].Key != "a" {
		t.Errorf("tags %+v", got)
	}
	must[ct.AddTagsOutput](w, "AddTags", &ct.AddTagsInput{ResourceId: &arn, TagsList: []types.Tag{{Key: aws.String("c")}}})
	must[ct.RemoveTagsOutput](w, "RemoveTags", &ct.RemoveTagsInput{ResourceId: &arn, TagsList: []types.Tag{{Key: aws.String("a")}}})
	refused(w, "ResourceNotFoundException", "AddTags", &ct.AddTagsInput{ResourceId: aws.String(arn + "x"), TagsList: nil})
	refused(w, "CloudTrailARNInvalidException", "AddTags", &ct.AddTagsInput{ResourceId: aws.String("my-trail"), TagsList: nil})

	w.region = "eu-west-1" // a shadow there
	if got := must[ct.DescribeTrailsOutput](w, "DescribeTrails", &ct.DescribeTrailsInput{}).TrailList; len(got) != 1 || *got[0].TrailARN != arn || *got[0].HomeRegion != "us-west-2" {
		t.Errorf("shadow trails %+v, want the trail of all regions", got)
	}
	if got := must[ct.DescribeTrailsOutput](w, "DescribeTrails", &ct.DescribeTrailsInput{IncludeShadowTrails: aws.Bool(false)}).TrailList; len(got) != 0 {
		t.Errorf("trails of this region %+v, want none", got)
	}
	refused(w, "InvalidHomeRegionException", "StopLogging", &ct.StopLoggingInput{Name: &arn})
	refused(w, "TrailNotFoundException", "GetTrail", &ct.GetTrailInput{Name: aws.String("my-trail")})
	refused(w, "TrailNotFoundException", "GetTrail", &ct.GetTrailInput{Name: aws.String("arn:aws:cloudtrail:us-west-2:999999999999:trail/my-trail")})
	if got := must[ct.ListTrailsOutput](w, "ListTrails", &ct.ListTrailsInput{}).Trails; len(got) != 5 {
		t.Errorf("%d trails in all regions, want 5", len(got))
	}
	w.region = "us-west-2"
	must[ct.UpdateTrailOutput](w, "UpdateTrail", &ct.UpdateTrailInput{Name: aws.String("my-trail"), S3KeyPrefix: aws.String("here"), IsMultiRegionTrail: aws.Bool(false)})
	got := must[ct.GetTrailOutput](w, "GetTrail", &ct.GetTrailInput{Name: &arn}).Trail
	if *got.S3KeyPrefix != "here" || *got.IsMultiRegionTrail || !*got.LogFileValidationEnabled {
		t.Errorf("after UpdateTrail %+v", got)
	}
	w.record(1, "us-west-2", "kms.amazonaws.com", true)
	w.service.Deliver(context.Background())
	if o := w.objects("/CloudTrail/"); len(o) != 1 || !strings.HasPrefix(o[0], "here/AWSLogs/111122223333/CloudTrail/us-west-2/") {
		t.Errorf("objects %v, want one below here/", o)
	}
	must[ct.DeleteTrailOutput](w, "DeleteTrail", &ct.DeleteTrailInput{Name: aws.String("my-trail")})
	refused(w, "TrailNotFoundException", "DeleteTrail", &ct.DeleteTrailInput{Name: aws.String("my-trail")})
}
