package directory

import (
	"reflect"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// memberOf reads a *string field of the struct that in points to, nil when it has none.
func memberOf(in any, name string) *string {
	f := reflect.ValueOf(in).Elem().FieldByName(name)
	if !f.IsValid() {
		return nil
	}
	p, _ := f.Interface().(*string)
	return p
}

func (s *Service) memberKey(d *directory, groupName, memberName string) string {
	return d.key() + "/" + lower(groupName) + "/" + lower(memberName)
}

// object finds a user or group.
func (s *Service) object(tx *store.Tx, d *directory, k kind, name string) (*object, error) {
	o := s.objects.Get(tx, objectKey(d, name))
	if o == nil || o.Kind != k {
		return nil, notFound(k, name)
	}
	return o, nil
}

func notFound(k kind, name string) error {
	return &dsdata.ResourceNotFoundException{Message: sprintf("There is no %s %s in the directory.", k, name)}
}

func (s *Service) addGroupMember(tx *store.Tx, d *directory, now time.Time, in *dsdata.AddGroupMemberInput) (*dsdata.AddGroupMemberOutput, error) {
	g, m, err := s.pair(tx, d, deref(in.GroupName), deref(in.MemberName))
	if err != nil {
		return nil, err
	}
	if g == m {
		return nil, refuse(dsdata.ValidationExceptionReasonLdapUnsupportedOperation, "A group cannot be a member of itself.")
	}
	key := s.memberKey(d, g.Name, m.Name)
	if s.members.Get(tx, key) != nil {
		return nil, &dsdata.ConflictException{Message: sprintf("%s is already a member of %s.", m.Name, g.Name)}
	}
	return &dsdata.AddGroupMemberOutput{}, s.members.Put(tx, key, &membership{Since: now})
}

func (s *Service) removeGroupMember(tx *store.Tx, d *directory, _ time.Time, in *dsdata.RemoveGroupMemberInput) (*dsdata.RemoveGroupMemberOutput, error) {
	g, m, err := s.pair(tx, d, deref(in.GroupName), deref(in.MemberName))
	if err != nil {
		return nil, err
	}
	key := s.memberKey(d, g.Name, m.Name)
	if s.members.Get(tx, key) == nil {
		return nil, &dsdata.ResourceNotFoundException{Message: sprintf("%s is not a member of %s.", m.Name, g.Name)}
	}
	return &dsdata.RemoveGroupMemberOutput{}, s.members.Delete(tx, key)
}

func (s *Service) pair(tx *store.Tx, d *directory, groupName, memberName string) (g, m *object, err error) {
	if g, err = s.object(tx, d, group, groupName); err != nil {
		return nil, nil, err
	}
	if m = s.objects.Get(tx, objectKey(d, memberName)); m == nil {
		return nil, nil, &dsdata.ResourceNotFoundException{Message: sprintf("There is no user or group %s in the directory.", memberName)}
	}
	return g, m, nil
}

func (s *Service) listGroupMembers(tx *store.Tx, d *directory, in *dsdata.ListGroupMembersInput) (*dsdata.ListGroupMembersOutput, error) {
	g, err := s.object(tx, d, group, deref(in.SAMAccountName))
	if err != nil {
		return nil, err
	}
	prefix := s.memberKey(d, g.Name, "")
	p, err := newDataPage("members "+prefix, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &dsdata.ListGroupMembersOutput{DirectoryId: &d.ID, Realm: &d.Name, MemberRealm: &d.Name, Members: []dsdata.Member{}}
	from := ""
	if p.after != "" {
		from = prefix + p.after
	}
	s.members.Scan(tx, prefix, from, func(key string, _ *membership) bool {
		name := strings.TrimPrefix(key, prefix)
		o := s.objects.Get(tx, objectKey(d, name))
		if o == nil {
			return true
		}
		if !p.take(name) {
			return false
		}
		t := dsdata.MemberTypeUser
		if o.Kind == group {
			t = dsdata.MemberTypeGroup
		}
		out.Members = append(out.Members, dsdata.Member{MemberType: t, SAMAccountName: &o.Name, SID: &o.SID})
		return true
	})
	out.NextToken = p.next
	return out, nil
}

func (s *Service) listGroupsForMember(tx *store.Tx, d *directory, in *dsdata.ListGroupsForMemberInput) (*dsdata.ListGroupsForMemberOutput, error) {
	m := s.objects.Get(tx, objectKey(d, deref(in.SAMAccountName)))
	if m == nil {
		return nil, &dsdata.ResourceNotFoundException{Message: sprintf("There is no user or group %s in the directory.", deref(in.SAMAccountName))}
	}
	of := d.key() + "/" + lower(m.Name)
	p, err := newDataPage("groups of "+of, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &dsdata.ListGroupsForMemberOutput{DirectoryId: &d.ID, Realm: &d.Name, MemberRealm: &d.Name, Groups: []dsdata.GroupSummary{}}
	for _, key := range s.byMember.Keys(of, "", 0) { // in order of the group's name
		_, name, _ := splitMember(key)
		if p.after != "" && name <= p.after {
			continue
		}
		g := s.objects.Get(tx, objectKey(d, name))
		if g == nil {
			continue
		}
		if !p.take(name) {
			break
		}
		out.Groups = append(out.Groups, g.groupSummary())
	}
	out.NextToken = p.next
	return out, nil
}
