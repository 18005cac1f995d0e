package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	wstypes "github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/directory"
	"github.com/sealdesk/sealdesk/internal/iam"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/wire/sigv4"
	"github.com/sealdesk/sealdesk/internal/workspaces"
)

// Users checks the passwords of IAM users.
type Users interface {
	SignIn(ctx context.Context, account, userName, password, mfaCode string) (*iam.SignedIn, error)
}

// Tokens makes the credentials of a console session.
type Tokens interface {
	ConsoleSession(ctx context.Context, c *api.Call, p api.Principal, seconds int32) (*ststypes.Credentials, error)
}

// Directories is what the portal asks of Directory Service.
type Directories interface {
	Find(tx *store.Tx, idOrAlias string) (directory.Directory, bool)
	Authenticate(ctx context.Context, directoryID, userName, password string) (directory.User, error)
	SecondFactor(tx *store.Tx, account, region, directoryID string) (label string, ok bool)
	CheckCode(ctx context.Context, u directory.User, code string) error
	User(tx *store.Tx, account, region, directoryID, userName string) (directory.User, bool)
}

// Desktops is what portal and relay ask of WorkSpaces.
type Desktops interface {
	ByRegistrationCode(tx *store.Tx, code string) (account, region, directoryID string, ok bool)
	WebAccess(tx *store.Tx, account, region, directoryID string, from netip.Addr) error
	SelfServiceAllowed(tx *store.Tx, account, region, directoryID, permission string) bool
	Shows(tx *store.Tx, account, region, id, sid string) error
	OfUser(tx *store.Tx, account, region, directoryID, sid string) []*wstypes.Workspace
	Screen(ctx context.Context, account, region, id string) (workspaces.Screen, error)
	Connection(ctx context.Context, account, region, id string, connected bool) error
	Clipboard(tx *store.Tx, account, region, directoryID string) (fromLocal, toLocal bool)
	Arrange(ctx context.Context, account, region, id string, wish compute.Session) error
}

// AuditLog takes the records of sign-ins; Append returns once one is durable.
type AuditLog interface {
	Append(ctx context.Context, r *audit.Record) error
}

// Config is what the console needs; all of it but Logger and Clock is required.
type Config struct {
	Store       *store.Store
	Clock       clock.Clock
	Logger      *slog.Logger
	Audit       AuditLog
	Users       Users
	Tokens      Tokens
	Identities  api.Identities
	Caller      api.Caller
	Directories Directories
	Desktops    Desktops
}

// Lifetimes.
const (
	sessionLife    = 12 * time.Hour // of a sign-in to the console
	credentialLife = time.Hour      // of the credentials handed out for it
	portalLife     = 8 * time.Hour
	ticketLife     = 60 * time.Second // of a right to connect to a desktop
	passwordLife   = 5 * time.Minute  // of a right to set a new password
)

// Console is the http.Handler of /console/, /portal/ and /desktops/.
type Console struct {
	cfg      Config
	log      *slog.Logger
	mux      *http.ServeMux
	files    *files
	verifier *sigv4.Verifier
	limit    *limiter
	hashing  chan struct{} // bounds how many passwords are being checked

	sessions *store.Table[session]
	byKey    *store.Index[session]
	tickets  *store.Table[ticket]

	relays relays
}

// New declares the tables; the store must not have started.
func New(cfg Config) *Console {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	c := &Console{cfg: cfg, log: cfg.Logger, mux: http.NewServeMux(), files: newFiles(), verifier: sigv4.NewVerifier(),
		limit: newLimiter(cfg.Clock), hashing: make(chan struct{}, 4)}
	c.sessions = store.Define[session](cfg.Store, "console/session", 1)
	c.byKey = store.NewIndex(c.sessions, func(_ string, s *session) []string { return s.AccessKeys })
	c.tickets = store.Define[ticket](cfg.Store, "console/ticket", 1)
	c.relays.m = map[string]*relay{}

	c.mux.HandleFunc("POST /console/signin", c.own(c.signIn))
	c.mux.HandleFunc("POST /console/signin/key", c.own(c.signInWithKey))
	c.mux.HandleFunc("POST /console/signin/password", c.own(c.newPassword))
	c.mux.HandleFunc("POST /console/refresh", c.own(c.refresh))
	c.mux.HandleFunc("POST /console/signout", c.own(c.signOut))
	c.mux.HandleFunc("POST /console/sessions", c.own(c.listSessions))
	c.mux.HandleFunc("POST /console/sessions/revoke", c.own(c.revokeSession))
	c.mux.HandleFunc("POST /portal/signin", c.own(c.portalSignIn))
	c.mux.HandleFunc("POST /portal/signout", c.own(c.portalSignOut))
	c.mux.HandleFunc("POST /portal/desktops", c.own(c.portalDesktops))
	c.mux.HandleFunc("POST /portal/action", c.own(c.portalAction))
	c.mux.HandleFunc("POST /portal/connect", c.own(c.portalConnect))
	c.mux.HandleFunc("GET /desktops/{session}/ws", c.serveDesktop)
	c.mux.HandleFunc("GET /console/", c.files.serve("index.html", "/console/"))
	c.mux.HandleFunc("GET /portal/", c.files.serve("portal.html", "/portal/"))
	c.mux.HandleFunc("GET /console", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/console/", http.StatusFound) })
	c.mux.HandleFunc("GET /portal", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/portal/", http.StatusFound) })
	return c
}

// Over is a handler that serves the console's paths itself, sends a person who
// opens the endpoint in a browser to the console, and gives all else to apis.
func (c *Console) Over(apis http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch {
		case first == "console", first == "portal", first == "desktops" && r.Header.Get("Upgrade") != "":
			c.ServeHTTP(w, r)
		case r.Method == http.MethodGet && r.URL.Path == "/" && r.URL.RawQuery == "" && r.Header.Get("Authorization") == "" && strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/console/", http.StatusFound)
		default:
			apis.ServeHTTP(w, r)
		}
	})
}

// ServeHTTP answers requests for the console's paths.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	securityHeaders(w.Header(), r)
	c.mux.ServeHTTP(w, r)
}

// securityHeaders are the same for all answers: nothing inline, nothing from
// elsewhere, no framing.
func securityHeaders(h http.Header, r *http.Request) {
	ws := "ws://" + r.Host
	if r.TLS != nil {
		ws = "wss://" + r.Host
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if !plainHost(r.Host) {
		ws = ""
	}
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self' "+ws+
		"; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()")
}

// plainHost keeps a Host header from adding words to a policy.
func plainHost(host string) bool {
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-:[]", r) {
			return false
		}
	}
	return host != ""
}

// problem is an error that the browser is told.
type problem struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
	Label   string `json:"label,omitempty"` // what the directory calls the code it asks for
}

func (p *problem) Error() string { return p.Code + ": " + p.Message }

func refuse(status int, code, message string) *problem {
	return &problem{status: status, Code: code, Message: message}
}

var (
	errSession = refuse(http.StatusUnauthorized, "SessionExpired", "You are not signed in, or the session has ended. Sign in again.")
	errOrigin  = refuse(http.StatusForbidden, "ForeignOrigin", "The request does not come from this console's own page.")
)

// request is one request of a page of ours.
type request struct {
	*http.Request
	w    http.ResponseWriter
	id   string // request ID, shown with every error
	body []byte
	addr netip.Addr
}

// in decodes the JSON body.
func (r *request) in(v any) error {
	d := json.NewDecoder(strings.NewReader(string(r.body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return refuse(http.StatusBadRequest, "InvalidRequest", "The request is not understood: "+err.Error())
	}
	return nil
}

// own admits requests that a page of this very origin made: Origin equals the
// address asked, Sec-Fetch-Site (where the browser sends it) says so too, and
// the body is JSON, which no form can send. The reply is JSON, never cached.
func (c *Console) own(f func(ctx context.Context, r *request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Request: hr, w: w, id: ids.UUID(), addr: clientAddr(hr)}
		w.Header().Set("X-Amzn-Requestid", r.id)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/json")
		out, err := c.admit(r, f)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) {
				c.log.Error("console request failed", "path", hr.URL.Path, "requestId", r.id, "err", err)
				p = refuse(http.StatusInternalServerError, "InternalFailure", "Something went wrong here. The server's log has the details under the request ID.")
			}
			w.WriteHeader(p.status)
			_ = json.NewEncoder(w).Encode(struct {
				*problem
				RequestID string `json:"requestId"`
			}{p, r.id})
			return
		}
		if out == nil {
			out = struct{}{}
		}
		if err := json.NewEncoder(w).Encode(out); err != nil {
			c.log.Debug("console reply not delivered", "requestId", r.id, "err", err)
		}
	}
}

func (c *Console) admit(r *request, f func(ctx context.Context, r *request) (any, error)) (out any, err error) {
	if !ownOrigin(r.Request) {
		return nil, errOrigin
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "InvalidRequest", "Content-Type must be application/json.")
	}
	if r.body, err = io.ReadAll(http.MaxBytesReader(r.w, r.Body, 16<<10)); err != nil {
		return nil, refuse(http.StatusRequestEntityTooLarge, "InvalidRequest", "The request is too large.")
	}
	return f(r.Context(), r)
}

func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func ownOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	o, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && o.Host != "" && r.Header.Get("Origin") == origin(r)
}

func clientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap().WithZone("")
}

// newToken is 256 random bits, and the key under which their hash is stored.
func newToken() (token, key string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (Go 1.24)
	token = base64.RawURLEncoding.EncodeToString(b)
	return token, tokenKey(token)
}

func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Run deletes sessions and tickets that are of no more use, until ctx ends.
func (c *Console) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			c.relays.closeAll()
			return
		case <-c.cfg.Clock.After(10 * time.Minute):
		}
		if err := c.sweep(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("old sessions not deleted", "err", err)
		}
	}
}

// sweep deletes a session once the last credentials it was given are past, so
// that a revoked one is remembered as long as it matters.
func (c *Console) sweep(ctx context.Context) error {
	now := c.cfg.Clock.Now()
	err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		var sessions, tickets []string
		c.sessions.Scan(tx, "", "", func(k string, s *session) bool {
			if now.After(s.Expires) && now.After(s.KeysUntil) || s.Revoked && now.After(s.KeysUntil) {
				sessions = append(sessions, k)
			}
			return len(sessions) < 500
		})
		c.tickets.Scan(tx, "", "", func(k string, t *ticket) bool {
			if now.After(t.Expires) {
				tickets = append(tickets, k)
			}
			return len(tickets) < 500
		})
		for _, k := range sessions {
			if err := c.sessions.Delete(tx, k); err != nil {
				return err
			}
		}
		for _, k := range tickets {
			if err := c.tickets.Delete(tx, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete old console sessions: %w", err)
	}
	return nil
}
