package directory

import (
	"slices"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
)

// attribute is one that OtherAttributes may hold.
type attribute struct {
	name     string // LDAP display name
	many     bool   // a string set
	number   bool
	onUser   bool
	onGroup  bool
	readOnly bool
}

// attributes, by LDAP display name in lower case. Source: Directory Service
// Administration Guide, "AWS Directory Service Data attributes" (the descriptive
// ones; those that steer Windows, such as scriptPath, have no meaning here and are
// kept as they are given).
var attributes = func() map[string]attribute {
	m := map[string]attribute{}
	add := func(a attribute, names ...string) {
		for _, n := range names {
			a.name = n
			m[strings.ToLower(n)] = a
		}
	}
	add(attribute{onUser: true, onGroup: true}, "description", "displayName", "info", "wWWHomePage", "telephoneNumber", "comment")
	add(attribute{onUser: true, onGroup: true, many: true}, "url", "proxyAddresses")
	add(attribute{onUser: true, onGroup: true, number: true}, "gidNumber")
	add(attribute{onUser: true}, "assistant", "c", "co", "company", "department", "division", "employeeID", "employeeNumber", "employeeType", "facsimileTelephoneNumber",
		"generationQualifier", "homeDirectory", "homeDrive", "homePhone", "initials", "ipPhone", "l", "loginShell", "manager", "middleName", "mobile", "pager", "personalTitle",
		"physicalDeliveryOfficeName", "postalCode", "preferredLanguage", "profilePath", "scriptPath", "st", "street", "streetAddress", "title", "unixHomeDirectory", "userWorkstations")
	add(attribute{onUser: true, many: true}, "departmentNumber", "homePostalAddress", "otherHomePhone", "otherMailbox", "otherMobile", "otherPager", "otherTelephone", "postalAddress", "postOfficeBox",
		"roomNumber", "secretary", "uid")
	add(attribute{onUser: true, number: true}, "countryCode", "uidNumber")
	add(attribute{onGroup: true}, "managedBy")
	add(attribute{onUser: true, onGroup: true, readOnly: true}, "cn", "name", "distinguishedName", "objectSid", "sAMAccountName", "whenCreated", "whenChanged")
	add(attribute{onUser: true, readOnly: true}, "givenName", "sn", "mail", "userPrincipalName", "primaryGroupID")
	return m
}()

// Attribute names that have a member of their own in requests.
var named = map[string]string{"samaccountname": "SAMAccountName", "givenname": "GivenName", "surname": "Surname", "sn": "Surname", "emailaddress": "EmailAddress", "mail": "EmailAddress"}

func refuse(reason dsdata.ValidationExceptionReason, format string, args ...any) error {
	return &dsdata.ValidationException{Message: sprintf(format, args...), Reason: reason}
}

// attributeFor finds an attribute that an object of this kind may have.
func attributeFor(k kind, name string) (attribute, error) {
	a, ok := attributes[strings.ToLower(name)]
	switch {
	case !ok:
		return a, refuse(dsdata.ValidationExceptionReasonInvalidAttributeName, "The attribute %s is not supported.", name)
	case k == user && !a.onUser:
		return a, refuse(dsdata.ValidationExceptionReasonInvalidAttributeForUser, "A user has no attribute %s.", a.name)
	case k == group && !a.onGroup:
		return a, refuse(dsdata.ValidationExceptionReasonInvalidAttributeForGroup, "A group has no attribute %s.", a.name)
	}
	return a, nil
}

// given turns OtherAttributes of a request into values by LDAP display name.
func given(k kind, in map[string]dsdata.AttributeValue, remove bool) (map[string]value, error) {
	out := map[string]value{}
	for name, v := range in {
		a, err := attributeFor(k, name)
		if err != nil {
			return nil, err
		}
		if own, ok := named[strings.ToLower(name)]; ok {
			return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeName, "%s is not one of OtherAttributes: use the member %s.", name, own)
		}
		if a.readOnly {
			return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeForModify, "The attribute %s cannot be changed.", a.name)
		}
		if _, twice := out[a.name]; twice {
			return nil, refuse(dsdata.ValidationExceptionReasonDuplicateAttribute, "The attribute %s is given twice.", a.name)
		}
		stored := value{}
		switch v := v.(type) {
		case *dsdata.AttributeValueMemberS:
			if !a.many && !a.number {
				stored.S = &v.Value
			} else if a.many {
				stored.SS = []string{v.Value}
			}
		case *dsdata.AttributeValueMemberSS:
			if a.many {
				stored.SS = slices.Clone(v.Value)
			}
		case *dsdata.AttributeValueMemberN:
			if a.number {
				stored.N = &v.Value
			}
		case *dsdata.AttributeValueMemberBOOL:
		}
		if stored.S == nil && stored.N == nil && len(stored.SS) == 0 && !remove {
			want := "a string (S)"
			if a.many {
				want = "a set of strings (SS)"
			} else if a.number {
				want = "a number (N)"
			}
			return nil, refuse(dsdata.ValidationExceptionReasonInvalidAttributeValue, "The attribute %s takes %s.", a.name, want)
		}
		out[a.name] = stored
	}
	return out, nil
}

// change applies values to an object's attributes as UpdateType says.
func (o *object) change(how dsdata.UpdateType, values map[string]value) error {
	if o.Attrs == nil {
		o.Attrs = map[string]value{}
	}
	for name, v := range values {
		old, exists := o.Attrs[name]
		many := attributes[strings.ToLower(name)].many
		switch how {
		case dsdata.UpdateTypeAdd:
			if exists && !many {
				return refuse(dsdata.ValidationExceptionReasonAttributeExists, "The attribute %s already has a value: use REPLACE.", name)
			}
			if many {
				for _, s := range v.SS {
					if slices.Contains(old.SS, s) {
						return refuse(dsdata.ValidationExceptionReasonAttributeExists, "The attribute %s already has the value %s.", name, s)
					}
				}
				v.SS = append(slices.Clone(old.SS), v.SS...)
			}
			o.Attrs[name] = v
		case dsdata.UpdateTypeReplace, "":
			o.Attrs[name] = v
		case dsdata.UpdateTypeRemove:
			if !exists {
				return refuse(dsdata.ValidationExceptionReasonMissingAttribute, "The attribute %s has no value to remove.", name)
			}
			delete(o.Attrs, name)
			if many && len(v.SS) > 0 {
				rest := slices.DeleteFunc(slices.Clone(old.SS), func(s string) bool { return slices.Contains(v.SS, s) })
				if len(rest) == len(old.SS) {
					return refuse(dsdata.ValidationExceptionReasonMissingAttribute, "The attribute %s does not have the values to remove.", name)
				}
				if len(rest) > 0 {
					o.Attrs[name] = value{SS: rest}
				}
			}
		default:
			return refuse("", "UpdateType must be ADD, REPLACE or REMOVE, not %q.", how)
		}
	}
	return nil
}

// attr is one attribute of an object, computed ones included.
func (d *directory) attr(o *object, name string) (value, bool) {
	text := func(s string) (value, bool) { return value{S: &s}, s != "" }
	switch strings.ToLower(name) {
	case "cn", "name", "samaccountname":
		return text(o.Name)
	case "distinguishedname":
		return text(d.dn(o))
	case "objectsid":
		return text(o.SID)
	case "whencreated":
		return text(o.Created.UTC().Format(time.RFC3339))
	case "whenchanged":
		return text(o.Changed.UTC().Format(time.RFC3339))
	case "userprincipalname":
		return text(o.Name + "@" + d.Name)
	case "primarygroupid":
		return value{N: ptr(int64(513))}, true
	case "surname":
		name = "sn"
	case "emailaddress":
		name = "mail"
	}
	v, ok := o.Attrs[attributes[strings.ToLower(name)].name]
	return v, ok
}

// show turns a stored value into one of a reply.
func show(v value) dsdata.AttributeValue {
	switch {
	case v.S != nil:
		return &dsdata.AttributeValueMemberS{Value: *v.S}
	case v.N != nil:
		return &dsdata.AttributeValueMemberN{Value: *v.N}
	case v.BOOL != nil:
		return &dsdata.AttributeValueMemberBOOL{Value: *v.BOOL}
	}
	return &dsdata.AttributeValueMemberSS{Value: v.SS}
}

// asked picks the attributes that a Describe call names.
func (d *directory) asked(o *object, names []string) (map[string]dsdata.AttributeValue, error) {
	var out map[string]dsdata.AttributeValue
	if slices.Contains(names, "*") {
		names = nil
		for _, a := range attributes {
			if a.onUser && o.Kind == user || a.onGroup && o.Kind == group {
				names = append(names, a.name)
			}
		}
	}
	for _, name := range names {
		a, err := attributeFor(o.Kind, name)
		if err != nil {
			return nil, err
		}
		if v, ok := d.attr(o, a.name); ok {
			if out == nil {
				out = map[string]dsdata.AttributeValue{}
			}
			out[a.name] = show(v)
		}
	}
	return out, nil
}
