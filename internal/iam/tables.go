package iam

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/store"
)

// tag is one tag, in the order given.
type tag struct{ Key, Value string }

// account is what an account has besides its entities.
type account struct {
	ID      string
	Alias   string `json:",omitempty"`
	Created time.Time
	// AccessKeys are the IDs of the root user's access keys.
	AccessKeys     []string             `json:",omitempty"`
	MFA            []string             `json:",omitempty"` // serial numbers of the root user's devices
	Certificates   []signingCertificate `json:",omitempty"` // of the root user
	PasswordPolicy *passwordPolicy      `json:",omitempty"`
	// TokenVersion is the preference of SetSecurityTokenServicePreferences.
	TokenVersion string `json:",omitempty"`
}

// aliasOf says whose an account alias is.
type aliasOf struct{ Account string }

type passwordPolicy struct {
	MinimumLength                      int32
	Symbols, Numbers, Uppercase, Lower bool
	AllowUsersToChange                 bool
	MaxAgeDays                         int32
	ReusePrevention                    int32
	HardExpiry                         bool
}

// grants are the policies of a user, group or role.
type grants struct {
	Inline   map[string]*document `json:",omitempty"` // by policy name
	Attached []string             `json:",omitempty"` // ARNs, in order of attachment
	Boundary string               `json:",omitempty"` // ARN of the permissions boundary
}

// inlineNames are the names of the inline policies, in order.
func (g *grants) inlineNames() []string {
	names := make([]string, 0, len(g.Inline))
	for n := range g.Inline {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

type user struct {
	Account, Name, Path, ID string
	Created                 time.Time
	Tags                    []tag `json:",omitempty"`
	grants
	Groups     []string  `json:",omitempty"` // lower-case names
	AccessKeys []string  `json:",omitempty"` // IDs
	Login      *login    `json:",omitempty"`
	MFA        []string  `json:",omitempty"` // serial numbers
	SignedIn   time.Time `json:",omitzero"`  // password last used

	SSHKeys            []sshKey             `json:",omitempty"`
	Certificates       []signingCertificate `json:",omitempty"`
	ServiceCredentials []serviceCredential  `json:",omitempty"`
}

// sshKey is an RSA public key as it was given. Fingerprint is OpenSSH's MD5 form.
type sshKey struct {
	ID, Body, Fingerprint string
	Uploaded              time.Time
	Inactive              bool `json:",omitempty"`
}

// signingCertificate is an X.509 certificate as it was given.
type signingCertificate struct {
	ID, Body string
	Uploaded time.Time
	Inactive bool `json:",omitempty"`
}

// serviceCredential is a user name and password for one service. SHA256 is that of
// the password, which is base64 of 32 random bytes.
type serviceCredential struct {
	ID, Service, UserName string
	SHA256                []byte
	Created               time.Time
	Inactive              bool `json:",omitempty"`
}

func (u *user) arn() string { return iamARN(u.Account, "user", u.Path, u.Name) }

// login is a login profile. Hash and History are Argon2id hashes, newest first.
type login struct {
	Hash          string
	History       []string `json:",omitempty"`
	Created       time.Time
	Changed       time.Time
	ResetRequired bool `json:",omitempty"`
}

type group struct {
	Account, Name, Path, ID string
	Created                 time.Time
	grants
	Members int // how many users name this group
}

func (g *group) arn() string { return iamARN(g.Account, "group", g.Path, g.Name) }

type role struct {
	Account, Name, Path, ID string
	Created                 time.Time
	Tags                    []tag `json:",omitempty"`
	grants
	Description string `json:",omitempty"`
	Trust       *document
	// Trusted are the principals that Trust names, ARN to unique ID at the time
	// the trust policy was written: who comes later under the same name is not trusted.
	Trusted    map[string]string `json:",omitempty"`
	MaxSession int32             // seconds
	Service    string            `json:",omitempty"` // host of the service a service-linked role belongs to
	Profiles   []string          `json:",omitempty"` // instance profiles, lower-case names
}

func (r *role) arn() string { return iamARN(r.Account, "role", r.Path, r.Name) }

// managed is a customer managed policy, and in memory an AWS managed one.
type managed struct {
	Account, Name, Path, ID string // Account "aws" for AWS managed policies
	Created, Updated        time.Time
	Description             string `json:",omitempty"`
	Tags                    []tag  `json:",omitempty"`
	Default                 string // "v1"
	Next                    int    // number of the next version
	Versions                []version
	Attachments, Boundaries int // how many entities name it
}

func (m *managed) arn() string { return iamARN(m.Account, "policy", m.Path, m.Name) }

type version struct {
	ID       string
	Created  time.Time
	Document *document
}

// version returns the version with that ID ("" for the default), or nil.
func (m *managed) version(id string) *version {
	if id == "" {
		id = m.Default
	}
	for i := range m.Versions {
		if m.Versions[i].ID == id {
			return &m.Versions[i]
		}
	}
	return nil
}

type instanceProfile struct {
	Account, Name, Path, ID string
	Created                 time.Time
	Tags                    []tag  `json:",omitempty"`
	Role                    string `json:",omitempty"` // lower-case name
}

func (p *instanceProfile) arn() string {
	return iamARN(p.Account, "instance-profile", p.Path, p.Name)
}

// accessKey is a long-term access key. Wrapped is the secret under the root key,
// purpose "iam/secret-access-key", additional data "account/id".
type accessKey struct {
	Account, ID string
	User        string `json:",omitempty"` // lower-case name; "" for the root user
	UserID      string
	Active      bool
	Created     time.Time
	Wrapped     []byte
}

// accessReport is a job of GenerateServiceLastAccessedDetails. What it says is
// looked up when it is asked for.
type accessReport struct {
	Account, ID, ARN string
	By               string // unique ID of who asked for it
	Actions          bool   // ACTION_LEVEL
	Created          time.Time
}

// lastUsed is when an access key, a role, or a service by a user or role was last
// used, to within useResolution.
type lastUsed struct {
	Time            time.Time
	Service, Region string
}

// mfaDevice is a virtual MFA device (RFC 6238, SHA-1, 6 digits, 30 s). Wrapped
// is its 20-byte seed under the root key, purpose "iam/mfa-seed", additional
// data the serial number.
type mfaDevice struct {
	Account, Name, Path string
	Tags                []tag `json:",omitempty"`
	Created             time.Time
	Wrapped             []byte
	User                string    `json:",omitempty"` // lower-case name, rootUser, or "" when not enabled
	Enabled             time.Time `json:",omitzero"`
	LastStep            int64     `json:",omitempty"` // of the newest code used: none is good twice
}

func (d *mfaDevice) serial() string { return iamARN(d.Account, "mfa", d.Path, d.Name) }

// serverCertificate is a certificate and its chain, in PEM.
type serverCertificate struct {
	Account, Name, Path, ID string
	Uploaded, Expires       time.Time
	Body                    string
	Chain                   string `json:",omitempty"`
	Tags                    []tag  `json:",omitempty"`
}

func (k *serverCertificate) arn() string {
	return iamARN(k.Account, "server-certificate", k.Path, k.Name)
}

// provider is an OIDC or SAML identity provider.
type provider struct {
	Account, Kind, Name string // Kind "oidc-provider" or "saml-provider"; Name host/path or name
	UUID                string `json:",omitempty"`
	Created             time.Time
	ValidUntil          time.Time `json:",omitzero"`
	ClientIDs           []string  `json:",omitempty"`
	Thumbprints         []string  `json:",omitempty"`
	Metadata            string    `json:",omitempty"`
	Tags                []tag     `json:",omitempty"`
}

func (p *provider) arn() string { return iamARN(p.Account, p.Kind, "/", p.Name) }

// validUntil is when the metadata of a SAML provider expire: a hundred years after
// it was made when they do not say.
func (p *provider) validUntil() time.Time {
	if p.ValidUntil.IsZero() {
		return p.Created.AddDate(100, 0, 0)
	}
	return p.ValidUntil
}

// rootUser stands for the root user where a lower-case user name is kept.
const rootUser = "\x00root"

type tables struct {
	accounts    *store.Table[account]
	aliases     *store.Table[aliasOf] // by alias: unique among all accounts
	users       *store.Table[user]
	groups      *store.Table[group]
	roles       *store.Table[role]
	policies    *store.Table[managed]
	profiles    *store.Table[instanceProfile]
	keys        *store.Table[accessKey]
	used        *store.Table[lastUsed]
	mfa         *store.Table[mfaDevice]
	providers   *store.Table[provider]
	serverCerts *store.Table[serverCertificate]
	reportJobs  *store.Table[accessReport]

	rolesByID *store.Index[role]
	usersByID *store.Index[user]
	keyByID   *store.Index[accessKey]
	// Who names a policy: entries "ARN" for attachment, "boundary ARN" for boundary.
	usersByPolicy  *store.Index[user]
	groupsByPolicy *store.Index[group]
	rolesByPolicy  *store.Index[role]
	usersByGroup   *store.Index[user] // account/lower-case group
}

func define(s *store.Store) tables {
	t := tables{
		accounts:    store.Define[account](s, "iam/account", 1),
		aliases:     store.Define[aliasOf](s, "iam/alias", 1),
		users:       store.Define[user](s, "iam/user", 1),
		groups:      store.Define[group](s, "iam/group", 1),
		roles:       store.Define[role](s, "iam/role", 1),
		policies:    store.Define[managed](s, "iam/policy", 1),
		profiles:    store.Define[instanceProfile](s, "iam/profile", 1),
		keys:        store.Define[accessKey](s, "iam/access-key", 1),
		used:        store.Define[lastUsed](s, "iam/last-used", 1),
		mfa:         store.Define[mfaDevice](s, "iam/mfa", 1),
		providers:   store.Define[provider](s, "iam/provider", 1),
		serverCerts: store.Define[serverCertificate](s, "iam/server-certificate", 1),
		reportJobs:  store.Define[accessReport](s, "iam/access-report", 1),
	}
	t.rolesByID = store.NewIndex(t.roles, func(_ string, r *role) []string { return []string{r.ID} })
	t.usersByID = store.NewIndex(t.users, func(_ string, u *user) []string { return []string{u.ID} })
	t.keyByID = store.NewIndex(t.keys, func(_ string, k *accessKey) []string { return []string{k.ID} })
	t.usersByPolicy = store.NewIndex(t.users, func(_ string, u *user) []string { return u.grants.names(u.Account) })
	t.groupsByPolicy = store.NewIndex(t.groups, func(_ string, g *group) []string { return g.grants.names(g.Account) })
	t.rolesByPolicy = store.NewIndex(t.roles, func(_ string, r *role) []string { return r.grants.names(r.Account) })
	t.usersByGroup = store.NewIndex(t.users, func(_ string, u *user) []string {
		out := make([]string, 0, len(u.Groups))
		for _, g := range u.Groups {
			out = append(out, u.Account+"/"+g)
		}
		return out
	})
	return t
}

// names are the index entries of the managed policies that g names. AWS managed
// policies are shared by all accounts, so the account is part of the entry.
func (g *grants) names(account string) []string {
	out := make([]string, 0, len(g.Attached)+1)
	for _, a := range g.Attached {
		out = append(out, account+" "+a)
	}
	if g.Boundary != "" {
		out = append(out, account+" boundary "+g.Boundary)
	}
	return out
}

// key is the table key of a named thing.
func key(account, name string) string { return account + "/" + strings.ToLower(name) }

// iamARN builds arn:aws:iam::ACCT:kind/path/name.
func iamARN(account, kind, path, name string) string {
	return "arn:aws:iam::" + account + ":" + kind + path + name
}

// splitARN takes an IAM ARN apart: account, kind ("user", "root", "policy"),
// path (with both slashes) and name.
func splitARN(arn string) (account, kind, path, name string, ok bool) {
	rest, ok := strings.CutPrefix(arn, "arn:aws:iam::")
	if !ok {
		return "", "", "", "", false
	}
	account, res, ok := strings.Cut(rest, ":")
	if !ok || account == "" {
		return "", "", "", "", false
	}
	if res == "root" {
		return account, "root", "", "", true
	}
	i, j := strings.IndexByte(res, '/'), strings.LastIndexByte(res, '/')
	if i <= 0 || j == len(res)-1 {
		return "", "", "", "", false
	}
	return account, res[:i], res[i : j+1], res[j+1:], true
}

// without returns list without v, in the same order, as a new slice.
func without(list []string, v string) []string {
	out := slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == v })
	if len(out) == 0 {
		return nil
	}
	return out
}
