package directory

import (
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

func (o *object) groupSummary() dsdata.GroupSummary {
	return dsdata.GroupSummary{GroupScope: dsdata.GroupScope(o.Scope), GroupType: dsdata.GroupType(o.Type), SAMAccountName: &o.Name, SID: &o.SID}
}

// checkScope refuses what cannot be given to a group.
func checkScope(scope dsdata.GroupScope) error {
	if scope == dsdata.GroupScopeBuiltinLocal {
		return refuse(dsdata.ValidationExceptionReasonInvalidAttributeValue, "GroupScope BuiltinLocal is for groups that come with a directory.")
	}
	return nil
}

func (s *Service) createGroup(tx *store.Tx, d *directory, now time.Time, in *dsdata.CreateGroupInput) (*dsdata.CreateGroupOutput, error) {
	if err := checkGroupName(deref(in.SAMAccountName)); err != nil {
		return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeValue, "SAMAccountName %s is not valid: %v.", deref(in.SAMAccountName), err)
	}
	if err := checkScope(in.GroupScope); err != nil {
		return nil, err
	}
	values, err := given(group, in.OtherAttributes, false)
	if err != nil {
		return nil, err
	}
	o := &object{Kind: group, Name: *in.SAMAccountName, Scope: string(in.GroupScope), Type: string(in.GroupType), Attrs: values}
	if o.Scope == "" {
		o.Scope = string(dsdata.GroupScopeGlobal)
	}
	if o.Type == "" {
		o.Type = string(dsdata.GroupTypeSecurity)
	}
	if err := s.createObject(tx, d, now, o); err != nil {
		return nil, err
	}
	return &dsdata.CreateGroupOutput{DirectoryId: &d.ID, SAMAccountName: &o.Name, SID: &o.SID}, nil
}

func (s *Service) updateGroup(tx *store.Tx, d *directory, now time.Time, in *dsdata.UpdateGroupInput) (*dsdata.UpdateGroupOutput, error) {
	if _, err := s.object(tx, d, group, deref(in.SAMAccountName)); err != nil {
		return nil, err
	}
	o := s.objects.Edit(tx, objectKey(d, *in.SAMAccountName))
	values, err := given(group, in.OtherAttributes, in.UpdateType == dsdata.UpdateTypeRemove)
	if err != nil {
		return nil, err
	}
	if err := checkScope(in.GroupScope); err != nil {
		return nil, err
	}
	if o.Builtin && (in.GroupScope != "" || in.GroupType != "") {
		return nil, &dsdata.AccessDeniedException{Reason: dsdata.AccessDeniedReasonDirectoryAuth, Message: sprintf("Scope and type of %s, which came with the directory, cannot be changed.", o.Name)}
	}
	// Source: Microsoft, "Active Directory security groups", change of group scope.
	if in.GroupScope != "" && string(in.GroupScope) != o.Scope && in.GroupScope != dsdata.GroupScopeUniversal && o.Scope != string(dsdata.GroupScopeUniversal) {
		return nil, refuse(dsdata.ValidationExceptionReasonLdapUnsupportedOperation, "A %s group cannot become %s directly: make it Universal first.", o.Scope, in.GroupScope)
	}
	if len(values) == 0 && in.GroupScope == "" && in.GroupType == "" {
		return nil, refuse(dsdata.ValidationExceptionReasonMissingAttribute, "There is no attribute to update.")
	}
	if err := o.change(in.UpdateType, values); err != nil {
		return nil, err
	}
	if in.GroupScope != "" {
		o.Scope = string(in.GroupScope)
	}
	if in.GroupType != "" {
		o.Type = string(in.GroupType)
	}
	o.Changed = now
	return &dsdata.UpdateGroupOutput{}, s.objects.Put(tx, objectKey(d, o.Name), o)
}

func (s *Service) deleteGroup(tx *store.Tx, d *directory, _ time.Time, in *dsdata.DeleteGroupInput) (*dsdata.DeleteGroupOutput, error) {
	o, err := s.object(tx, d, group, deref(in.SAMAccountName))
	if err != nil {
		return nil, err
	}
	return &dsdata.DeleteGroupOutput{}, s.removeObject(tx, d, o)
}

func (s *Service) describeGroup(tx *store.Tx, d *directory, in *dsdata.DescribeGroupInput) (*dsdata.DescribeGroupOutput, error) {
	o, err := s.object(tx, d, group, deref(in.SAMAccountName))
	if err != nil {
		return nil, err
	}
	others, err := d.asked(o, in.OtherAttributes)
	if err != nil {
		return nil, err
	}
	return &dsdata.DescribeGroupOutput{DirectoryId: &d.ID, Realm: &d.Name, SAMAccountName: &o.Name, SID: &o.SID, DistinguishedName: ptr(d.dn(o)),
		GroupScope: dsdata.GroupScope(o.Scope), GroupType: dsdata.GroupType(o.Type), OtherAttributes: others}, nil
}

func (s *Service) listGroups(tx *store.Tx, d *directory, in *dsdata.ListGroupsInput) (*dsdata.ListGroupsOutput, error) {
	p, err := newDataPage("groups "+d.ID, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &dsdata.ListGroupsOutput{DirectoryId: &d.ID, Realm: &d.Name, Groups: []dsdata.GroupSummary{}}
	err = s.list(tx, d, p, group, anyObject, func(o *object) error {
		out.Groups = append(out.Groups, o.groupSummary())
		return nil
	})
	out.NextToken = p.next
	return out, err
}

func (s *Service) searchGroups(tx *store.Tx, d *directory, in *dsdata.SearchGroupsInput) (*dsdata.SearchGroupsOutput, error) {
	match, err := d.matching(group, in.SearchAttributes, deref(in.SearchString))
	if err != nil {
		return nil, err
	}
	p, err := newDataPage("search groups "+d.ID+" "+strings.Join(in.SearchAttributes, ",")+" "+deref(in.SearchString), in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &dsdata.SearchGroupsOutput{DirectoryId: &d.ID, Realm: &d.Name, Groups: []dsdata.Group{}}
	err = s.list(tx, d, p, group, match, func(o *object) error {
		others, err := d.searched(o, in.SearchAttributes)
		out.Groups = append(out.Groups, dsdata.Group{SAMAccountName: &o.Name, SID: &o.SID, DistinguishedName: ptr(d.dn(o)), GroupScope: dsdata.GroupScope(o.Scope),
			GroupType: dsdata.GroupType(o.Type), OtherAttributes: others})
		return err
	})
	out.NextToken = p.next
	return out, err
}
