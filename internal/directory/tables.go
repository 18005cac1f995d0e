package directory

import (
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
)

// directory is a stored directory. Key: account/region/id.
type directory struct {
	Account       string            `json:"account"`
	Region        string            `json:"region"`
	ID            string            `json:"id"`
	Name          string            `json:"name"`      // corp.example.com
	ShortName     string            `json:"shortName"` // CORP
	Description   string            `json:"description,omitempty"`
	Type          string            `json:"type"` // SimpleAD, MicrosoftAD
	Size          string            `json:"size,omitempty"`
	Edition       string            `json:"edition,omitempty"`
	Alias         string            `json:"alias,omitempty"`
	VPCID         string            `json:"vpcId,omitempty"`
	SubnetIDs     []string          `json:"subnetIds,omitempty"`
	SecurityGroup string            `json:"securityGroup,omitempty"`
	DNSIPs        []string          `json:"dnsIps"`
	SID           string            `json:"sid"`   // of the domain
	Stage         string            `json:"stage"` // see lifecycle.go
	StageAt       time.Time         `json:"stageAt"`
	Launched      time.Time         `json:"launched"`
	DataAccess    bool              `json:"dataAccess"`
	RestoreFrom   string            `json:"restoreFrom,omitempty"` // the snapshot, while Restoring
	Tags          map[string]string `json:"tags,omitempty"`
}

func (d *directory) key() string { return d.Account + "/" + d.Region + "/" + d.ID }

func (d *directory) arn() string {
	return "arn:aws:ds:" + d.Region + ":" + d.Account + ":directory/" + d.ID
}

// adminName is the user whose password comes with the creation.
func (d *directory) adminName() string {
	if d.Type == microsoftAD {
		return "Admin"
	}
	return "Administrator"
}

// dn is the distinguished name of an object: RFC 4514, "CN=Jane,CN=Users,DC=corp,DC=example,DC=com".
func (d *directory) dn(o *object) string {
	var b strings.Builder
	b.WriteString("CN=" + escapeDN(o.Name))
	switch {
	case strings.HasPrefix(o.SID, "S-1-5-32-"):
		b.WriteString(",CN=Builtin")
	case d.Type == microsoftAD && o.RID >= firstRID:
		b.WriteString(",OU=Users,OU=" + escapeDN(d.ShortName))
	default:
		b.WriteString(",CN=Users")
	}
	for _, label := range strings.Split(d.Name, ".") {
		b.WriteString(",DC=" + escapeDN(label))
	}
	return b.String()
}

// escapeDN escapes an attribute value. Source: RFC 4514, section 2.4.
func escapeDN(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case strings.ContainsRune(`",+;<>\`, r), r == '#' && i == 0, r == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// kind tells what an object is.
type kind string

const (
	user  kind = "user"
	group kind = "group"
)

// object is a user or a group. Key: directory/sAMAccountName in lower case.
type object struct {
	Kind    kind             `json:"kind"`
	Name    string           `json:"name"` // sAMAccountName as given
	RID     uint32           `json:"rid"`
	SID     string           `json:"sid"`
	Builtin bool             `json:"builtin,omitempty"` // cannot be deleted
	Created time.Time        `json:"created"`
	Changed time.Time        `json:"changed"`
	Enabled bool             `json:"enabled,omitempty"` // users
	Scope   string           `json:"scope,omitempty"`   // groups
	Type    string           `json:"type,omitempty"`    // groups
	Attrs   map[string]value `json:"attrs,omitempty"`   // by LDAP display name
}

// value is an attribute's value: exactly one member is set.
type value struct {
	S    *string  `json:"s,omitempty"`
	N    *int64   `json:"n,omitempty"`
	BOOL *bool    `json:"bool,omitempty"`
	SS   []string `json:"ss,omitempty"`
}

func (o *object) text(attr string) string {
	if v, ok := o.Attrs[attr]; ok && v.S != nil {
		return *v.S
	}
	return ""
}

// displayName is what people call the user.
func (o *object) displayName() string {
	if s := o.text("displayName"); s != "" {
		return s
	}
	if s := strings.TrimSpace(o.text("givenName") + " " + o.text("sn")); s != "" {
		return s
	}
	return o.Name
}

// membership says that an object is a member of a group.
// Key: directory/group/member, both in lower case.
type membership struct {
	Since time.Time `json:"since"`
}

// ridPool is the next relative ID of a directory. Key: directory.
type ridPool struct {
	Next uint32 `json:"next"`
}

// password is a user's wrapped password hash. Key: that of the user.
type password struct {
	Wrapped []byte    `json:"wrapped"`
	Set     time.Time `json:"set"`
}

// alias is a directory's alias, unique over all accounts. Key: alias in lower case.
type alias struct {
	Directory string `json:"directory"` // its key
}

// replay is the reply to a call that had a ClientToken. Key: directory/SHA-256 of the token.
type replay struct {
	Operation string    `json:"operation"`
	Input     string    `json:"input"` // SHA-256
	Output    []byte    `json:"output"`
	Expires   time.Time `json:"expires"`
}

type tables struct {
	directories *store.Table[directory]
	objects     *store.Table[object]
	members     *store.Table[membership]
	rids        *store.Table[ridPool]
	passwords   *store.Table[password]
	aliases     *store.Table[alias]
	replays     *store.Table[replay]
	radiuses    *store.Table[radius]
	snapshots   *store.Table[snapshot]
	// snapshotParts are what snapshots hold.
	snapshotParts *store.Table[snapshotPart]

	byID     *store.Index[directory]  // directory ID → key
	byMember *store.Index[membership] // directory/member → key
}

func define(s *store.Store) tables {
	t := tables{
		directories: store.Define[directory](s, "directory/directory", 1),
		objects:     store.Define[object](s, "directory/object", 1),
		members:     store.Define[membership](s, "directory/member", 1),
		rids:        store.Define[ridPool](s, "directory/rid", 1),
		passwords:   store.Define[password](s, "directory/password", 1),
		aliases:     store.Define[alias](s, "directory/alias", 1),
		replays:     store.Define[replay](s, "directory/replay", 1),
		radiuses:    store.Define[radius](s, "directory/radius", 1),
		snapshots:   store.Define[snapshot](s, "directory/snapshot", 1),

		snapshotParts: store.Define[snapshotPart](s, "directory/snapshot-part", 1),
	}
	t.byID = store.NewIndex(t.directories, func(_ string, d *directory) []string { return []string{d.ID} })
	t.byMember = store.NewIndex(t.members, func(key string, _ *membership) []string {
		dir, _, member := splitMember(key)
		return []string{dir + "/" + member}
	})
	return t
}

// splitMember takes a membership's key apart; names hold no slash.
func splitMember(key string) (dir, group, member string) {
	j := strings.LastIndexByte(key, '/')
	i := strings.LastIndexByte(key[:j], '/')
	return key[:i], key[i+1 : j], key[j+1:]
}

func objectKey(d *directory, name string) string { return d.key() + "/" + strings.ToLower(name) }
