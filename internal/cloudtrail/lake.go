package cloudtrail

import (
	"context"
	"regexp"
	"strings"

	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/arn"
	"github.com/sealdesk/sealdesk/internal/store"
)

// There is no CloudTrail Lake and there are no Insights here: no event data store,
// channel, dashboard or import can exist. What asks for them is answered so, what
// would make one is refused.

func (s *Service) lakeOperations() []api.Operation {
	return []api.Operation{
		api.NewView(name, "GetInsightSelectors", s.getInsightSelectors, onTrailOrStore(s, func(in *ct.GetInsightSelectorsInput) (*string, *string) { return in.TrailName, in.EventDataStore })),
		api.NewUpdate(name, "PutInsightSelectors", s.putInsightSelectors, api.Refuses("InsightsDestination"),
			onTrailOrStore(s, func(in *ct.PutInsightSelectorsInput) (*string, *string) { return in.TrailName, in.EventDataStore })),
		api.NewView(name, "GetEventConfiguration", s.getEventConfiguration, onTrailOrStore(s, func(in *ct.GetEventConfigurationInput) (*string, *string) { return in.TrailName, in.EventDataStore })),
		api.NewView(name, "GetResourcePolicy", s.getResourcePolicy),
		api.NewView(name, "ListEventDataStores", s.listEventDataStores),
		api.NewView(name, "GetEventDataStore", s.getEventDataStore),
		api.NewUpdate(name, "CreateEventDataStore", s.createEventDataStore),
		api.NewView(name, "ListChannels", s.listChannels),
		api.NewView(name, "GetChannel", s.getChannel),
		api.NewView(name, "ListImports", s.listImports),
		api.NewView(name, "ListDashboards", s.listDashboards),
	}
}

// onTrailOrStore declares that an operation touches the trail that ids names, or
// nothing when it names an event data store.
func onTrailOrStore[In any](s *Service, ids func(*In) (trail, store *string)) api.Option {
	return api.On(func(_ context.Context, tx *store.Tx, c *api.Call, in *In) ([]api.Target, error) {
		trailName, _ := ids(in)
		if trailName == nil {
			return []api.Target{{ARN: "*"}}, nil
		}
		t, err := s.find(tx, c, *trailName)
		if err != nil {
			return nil, err
		}
		return []api.Target{t.target()}, nil
	})
}

// oneOf refuses anything but a trail alone.
func oneOf(trailName, storeARN *string) error {
	switch {
	case (trailName == nil) == (storeARN == nil):
		return &types.InvalidParameterCombinationException{Message: ptr("Specify either TrailName or EventDataStore, and not both.")}
	case storeARN != nil:
		return noEventDataStore(*storeARN)
	}
	return nil
}

var storeID = regexp.MustCompile(`^[0-9A-Za-z]{7,8}-[0-9a-zA-Z]{4}-[0-9a-zA-Z]{4}-[0-9a-zA-Z]{4}-[0-9a-zA-Z]{12}$`)

func noEventDataStore(id string) error {
	suffix := id
	if strings.HasPrefix(id, "arn:") {
		a, err := arn.Parse(id)
		rest, ok := strings.CutPrefix(a.Resource, "eventdatastore/")
		if err != nil || !ok || a.Service != name {
			return &types.EventDataStoreARNInvalidException{Message: sprintf("%s is not the ARN of an event data store.", id)}
		}
		suffix = rest
	}
	if !storeID.MatchString(suffix) {
		return &types.EventDataStoreARNInvalidException{Message: sprintf("%s is neither the ARN nor the ID of an event data store.", id)}
	}
	return &types.EventDataStoreNotFoundException{Message: sprintf("The event data store %s does not exist: there is no CloudTrail Lake here.", id)}
}

func (s *Service) getInsightSelectors(_ context.Context, tx *store.Tx, c *api.Call, in *ct.GetInsightSelectorsInput) (*ct.GetInsightSelectorsOutput, error) {
	if err := oneOf(in.TrailName, in.EventDataStore); err != nil {
		return nil, err
	}
	t, err := s.find(tx, c, deref(in.TrailName))
	if err != nil {
		return nil, err
	}
	return nil, &types.InsightNotEnabledException{Message: sprintf("Trail %s does not have Insights enabled. Edit the trail settings to enable Insights, and then try the operation again.", t.arn())}
}

// putInsightSelectors turns Insights off, as they are.
func (s *Service) putInsightSelectors(_ context.Context, tx *store.Tx, c *api.Call, in *ct.PutInsightSelectorsInput) (*ct.PutInsightSelectorsOutput, error) {
	if err := oneOf(in.TrailName, in.EventDataStore); err != nil {
		return nil, err
	}
	t, err := s.edit(tx, c, deref(in.TrailName))
	if err != nil {
		return nil, err
	}
	for _, i := range in.InsightSelectors {
		return nil, &types.UnsupportedOperationException{Message: sprintf("%s (event categories %v) is not available: nothing here analyses how calls usually are. An empty list of selectors is accepted.", i.InsightType, i.EventCategories)}
	}
	return &ct.PutInsightSelectorsOutput{TrailARN: ptr(t.arn()), InsightSelectors: []types.InsightSelector{}}, nil
}

// getEventConfiguration: nothing is aggregated.
func (s *Service) getEventConfiguration(_ context.Context, tx *store.Tx, c *api.Call, in *ct.GetEventConfigurationInput) (*ct.GetEventConfigurationOutput, error) {
	if err := oneOf(in.TrailName, in.EventDataStore); err != nil {
		return nil, err
	}
	t, err := s.find(tx, c, deref(in.TrailName))
	if err != nil {
		return nil, err
	}
	return &ct.GetEventConfigurationOutput{TrailARN: ptr(t.arn()), AggregationConfigurations: []types.AggregationConfiguration{}}, nil
}

func (s *Service) getResourcePolicy(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.GetResourcePolicyInput) (*ct.GetResourcePolicyOutput, error) {
	id := deref(in.ResourceArn)
	a, err := arn.Parse(id)
	if err != nil || a.Service != name {
		return nil, &types.ResourceARNNotValidException{Message: sprintf("%s is not the ARN of a CloudTrail resource.", id)}
	}
	switch kind, _, _ := strings.Cut(a.Resource, "/"); kind {
	case "eventdatastore", "channel", "dashboard":
		return nil, &types.ResourceNotFoundException{Message: sprintf("The resource %s does not exist.", id)}
	}
	return nil, &types.ResourceTypeNotSupportedException{Message: sprintf("%s: only event data stores, dashboards and channels have resource-based policies.", id)}
}

// noMore refuses the token of a list that has one page.
func noMore(token *string) error {
	if token == nil {
		return nil
	}
	return &types.InvalidNextTokenException{Message: ptr("The NextToken value is not valid: the list has one page.")}
}

func (s *Service) listEventDataStores(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.ListEventDataStoresInput) (*ct.ListEventDataStoresOutput, error) {
	_ = in.MaxResults
	return &ct.ListEventDataStoresOutput{EventDataStores: []types.EventDataStore{}}, noMore(in.NextToken)
}

func (s *Service) getEventDataStore(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.GetEventDataStoreInput) (*ct.GetEventDataStoreOutput, error) {
	return nil, noEventDataStore(deref(in.EventDataStore))
}

func (s *Service) createEventDataStore(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.CreateEventDataStoreInput) (*ct.CreateEventDataStoreOutput, error) {
	return nil, &types.UnsupportedOperationException{Message: sprintf("The event data store %s cannot be created: there is no CloudTrail Lake here. LookupEvents finds the events of the last 90 days; trails deliver log files.", deref(in.Name))}
}

func (s *Service) listChannels(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.ListChannelsInput) (*ct.ListChannelsOutput, error) {
	_ = in.MaxResults
	return &ct.ListChannelsOutput{Channels: []types.Channel{}}, noMore(in.NextToken)
}

func (s *Service) getChannel(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.GetChannelInput) (*ct.GetChannelOutput, error) {
	id := deref(in.Channel)
	if a, err := arn.Parse(id); strings.HasPrefix(id, "arn:") && (err != nil || a.Service != name || !strings.HasPrefix(a.Resource, "channel/")) {
		return nil, &types.ChannelARNInvalidException{Message: sprintf("%s is not the ARN of a channel.", id)}
	}
	return nil, &types.ChannelNotFoundException{Message: sprintf("The channel %s does not exist.", id)}
}

func (s *Service) listImports(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.ListImportsInput) (*ct.ListImportsOutput, error) {
	_, _ = in.MaxResults, in.ImportStatus
	if in.Destination != nil {
		return nil, noEventDataStore(*in.Destination)
	}
	return &ct.ListImportsOutput{Imports: []types.ImportsListItem{}}, noMore(in.NextToken)
}

func (s *Service) listDashboards(_ context.Context, _ *store.Tx, _ *api.Call, in *ct.ListDashboardsInput) (*ct.ListDashboardsOutput, error) {
	_, _, _ = in.MaxResults, in.NamePrefix, in.Type
	return &ct.ListDashboardsOutput{Dashboards: []types.DashboardDetail{}}, noMore(in.NextToken)
}
