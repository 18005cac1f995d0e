package cloudtrail

import (
	"context"
	"slices"

	ct "github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/store"
)

// selector chooses management events.
type selector struct {
	ReadWrite string   `json:"readWrite"` // All, ReadOnly, WriteOnly
	None      bool     `json:"none,omitempty"`
	Exclude   []string `json:"exclude,omitempty"` // event sources
}

func (s *Service) putEventSelectors(_ context.Context, tx *store.Tx, c *api.Call, in *ct.PutEventSelectorsInput) (*ct.PutEventSelectorsOutput, error) {
	t, err := s.edit(tx, c, deref(in.TrailName))
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) error {
		return &types.InvalidEventSelectorsException{Message: sprintf(format, args...)}
	}
	if len(in.AdvancedEventSelectors) > 0 {
		if len(in.EventSelectors) > 0 {
			return nil, bad("EventSelectors and AdvancedEventSelectors cannot both be given: the ones replace the others.")
		}
		if err := t.setAdvanced(in.AdvancedEventSelectors); err != nil {
			return nil, err
		}
		return &ct.PutEventSelectorsOutput{TrailARN: ptr(t.arn()), AdvancedEventSelectors: t.showAdvanced()}, s.trails.Put(tx, t.key(), t)
	}
	if len(in.EventSelectors) == 0 || len(in.EventSelectors) > 5 {
		return nil, bad("There must be 1 to 5 event selectors.")
	}
	t.Selectors, t.Advanced = nil, nil
	for _, e := range in.EventSelectors {
		one := selector{ReadWrite: string(e.ReadWriteType), None: e.IncludeManagementEvents != nil && !*e.IncludeManagementEvents, Exclude: e.ExcludeManagementEventSources}
		if one.ReadWrite == "" {
			one.ReadWrite = string(types.ReadWriteTypeAll)
		}
		if !slices.Contains(types.ReadWriteType("").Values(), types.ReadWriteType(one.ReadWrite)) {
			return nil, bad("ReadWriteType must be All, ReadOnly or WriteOnly, not %q.", one.ReadWrite)
		}
		if len(e.DataResources) > 0 {
			return nil, bad("There are no data events here: leave DataResources out.")
		}
		for _, x := range one.Exclude {
			if !slices.Contains(excludable, x) {
				return nil, bad("ExcludeManagementEventSources can name %v, not %q.", excludable, x)
			}
		}
		t.Selectors = append(t.Selectors, one)
	}
	return &ct.PutEventSelectorsOutput{TrailARN: ptr(t.arn()), EventSelectors: t.showSelectors()}, s.trails.Put(tx, t.key(), t)
}

func (s *Service) getEventSelectors(_ context.Context, tx *store.Tx, c *api.Call, in *ct.GetEventSelectorsInput) (*ct.GetEventSelectorsOutput, error) {
	t, err := s.find(tx, c, deref(in.TrailName))
	if err != nil {
		return nil, err
	}
	if len(t.Advanced) > 0 {
		return &ct.GetEventSelectorsOutput{TrailARN: ptr(t.arn()), AdvancedEventSelectors: t.showAdvanced()}, nil
	}
	return &ct.GetEventSelectorsOutput{TrailARN: ptr(t.arn()), EventSelectors: t.showSelectors()}, nil
}

func (t *trail) showSelectors() []types.EventSelector {
	all := t.Selectors
	if len(all) == 0 {
		all = []selector{{ReadWrite: string(types.ReadWriteTypeAll)}}
	}
	var out []types.EventSelector
	for _, e := range all {
		out = append(out, types.EventSelector{ReadWriteType: types.ReadWriteType(e.ReadWrite), IncludeManagementEvents: ptr(!e.None), ExcludeManagementEventSources: append([]string{}, e.Exclude...), DataResources: []types.DataResource{}})
	}
	return out
}

// chooses reports whether the trail delivers an event.
func (t *trail) chooses(account, region, source string, readOnly bool) bool {
	if account != t.Account {
		return false
	}
	if region != t.Region && !t.MultiRegion && !(t.Global && region == "us-east-1" && globalServices[source]) {
		return false
	}
	if region == t.Region && !t.Global && globalServices[source] {
		return false
	}
	if len(t.Selectors) == 0 {
		return true
	}
	for _, e := range t.Selectors {
		if !e.None && !slices.Contains(e.Exclude, source) && (e.ReadWrite == "All" || (e.ReadWrite == "ReadOnly") == readOnly) {
			return true
		}
	}
	return false
}

var globalServices = map[string]bool{"iam.amazonaws.com": true, "sts.amazonaws.com": true, "cloudfront.amazonaws.com": true, "signin.amazonaws.com": true}

// excludable are the event sources that selectors can leave out.
var excludable = []string{"kms.amazonaws.com", "rdsdata.amazonaws.com"}

// advancedSelector is an advanced event selector of management events.
type advancedSelector struct {
	Name   string          `json:"name,omitempty"`
	Fields []fieldSelector `json:"fields"`
}

type fieldSelector struct {
	Field     string   `json:"field"`
	Equals    []string `json:"equals,omitempty"`
	NotEquals []string `json:"notEquals,omitempty"`
}

// setAdvanced replaces a trail's selectors by advanced ones. Of management events a
// trail can choose by readOnly and leave event sources out. Source: CloudTrail API,
// AdvancedFieldSelector.
func (t *trail) setAdvanced(in []types.AdvancedEventSelector) error {
	bad := func(format string, args ...any) error {
		return &types.InvalidEventSelectorsException{Message: sprintf(format, args...)}
	}
	t.Selectors, t.Advanced = nil, nil
	for _, a := range in {
		kept, means, category := advancedSelector{Name: deref(a.Name)}, selector{ReadWrite: string(types.ReadWriteTypeAll)}, false
		for _, f := range a.FieldSelectors {
			field := deref(f.Field)
			if len(f.StartsWith)+len(f.EndsWith)+len(f.NotStartsWith)+len(f.NotEndsWith) > 0 {
				return bad("The field %s of management events takes Equals or NotEquals only.", field)
			}
			switch {
			case slices.ContainsFunc(kept.Fields, func(k fieldSelector) bool { return k.Field == field }):
				return bad("The field %s is given twice in one selector.", field)
			case field == "eventCategory":
				if len(f.NotEquals) > 0 || !slices.Equal(f.Equals, []string{"Management"}) {
					return bad("eventCategory must equal Management: there are no other events here, not %v.", f.Equals)
				}
				category = true
			case field == "readOnly":
				if len(f.NotEquals) > 0 || len(f.Equals) != 1 || f.Equals[0] != "true" && f.Equals[0] != "false" {
					return bad("readOnly must equal true or false.")
				}
				means.ReadWrite = string(types.ReadWriteTypeWriteOnly)
				if f.Equals[0] == "true" {
					means.ReadWrite = string(types.ReadWriteTypeReadOnly)
				}
			case field == "eventSource":
				if len(f.Equals) > 0 || len(f.NotEquals) == 0 || slices.ContainsFunc(f.NotEquals, func(v string) bool { return !slices.Contains(excludable, v) }) {
					return bad("eventSource takes NotEquals %v.", excludable)
				}
				means.Exclude = f.NotEquals
			default:
				return bad("The field %q is not one of management events: eventCategory, readOnly and eventSource.", field)
			}
			kept.Fields = append(kept.Fields, fieldSelector{Field: field, Equals: f.Equals, NotEquals: f.NotEquals})
		}
		if !category {
			return bad("Each advanced event selector must have the field eventCategory.")
		}
		t.Selectors, t.Advanced = append(t.Selectors, means), append(t.Advanced, kept)
	}
	return nil
}

func (t *trail) showAdvanced() []types.AdvancedEventSelector {
	var out []types.AdvancedEventSelector
	for _, a := range t.Advanced {
		shown := types.AdvancedEventSelector{Name: opt(a.Name)}
		for _, f := range a.Fields {
			shown.FieldSelectors = append(shown.FieldSelectors, types.AdvancedFieldSelector{Field: ptr(f.Field), Equals: f.Equals, NotEquals: f.NotEquals})
		}
		out = append(out, shown)
	}
	return out
}
