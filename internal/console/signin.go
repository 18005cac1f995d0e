package console

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/iam"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
)

// session is one sign-in, to the console (Principal) or the portal (User).
type session struct {
	ID                  string // shown; says nothing about the cookie
	Principal           *api.Principal
	User                *portalUser `json:",omitempty"`
	Created, Expires    time.Time
	LastUsed            time.Time
	SourceIP, UserAgent string
	OriginKey           string    `json:",omitempty"` // the long-term access key that signed in
	AccessKeys          []string  `json:",omitempty"` // temporary keys handed out, newest last
	KeysUntil           time.Time // when the last of them expires
	Revoked             bool      `json:",omitempty"`
}

// ticket is a right to do one thing once.
type ticket struct {
	Expires time.Time
	Addr    string
	Origin  string

	// A new password at sign-in.
	Principal *api.Principal `json:",omitempty"`
	OldHMAC   string         `json:",omitempty"` // of the password that was right, under the ticket's token

	// A desktop.
	User        *portalUser `json:",omitempty"`
	WorkspaceID string      `json:",omitempty"`
	SessionKey  string      `json:",omitempty"` // the portal session that asked
	Path        string      `json:",omitempty"` // the {session} of its URL
}

// take uses a ticket up: whoever presents its token, it is gone.
func (c *Console) take(ctx context.Context, token string) (*ticket, error) {
	var t *ticket
	k := tokenKey(token)
	if c.tickets.Get(c.cfg.Store.Snapshot(), k) == nil {
		return nil, nil // no write for a token that never was
	}
	err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if t = c.tickets.Get(tx, k); t == nil {
			return nil
		}
		return c.tickets.Delete(tx, k)
	})
	if err != nil {
		return nil, err
	}
	if t != nil && !c.cfg.Clock.Now().Before(t.Expires) {
		t = nil
	}
	return t, nil
}

// Revoked tells whether a temporary access key belongs to a session that was
// signed out or revoked. The gateway asks for every call signed with one.
func (c *Console) Revoked(accessKeyID string) bool {
	tx := c.cfg.Store.Snapshot()
	for _, k := range c.byKey.Keys(accessKeyID, "", 0) {
		if s := c.sessions.Get(tx, k); s != nil && s.Revoked {
			return true
		}
	}
	return false
}

// Cookies.
const (
	consoleCookie = "sealdesk-console"
	portalCookie  = "sealdesk-portal"
)

func cookieName(r *http.Request, name string) string {
	if r.TLS != nil {
		return "__Secure-" + name
	}
	return name
}

func setCookie(r *request, name, path, token string, life time.Duration) {
	ck := &http.Cookie{Name: cookieName(r.Request, name), Value: token, Path: path, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil, MaxAge: int(life.Seconds())}
	if token == "" {
		ck.MaxAge = -1
	}
	http.SetCookie(r.w, ck)
}

// current is the session of the request's cookie.
func (c *Console) current(r *request, name string) (key string, s *session, err error) {
	ck, err := r.Cookie(cookieName(r.Request, name))
	if err != nil || len(ck.Value) > 100 {
		return "", nil, errSession
	}
	key = tokenKey(ck.Value)
	s = c.sessions.Get(c.cfg.Store.Snapshot(), key)
	if s == nil || s.Revoked || !c.cfg.Clock.Now().Before(s.Expires) || (s.User != nil) != (name == portalCookie) {
		return "", nil, errSession
	}
	return key, s, nil
}

type signInInput struct {
	Account  string `json:"account"`
	UserName string `json:"userName"`
	Password string `json:"password"`
	MFACode  string `json:"mfaCode"`
}

// credentials are what a page signs its calls with.
type credentials struct {
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	SessionToken    string    `json:"sessionToken"`
	Expiration      time.Time `json:"expiration"`
}

type signedIn struct {
	Credentials *credentials `json:"credentials,omitempty"`
	Account     string       `json:"account,omitempty"`
	ARN         string       `json:"arn,omitempty"`
	UserName    string       `json:"userName,omitempty"`
	Root        bool         `json:"root,omitempty"`
	MFA         bool         `json:"mfa,omitempty"`
	Session     string       `json:"session,omitempty"`
	// PasswordTicket is set, and nothing else, when a new password must be set first.
	PasswordTicket string `json:"passwordTicket,omitempty"`
}

var errTooMany = refuse(http.StatusTooManyRequests, "TooManyAttempts", "Too many wrong attempts from here. Wait five minutes and try again.")

// signIn signs an IAM user in with a password.
func (c *Console) signIn(ctx context.Context, r *request) (any, error) {
	var in signInInput
	if err := r.in(&in); err != nil {
		return nil, err
	}
	if len(in.Account) > 63 || len(in.UserName) > 64 || len(in.Password) > 128 || len(in.MFACode) > 8 {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "A field is longer than it can be.")
	}
	who := strings.ToLower(in.Account + "/" + in.UserName)
	if !c.limit.allowed(r.addr.String(), who) {
		return nil, errTooMany
	}
	select {
	case c.hashing <- struct{}{}:
		defer func() { <-c.hashing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	u, err := c.cfg.Users.SignIn(ctx, in.Account, in.UserName, in.Password, in.MFACode)
	switch {
	case errors.Is(err, iam.ErrPasswordExpired):
		return nil, c.failedSignIn(ctx, r, in.Account, in.UserName, refuse(http.StatusForbidden, "PasswordExpired", "The password has expired. Ask an administrator to set a new one."))
	case errors.Is(err, iam.ErrSignIn):
		c.limit.failed(r.addr.String(), who)
		return nil, c.failedSignIn(ctx, r, in.Account, in.UserName, refuse(http.StatusForbidden, "AuthFailure",
			"The account, user name or password is not right, or the MFA code is missing, wrong or was used already."))
	case err != nil:
		return nil, err
	}
	c.limit.succeeded(r.addr.String(), who)
	if u.ResetRequired {
		token, key := newToken()
		t := &ticket{Expires: c.cfg.Clock.Now().Add(passwordLife), Addr: r.addr.String(), Origin: origin(r.Request), Principal: &u.Principal, OldHMAC: passwordHMAC(token, in.Password)}
		if err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error { return c.tickets.Put(tx, key, t) }); err != nil {
			return nil, err
		}
		return &signedIn{PasswordTicket: token}, nil
	}
	return c.begin(ctx, r, u.Principal, "")
}

// passwordHMAC lets a ticket recognise the old password without holding it.
func passwordHMAC(token, password string) string {
	m := hmac.New(sha256.New, []byte(token))
	m.Write([]byte(password))
	return hex.EncodeToString(m.Sum(nil))
}

// newPassword sets a user's new password and signs in. The MFA code was used
// with the old one; the ticket stands for it.
func (c *Console) newPassword(ctx context.Context, r *request) (any, error) {
	var in struct {
		Ticket      string `json:"ticket"`
		OldPassword string `json:"oldPassword"`
		NewPassword string `json:"newPassword"`
	}
	if err := r.in(&in); err != nil {
		return nil, err
	}
	t := c.tickets.Get(c.cfg.Store.Snapshot(), tokenKey(in.Ticket))
	if t == nil || t.Principal == nil || !c.cfg.Clock.Now().Before(t.Expires) || t.Addr != r.addr.String() || t.Origin != origin(r.Request) ||
		!hmac.Equal([]byte(t.OldHMAC), []byte(passwordHMAC(in.Ticket, in.OldPassword))) {
		return nil, refuse(http.StatusForbidden, "TicketExpired", "The time to set a new password is over. Sign in again.")
	}
	p := *t.Principal
	call := c.call(r, p).Forward("signin")
	_, err := api.Do[awsiam.ChangePasswordOutput](ctx, c.cfg.Caller, call, "iam", "ChangePassword",
		&awsiam.ChangePasswordInput{OldPassword: &in.OldPassword, NewPassword: &in.NewPassword})
	if err != nil {
		var apiErr smithy.APIError
		if errors.As(err, &apiErr) && apiErr.ErrorCode() != "InternalFailure" {
			return nil, refuse(http.StatusBadRequest, apiErr.ErrorCode(), apiErr.ErrorMessage())
		}
		return nil, err
	}
	if used, err := c.take(ctx, in.Ticket); err != nil || used == nil {
		return nil, errors.Join(err, errSession)
	}
	return c.begin(ctx, r, p, "")
}

// signInWithKey signs in whoever signed the request (SigV4, service "signin") with
// a long-term access key: the way in for an account's first administrator, who
// has no password yet. The secret key stays in the browser.
func (c *Console) signInWithKey(ctx context.Context, r *request) (any, error) {
	now := c.cfg.Clock.Now()
	wrong := func(code, message string) error {
		c.limit.failed(r.addr.String(), "key")
		return refuse(http.StatusForbidden, code, message)
	}
	if !c.limit.allowed(r.addr.String(), "key") {
		return nil, errTooMany
	}
	auth, err := sigv4.Parse(r.Request)
	if err != nil {
		return nil, refuse(http.StatusForbidden, "MissingAuthenticationToken", "The request is not signed.")
	}
	if auth.Service != "signin" || auth.SessionToken != "" || strings.HasPrefix(auth.AccessKeyID, "ASIA") {
		return nil, wrong("InvalidClientTokenId", "Sign in with a long-term access key (AKIA…) of a user or of the root user; a role is switched to afterwards.")
	}
	cred, err := c.cfg.Identities.Credential(ctx, auth.AccessKeyID, "", now)
	if errors.Is(err, api.ErrUnknownAccessKey) || errors.Is(err, api.ErrInvalidToken) || errors.Is(err, api.ErrExpiredToken) {
		return nil, wrong("InvalidClientTokenId", "The access key does not exist or is inactive.")
	}
	if err != nil {
		return nil, err
	}
	if err := c.verifier.Verify(auth, r.Request, sigv4.BodyOf(r.body), cred.SecretAccessKey.Expose(), now); err != nil {
		var serr *sigv4.Error
		if !errors.As(err, &serr) {
			return nil, err
		}
		if aerr := c.record(ctx, r, cred.Principal, serr.Message); aerr != nil {
			return nil, aerr
		}
		if serr.Code == "SignatureDoesNotMatch" && strings.Contains(serr.Message, "expired") {
			return nil, wrong(string(serr.Code), serr.Message)
		}
		return nil, wrong(string(serr.Code), "The secret access key is not right, or this computer's clock is more than 15 minutes off.")
	}
	p := cred.Principal
	p.AccessKeyID = ""
	return c.begin(ctx, r, p, auth.AccessKeyID)
}

// begin starts a session: record first, then credentials, then the cookie.
func (c *Console) begin(ctx context.Context, r *request, p api.Principal, originKey string) (any, error) {
	p.FromConsole = true
	if err := c.record(ctx, r, p, ""); err != nil {
		return nil, err
	}
	now := c.cfg.Clock.Now()
	token, key := newToken()
	s := &session{ID: ids.UUID(), Principal: &p, Created: now, Expires: now.Add(sessionLife), SourceIP: r.addr.String(), UserAgent: clip(r.UserAgent(), 256), OriginKey: originKey}
	out, err := c.issue(ctx, r, key, s)
	if err != nil {
		return nil, err
	}
	setCookie(r, consoleCookie, "/console/", token, sessionLife)
	return out, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// call is a call of the session's principal.
func (c *Console) call(r *request, p api.Principal) *api.Call {
	return &api.Call{RequestID: r.id, Time: c.cfg.Clock.Now().UTC().Truncate(time.Millisecond), Region: "us-east-1", Account: p.Account, Principal: p,
		SourceIP: r.addr.String(), UserAgent: r.UserAgent(), Secure: r.TLS != nil}
}

// issue gives a session new credentials and stores which they are before anybody
// has them.
func (c *Console) issue(ctx context.Context, r *request, key string, s *session) (*signedIn, error) {
	now := c.cfg.Clock.Now()
	life := min(credentialLife, s.Expires.Sub(now))
	cr, err := c.cfg.Tokens.ConsoleSession(ctx, c.call(r, *s.Principal), *s.Principal, int32(max(life, 15*time.Minute).Seconds()))
	if err != nil {
		return nil, err
	}
	fresh := *s
	err = c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		n := fresh
		if stored := c.sessions.Get(tx, key); stored != nil {
			n = *stored
			if n.Revoked {
				return errSession
			}
		}
		n.LastUsed, n.KeysUntil = now, aws.ToTime(cr.Expiration)
		n.AccessKeys = append(slices.Clone(n.AccessKeys), aws.ToString(cr.AccessKeyId))
		if len(n.AccessKeys) > 16 { // more than can be valid at a time, at one refresh in several minutes
			n.AccessKeys = n.AccessKeys[len(n.AccessKeys)-16:]
		}
		return c.sessions.Put(tx, key, &n)
	})
	if err != nil {
		return nil, err
	}
	return &signedIn{Credentials: &credentials{aws.ToString(cr.AccessKeyId), aws.ToString(cr.SecretAccessKey), aws.ToString(cr.SessionToken), aws.ToTime(cr.Expiration)},
		Account: s.Principal.Account, ARN: s.Principal.ARN, UserName: s.Principal.UserName, Root: s.Principal.Type == api.Root, MFA: s.Principal.MFA, Session: s.ID}, nil
}

// refresh renews the credentials of the cookie's session; a page that was
// reloaded, and so lost them, begins with it.
func (c *Console) refresh(ctx context.Context, r *request) (any, error) {
	key, s, err := c.current(r, consoleCookie)
	if err != nil {
		return nil, err
	}
	now := c.cfg.Clock.Now()
	if n := len(s.AccessKeys); n >= 16 && now.Sub(s.LastUsed) < 5*time.Second {
		return nil, refuse(http.StatusTooManyRequests, "TooManyAttempts", "Too many requests for new credentials. Wait a few seconds.")
	}
	if s.OriginKey != "" {
		if _, err := c.cfg.Identities.Credential(ctx, s.OriginKey, "", now); err != nil {
			return nil, errSession // the access key that signed in was deleted or switched off
		}
	}
	return c.issue(ctx, r, key, s)
}

func (c *Console) signOut(ctx context.Context, r *request) (any, error) {
	key, s, err := c.current(r, consoleCookie)
	setCookie(r, consoleCookie, "/console/", "", 0)
	if err != nil {
		return nil, nil // signed out already
	}
	return nil, c.revoke(ctx, key, s.ID)
}

// revoke ends a session: its cookie and all its credentials.
func (c *Console) revoke(ctx context.Context, key, id string) error {
	return c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		s := c.sessions.Edit(tx, key)
		if s == nil || s.ID != id {
			return nil
		}
		s.Revoked = true
		return c.sessions.Put(tx, key, s)
	})
}

type sessionShown struct {
	ID        string    `json:"id"`
	ARN       string    `json:"arn"`
	Created   time.Time `json:"created"`
	LastUsed  time.Time `json:"lastUsed"`
	Expires   time.Time `json:"expires"`
	SourceIP  string    `json:"sourceIp"`
	UserAgent string    `json:"userAgent"`
	Current   bool      `json:"current"`
}

// sees tells whose sessions a principal may list and end: its own; the root user
// all of the account.
func sees(p *api.Principal, s *session) bool {
	return s.Principal != nil && s.Principal.Account == p.Account && (p.Type == api.Root || s.Principal.ID == p.ID)
}

func (c *Console) listSessions(_ context.Context, r *request) (any, error) {
	key, me, err := c.current(r, consoleCookie)
	if err != nil {
		return nil, err
	}
	now := c.cfg.Clock.Now()
	out := struct {
		Sessions []sessionShown `json:"sessions"`
	}{[]sessionShown{}}
	c.sessions.Scan(c.cfg.Store.Snapshot(), "", "", func(k string, s *session) bool {
		if sees(me.Principal, s) && !s.Revoked && now.Before(s.Expires) {
			out.Sessions = append(out.Sessions, sessionShown{s.ID, s.Principal.ARN, s.Created, s.LastUsed, s.Expires, s.SourceIP, s.UserAgent, k == key})
		}
		return true
	})
	sort.Slice(out.Sessions, func(i, j int) bool { return out.Sessions[i].LastUsed.After(out.Sessions[j].LastUsed) })
	return out, nil
}

func (c *Console) revokeSession(ctx context.Context, r *request) (any, error) {
	_, me, err := c.current(r, consoleCookie)
	if err != nil {
		return nil, err
	}
	var in struct {
		ID string `json:"id"`
	}
	if err := r.in(&in); err != nil {
		return nil, err
	}
	found := ""
	c.sessions.Scan(c.cfg.Store.Snapshot(), "", "", func(k string, s *session) bool {
		if s.ID == in.ID && sees(me.Principal, s) {
			found = k
		}
		return found == ""
	})
	if found == "" {
		return nil, refuse(http.StatusNotFound, "NoSuchSession", "There is no such session, or it is not yours.")
	}
	return nil, c.revoke(ctx, found, in.ID)
}

// failedSignIn records a refused sign-in and returns why. The name given is shown
// only when such a user may exist; who types a password into the name field
// should not find it in a log. Source: CloudTrail User Guide, "AWS Management
// Console sign-in events".
func (c *Console) failedSignIn(ctx context.Context, r *request, account, userName string, why *problem) error {
	if !accountID(account) {
		return why // an alias, or nonsense: there is no account whose log it belongs to
	}
	p := api.Principal{Type: api.IAMUser, Account: account, UserName: "HIDDEN_DUE_TO_SECURITY_REASONS"}
	if c.userExists(ctx, account, userName) {
		p.UserName = userName
	}
	if err := c.record(ctx, r, p, "Failed authentication"); err != nil {
		return err
	}
	return why
}

// userExists asks IAM in the name of the sign-in service, which leaves no trace
// for the browser: the answer is used in the record only.
func (c *Console) userExists(_ context.Context, account, userName string) bool {
	p, ok := c.cfg.Users.(interface {
		PrincipalExists(tx *store.Tx, arn string) bool
	})
	return ok && p.PrincipalExists(c.cfg.Store.Snapshot(), "arn:aws:iam::"+account+":user/"+userName)
}

func accountID(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return len(s) == 12
}

// record writes the ConsoleLogin record; failure is "" for a success.
func (c *Console) record(ctx context.Context, r *request, p api.Principal, failure string) error {
	result, mfa := "Success", "No"
	if failure != "" {
		result = "Failure"
	}
	if p.MFA {
		mfa = "Yes"
	}
	id := p.UserIdentity()
	id.AccessKeyID, id.SessionContext = "", nil
	rec := &audit.Record{EventVersion: "1.11", UserIdentity: id, EventTime: audit.Time{Time: c.cfg.Clock.Now().UTC()}, EventSource: "signin.amazonaws.com",
		EventName: "ConsoleLogin", AWSRegion: "us-east-1", SourceIPAddress: r.addr.String(), UserAgent: r.UserAgent(), ErrorMessage: failure,
		ResponseElements:    map[string]any{"ConsoleLogin": result},
		AdditionalEventData: map[string]any{"LoginTo": origin(r.Request) + "/console/", "MobileVersion": "No", "MFAUsed": mfa},
		EventID:             ids.UUID(), EventType: "AwsConsoleSignIn", ManagementEvent: true, RecipientAccountID: p.Account, EventCategory: "Management"}
	return c.cfg.Audit.Append(context.WithoutCancel(ctx), rec)
}
