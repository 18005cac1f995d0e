package directory

import (
	"github.com/sealdesk/sealdesk/internal/store"
)

// User is a user as other services see one.
type User struct {
	Account, Region, DirectoryID string
	SAMAccountName               string // as stored
	SID                          string // "S-1-5-21-…"
	DisplayName                  string
	GivenName, Surname, Email    string
	Enabled                      bool
}

// Directory is a directory as other services see one.
type Directory struct {
	Account, Region, ID string
	ARN                 string
	Name, ShortName     string
	Type                string // SimpleAD, MicrosoftAD
	Stage               string // Active when it can be used
	Alias               string // the ID when it has none
	DomainSID           string
	DNSIPs              []string
	VPCID               string
	SubnetIDs           []string
	SecurityGroup       string
	Tags                map[string]string
}

func (d *directory) user(o *object) User {
	return User{Account: d.Account, Region: d.Region, DirectoryID: d.ID, SAMAccountName: o.Name, SID: o.SID, DisplayName: o.displayName(),
		GivenName: o.text("givenName"), Surname: o.text("sn"), Email: o.text("mail"), Enabled: o.Enabled}
}

// User finds a user, enabled or not, whatever the case of the name.
func (s *Service) User(tx *store.Tx, account, region, directoryID, userName string) (User, bool) {
	d := s.directories.Get(tx, account+"/"+region+"/"+directoryID)
	if d == nil || userName == "" {
		return User{}, false
	}
	o := s.objects.Get(tx, objectKey(d, userName))
	if o == nil || o.Kind != user {
		return User{}, false
	}
	return d.user(o), true
}

// Directory finds a directory in any stage.
func (s *Service) Directory(tx *store.Tx, account, region, directoryID string) (Directory, bool) {
	if directoryID == "" {
		return Directory{}, false
	}
	d := s.directories.Get(tx, account+"/"+region+"/"+directoryID)
	if d == nil {
		return Directory{}, false
	}
	return d.view(), true
}

func (d *directory) view() Directory {
	name := d.Alias
	if name == "" {
		name = d.ID
	}
	return Directory{Account: d.Account, Region: d.Region, ID: d.ID, ARN: d.arn(), Name: d.Name, ShortName: d.ShortName, Type: d.Type, Stage: d.Stage, Alias: name,
		DomainSID: d.SID, DNSIPs: d.DNSIPs, VPCID: d.VPCID, SubnetIDs: d.SubnetIDs, SecurityGroup: d.SecurityGroup, Tags: d.Tags}
}

// Find finds a directory of any account by its ID or its alias, for the user portal,
// whose visitors have not said who they are yet.
func (s *Service) Find(tx *store.Tx, idOrAlias string) (Directory, bool) {
	key := ""
	if keys := s.byID.Keys(idOrAlias, "", 1); len(keys) == 1 {
		key = keys[0]
	} else if idOrAlias != "" {
		if a := s.aliases.Get(tx, lower(idOrAlias)); a != nil {
			key = a.Directory
		}
	}
	if key == "" {
		return Directory{}, false
	}
	d := s.directories.Get(tx, key)
	if d == nil {
		return Directory{}, false
	}
	return d.view(), true
}
