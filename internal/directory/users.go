package directory

import (
	"fmt"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// create stores a new object and gives it its SID.
func (s *Service) createObject(tx *store.Tx, d *directory, now time.Time, o *object) error {
	key := objectKey(d, o.Name)
	if old := s.objects.Get(tx, key); old != nil {
		return &dsdata.ConflictException{Message: sprintf("A %s with the name %s exists already in the directory.", old.Kind, old.Name)}
	}
	pool := s.rids.Edit(tx, d.key())
	if pool == nil {
		return fmt.Errorf("directory %s has no pool of relative IDs", d.key())
	}
	// Source: MS-ADTS 3.1.1.1.9.1: a domain has 2^30 relative IDs.
	if pool.Next >= 1<<30 {
		return &dsdata.DirectoryUnavailableException{Reason: dsdata.DirectoryUnavailableReasonDirectoryResourcesExceeded, Message: ptr("The directory has given away all its relative IDs.")}
	}
	o.RID = pool.Next
	o.SID = fmt.Sprintf("%s-%d", d.SID, o.RID)
	o.Created, o.Changed = now, now
	pool.Next++
	if err := s.rids.Put(tx, d.key(), pool); err != nil {
		return err
	}
	return s.objects.Put(tx, key, o)
}

// removeObject deletes a user or group with its memberships and password.
func (s *Service) removeObject(tx *store.Tx, d *directory, o *object) error {
	if o.Builtin {
		return &dsdata.AccessDeniedException{Reason: dsdata.AccessDeniedReasonDirectoryAuth, Message: sprintf("%s came with the directory and cannot be deleted.", o.Name)}
	}
	keys := s.byMember.Keys(d.key()+"/"+lower(o.Name), "", 0)
	if o.Kind == group {
		s.members.Scan(tx, s.memberKey(d, o.Name, ""), "", func(k string, _ *membership) bool { keys = append(keys, k); return true })
	}
	for _, k := range keys {
		if err := s.members.Delete(tx, k); err != nil {
			return err
		}
	}
	key := objectKey(d, o.Name)
	if err := s.passwords.Delete(tx, key); err != nil {
		return err
	}
	return s.objects.Delete(tx, key)
}

// personal puts the members that a user's attributes have of their own.
func personal(values map[string]value, givenName, surname, email *string) error {
	for name, v := range map[string]*string{"givenName": givenName, "sn": surname, "mail": email} {
		if v == nil {
			continue
		}
		if strings.TrimSpace(*v) == "" {
			return refuse(dsdata.ValidationExceptionReasonInvalidAttributeValue, "The attribute %s cannot be empty.", name)
		}
		values[name] = value{S: v}
	}
	return nil
}

func (s *Service) createUser(tx *store.Tx, d *directory, now time.Time, in *dsdata.CreateUserInput) (*dsdata.CreateUserOutput, error) {
	if err := checkUserName(deref(in.SAMAccountName)); err != nil {
		return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeValue, "SAMAccountName %s is not valid: %v.", deref(in.SAMAccountName), err)
	}
	values, err := given(user, in.OtherAttributes, false)
	if err != nil {
		return nil, err
	}
	if err := personal(values, in.GivenName, in.Surname, in.EmailAddress); err != nil {
		return nil, err
	}
	o := &object{Kind: user, Name: *in.SAMAccountName, Enabled: true, Attrs: values}
	if err := s.createObject(tx, d, now, o); err != nil {
		return nil, err
	}
	return &dsdata.CreateUserOutput{DirectoryId: &d.ID, SAMAccountName: &o.Name, SID: &o.SID}, nil
}

func (s *Service) updateUser(tx *store.Tx, d *directory, now time.Time, in *dsdata.UpdateUserInput) (*dsdata.UpdateUserOutput, error) {
	if _, err := s.object(tx, d, user, deref(in.SAMAccountName)); err != nil {
		return nil, err
	}
	o := s.objects.Edit(tx, objectKey(d, *in.SAMAccountName))
	values, err := given(user, in.OtherAttributes, in.UpdateType == dsdata.UpdateTypeRemove)
	if err != nil {
		return nil, err
	}
	if err := personal(values, in.GivenName, in.Surname, in.EmailAddress); err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, refuse(dsdata.ValidationExceptionReasonMissingAttribute, "There is no attribute to update.")
	}
	if err := o.change(in.UpdateType, values); err != nil {
		return nil, err
	}
	o.Changed = now
	return &dsdata.UpdateUserOutput{}, s.objects.Put(tx, objectKey(d, o.Name), o)
}

func (s *Service) disableUser(tx *store.Tx, d *directory, now time.Time, in *dsdata.DisableUserInput) (*dsdata.DisableUserOutput, error) {
	if _, err := s.object(tx, d, user, deref(in.SAMAccountName)); err != nil {
		return nil, err
	}
	o := s.objects.Edit(tx, objectKey(d, *in.SAMAccountName))
	if o.Enabled {
		o.Enabled, o.Changed = false, now
		if err := s.objects.Put(tx, objectKey(d, o.Name), o); err != nil {
			return nil, err
		}
	}
	return &dsdata.DisableUserOutput{}, nil
}

func (s *Service) deleteUser(tx *store.Tx, d *directory, _ time.Time, in *dsdata.DeleteUserInput) (*dsdata.DeleteUserOutput, error) {
	o, err := s.object(tx, d, user, deref(in.SAMAccountName))
	if err != nil {
		return nil, err
	}
	return &dsdata.DeleteUserOutput{}, s.removeObject(tx, d, o)
}

func (s *Service) describeUser(tx *store.Tx, d *directory, in *dsdata.DescribeUserInput) (*dsdata.DescribeUserOutput, error) {
	o, err := s.object(tx, d, user, deref(in.SAMAccountName))
	if err != nil {
		return nil, err
	}
	others, err := d.asked(o, in.OtherAttributes)
	if err != nil {
		return nil, err
	}
	return &dsdata.DescribeUserOutput{DirectoryId: &d.ID, Realm: &d.Name, SAMAccountName: &o.Name, SID: &o.SID, Enabled: &o.Enabled, DistinguishedName: ptr(d.dn(o)),
		UserPrincipalName: ptr(o.Name + "@" + d.Name), GivenName: opt(o.text("givenName")), Surname: opt(o.text("sn")), EmailAddress: opt(o.text("mail")), OtherAttributes: others}, nil
}

// list visits the objects of a kind that match, page by page.
func (s *Service) list(tx *store.Tx, d *directory, p *dataPage, k kind, match func(*object) bool, f func(*object) error) error {
	prefix, from := d.key()+"/", ""
	if p.after != "" {
		from = prefix + p.after
	}
	var err error
	s.objects.Scan(tx, prefix, from, func(_ string, o *object) bool {
		if o.Kind != k || !match(o) {
			return true
		}
		if !p.take(lower(o.Name)) {
			return false
		}
		err = f(o)
		return err == nil
	})
	return err
}

func anyObject(*object) bool { return true }

func (s *Service) listUsers(tx *store.Tx, d *directory, in *dsdata.ListUsersInput) (*dsdata.ListUsersOutput, error) {
	p, err := newDataPage("users "+d.ID, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &dsdata.ListUsersOutput{DirectoryId: &d.ID, Realm: &d.Name, Users: []dsdata.UserSummary{}}
	err = s.list(tx, d, p, user, anyObject, func(o *object) error {
		out.Users = append(out.Users, dsdata.UserSummary{Enabled: &o.Enabled, SAMAccountName: &o.Name, SID: &o.SID, GivenName: opt(o.text("givenName")), Surname: opt(o.text("sn"))})
		return nil
	})
	out.NextToken = p.next
	return out, err
}

// matching is the condition of a search: an attribute begins with the string,
// whatever the case.
func (d *directory) matching(k kind, names []string, text string) (func(*object) bool, error) {
	if len(names) == 0 {
		return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeForSearch, "SearchAttributes names no attribute.")
	}
	if text == "" || strings.Contains(text, "*") {
		return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeValue, "SearchString must not be empty or hold a wildcard (*).")
	}
	for _, n := range names {
		low := lower(n)
		if low == "surname" || low == "emailaddress" {
			if k == user {
				continue
			}
			return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeForGroup, "A group has no attribute %s.", n)
		}
		a, err := attributeFor(k, n)
		if err != nil {
			return nil, err
		}
		switch a.name {
		case "distinguishedName", "objectSid", "whenCreated", "whenChanged", "primaryGroupID":
			return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeForSearch, "The attribute %s cannot be searched.", a.name)
		}
	}
	text = lower(text)
	return func(o *object) bool {
		for _, n := range names {
			v, ok := d.attr(o, n)
			if !ok {
				continue
			}
			all := v.SS
			if v.S != nil {
				all = []string{*v.S}
			} else if v.N != nil {
				all = []string{fmt.Sprint(*v.N)}
			}
			for _, s := range all {
				if strings.HasPrefix(lower(s), text) {
					return true
				}
			}
		}
		return false
	}, nil
}

func (s *Service) searchUsers(tx *store.Tx, d *directory, in *dsdata.SearchUsersInput) (*dsdata.SearchUsersOutput, error) {
	match, err := d.matching(user, in.SearchAttributes, deref(in.SearchString))
	if err != nil {
		return nil, err
	}
	p, err := newDataPage("search users "+d.ID+" "+strings.Join(in.SearchAttributes, ",")+" "+deref(in.SearchString), in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &dsdata.SearchUsersOutput{DirectoryId: &d.ID, Realm: &d.Name, Users: []dsdata.User{}}
	err = s.list(tx, d, p, user, match, func(o *object) error {
		others, err := d.searched(o, in.SearchAttributes)
		out.Users = append(out.Users, dsdata.User{SAMAccountName: &o.Name, SID: &o.SID, Enabled: &o.Enabled, DistinguishedName: ptr(d.dn(o)), UserPrincipalName: ptr(o.Name + "@" + d.Name),
			GivenName: opt(o.text("givenName")), Surname: opt(o.text("sn")), EmailAddress: opt(o.text("mail")), OtherAttributes: others})
		return err
	})
	out.NextToken = p.next
	return out, err
}

// searched is the searched attributes that have no member of their own.
func (d *directory) searched(o *object, names []string) (map[string]dsdata.AttributeValue, error) {
	var others []string
	for _, n := range names {
		if _, own := named[lower(n)]; !own {
			others = append(others, n)
		}
	}
	return d.asked(o, others)
}
