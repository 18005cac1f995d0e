package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Subprotocols: a page offers protocol and "token." + its token; protocol is
// chosen. A token in the URL would end up in logs.
const (
	protocol    = "sealdesk.desktop"
	tokenPrefix = "token."
)

// Why a connection was ended; the page shows the reason that goes with it.
const (
	closeEnded    websocket.StatusCode = 4000 // the desktop or the right to it went away
	closeReplaced websocket.StatusCode = 4001 // the same user connected from elsewhere
	closeScreen   websocket.StatusCode = 4002 // the machine closed its screen
	closeProtocol websocket.StatusCode = 4003
)

// relays are the open connections of this server, one a desktop.
type relays struct {
	mu sync.Mutex
	m  map[string]*relay // by account/region/WorkSpace
}

type relay struct{ cut context.CancelCauseFunc }

// ended is why a connection was cut.
type ended struct {
	code   websocket.StatusCode
	reason string
}

func (e *ended) Error() string { return e.reason }

// enter makes r the connection of a desktop and ends the one before it.
func (rs *relays) enter(key string, r *relay) {
	rs.mu.Lock()
	old := rs.m[key]
	rs.m[key] = r
	rs.mu.Unlock()
	if old != nil {
		old.cut(&ended{closeReplaced, "You connected to this desktop from another window or device."})
	}
}

// leave forgets r; last tells that no other connection has taken its place.
func (rs *relays) leave(key string, r *relay) (last bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.m[key] != r {
		return false
	}
	delete(rs.m, key)
	return true
}

func (rs *relays) closeAll() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.m {
		r.cut(&ended{closeEnded, "The server is restarting. Reconnect in a moment."})
	}
}

// admitDesktop uses up the token a page brings and checks all it is bound to.
func (c *Console) admitDesktop(r *http.Request) (*ticket, error) {
	if !ownOrigin(r) {
		return nil, errOrigin
	}
	token := ""
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			if t, ok := strings.CutPrefix(strings.TrimSpace(p), tokenPrefix); ok {
				token = t
			}
		}
	}
	denied := refuse(http.StatusForbidden, "InvalidToken", "The right to connect was used, or is older than 60 seconds. Connect again.")
	if len(token) != 43 {
		return nil, denied
	}
	t, err := c.take(r.Context(), token)
	if err != nil {
		return nil, err
	}
	if t == nil || t.User == nil || t.Path != r.PathValue("session") || t.Addr != clientAddr(r).String() || t.Origin != origin(r) {
		return nil, denied
	}
	return t, c.still(t, clientAddr(r))
}

// still tells why the desktop of a ticket may not be shown (any more).
func (c *Console) still(t *ticket, from netip.Addr) error {
	tx := c.cfg.Store.Snapshot()
	s := c.sessions.Get(tx, t.SessionKey)
	if s == nil || s.Revoked || !c.cfg.Clock.Now().Before(s.Expires) {
		return refuse(http.StatusForbidden, "SignedOut", "You signed out, or the session has ended.")
	}
	if err := c.mayEnter(tx, t.User, from); err != nil {
		return refuse(http.StatusForbidden, "AccessDenied", sentence(err))
	}
	if err := c.cfg.Desktops.Shows(tx, t.User.Account, t.User.Region, t.WorkspaceID, t.User.SID); err != nil {
		return refuse(http.StatusConflict, "DesktopNotAvailable", sentence(err))
	}
	return nil
}

// serveDesktop is the WebSocket of one desktop: bytes of RFB both ways.
func (c *Console) serveDesktop(w http.ResponseWriter, r *http.Request) {
	t, err := c.admitDesktop(r)
	if err != nil {
		var p *problem
		if !errors.As(err, &p) {
			c.log.Error("connect to a desktop", "err", err)
			p = refuse(http.StatusInternalServerError, "InternalFailure", "Something went wrong here.")
		}
		http.Error(w, p.Message, p.status)
		return
	}
	req := &request{Request: r, addr: clientAddr(r)}
	u := t.User
	screen, err := c.cfg.Desktops.Screen(r.Context(), u.Account, u.Region, t.WorkspaceID)
	if err == nil && screen.SID != u.SID {
		err = errors.New("the desktop is another user's")
	}
	var vnc net.Conn
	if err == nil {
		vnc, err = compute.Dial(r.Context(), screen.Socket)
	}
	if err != nil {
		c.log.Warn("no screen", "workspace", t.WorkspaceID, "err", err)
		http.Error(w, "The desktop has no screen now. It may be starting: try again in a moment.", http.StatusConflict)
		return
	}
	defer vnc.Close()
	if err := c.event(r.Context(), req, u, "DesktopConnect", t.WorkspaceID, ""); err != nil {
		c.log.Error("audit record not durable, connection refused", "err", err)
		http.Error(w, "The connection could not be recorded.", http.StatusInternalServerError)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocol}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		c.log.Debug("WebSocket not opened", "err", err)
		return
	}
	ws.SetReadLimit(maxCutText + 64<<10)
	why := c.relay(t, req, ws, vnc)
	c.log.Info("desktop connection ended", "workspace", t.WorkspaceID, "reason", why.reason)
	if err := c.event(context.WithoutCancel(r.Context()), req, u, "DesktopDisconnect", t.WorkspaceID, ""); err != nil {
		c.log.Error("audit record not durable", "err", err)
	}
}

// relay runs one connection until it ends, closes it and says why it ended.
func (c *Console) relay(t *ticket, req *request, ws *websocket.Conn, vnc net.Conn) *ended {
	u := t.User
	key := u.Account + "/" + u.Region + "/" + t.WorkspaceID
	// ctx ends the relay; io, later, what is left of the WebSocket: ending its reads
	// with ctx would tear it down before the browser could be told the reason.
	ctx, cut := context.WithCancelCause(context.Background())
	io, stop := context.WithCancel(context.Background())
	self := &relay{cut: cut}
	c.relays.enter(key, self)
	if err := c.cfg.Desktops.Connection(ctx, u.Account, u.Region, t.WorkspaceID, true); err != nil {
		c.log.Warn("connection state not recorded", "workspace", t.WorkspaceID, "err", err)
	}
	var wg sync.WaitGroup
	end := func(e *ended) { cut(e) }
	in := &clientReader{}
	wishes := make(chan compute.Session, 1)
	wish := func(s compute.Session) { // never waits for the guest; the newest of a kind is enough
		select {
		case wishes <- s:
		default:
			select {
			case old := <-wishes:
				if s.KeyboardLayout == "" {
					s.KeyboardLayout = old.KeyboardLayout
				}
				if s.Width == 0 {
					s.Width, s.Height = old.Width, old.Height
				}
			default:
			}
			select {
			case wishes <- s:
			default:
			}
		}
	}
	in.Resize = func(w, h int) { wish(compute.Session{Width: w, Height: h}) }
	c.clipboard(ctx, t, ws, in)
	for _, part := range []func(){
		func() { c.watch(ctx, t, req.addr, end, func() { c.clipboard(ctx, t, ws, in) }) },
		func() { c.arrange(ctx, t, wishes) },
		func() { end(alive(ctx, io, ws)) },
		func() { end(toMachine(io, ws, vnc, in, wish)) },
		func() { end(toBrowser(io, ws, vnc)) },
	} {
		wg.Add(1)
		go func() { defer wg.Done(); part() }()
	}
	<-ctx.Done()
	why := &ended{closeEnded, "The connection ended."}
	_ = errors.As(context.Cause(ctx), &why)
	_ = vnc.SetDeadline(time.Now()) // from here on no byte passes
	if c.relays.leave(key, self) {  // else the connection that replaced this one goes on
		cctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := c.cfg.Desktops.Connection(cctx, u.Account, u.Region, t.WorkspaceID, false); err != nil && !errors.Is(err, store.ErrClosed) {
			c.log.Warn("connection state not recorded", "workspace", t.WorkspaceID, "err", err)
		}
		cancel()
	}
	_ = ws.Close(why.code, clip(why.reason, 120)) // tells the browser; waits for its answer a few seconds
	stop()
	wg.Wait()
	return why
}

// watch ends the connection as soon as the user may not have it any more.
func (c *Console) watch(ctx context.Context, t *ticket, from netip.Addr, end func(*ended), changedPolicy func()) {
	for {
		changed := c.cfg.Store.Changed()
		if err := c.still(t, from); err != nil {
			reason := err.Error()
			var p *problem
			if errors.As(err, &p) {
				reason = p.Message
			}
			end(&ended{closeEnded, reason})
			return
		}
		changedPolicy()
		select {
		case <-ctx.Done():
			return
		case <-c.cfg.Clock.After(30 * time.Second): // sessions expire without a change
		case <-changed:
			select { // a burst of changes is looked at once
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// clipboard takes over what the directory says about the clipboard and tells the
// page when that changed, as text: {"clipboard":{"fromLocal":bool,"toLocal":bool}}.
func (c *Console) clipboard(ctx context.Context, t *ticket, ws *websocket.Conn, in *clientReader) {
	from, to := c.cfg.Desktops.Clipboard(c.cfg.Store.Snapshot(), t.User.Account, t.User.Region, t.User.DirectoryID)
	fromWas, toWas := in.FromLocal.Swap(from), in.ToLocal.Swap(to)
	if in.told.Swap(true) && from == fromWas && to == toWas {
		return
	}
	wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = ws.Write(wctx, websocket.MessageText, fmt.Appendf(nil, `{"clipboard":{"fromLocal":%t,"toLocal":%t}}`, from, to)) // a broken WebSocket shows in its next read
}

// arrange passes wishes on to the guest, which may take its time.
func (c *Console) arrange(ctx context.Context, t *ticket, wishes <-chan compute.Session) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-wishes:
			actx, cancel := context.WithTimeout(ctx, 5*time.Second)
			if err := c.cfg.Desktops.Arrange(actx, t.User.Account, t.User.Region, t.WorkspaceID, s); err != nil {
				c.log.Debug("the desktop was not arranged", "workspace", t.WorkspaceID, "err", err)
			}
			cancel()
		}
	}
}

// alive pings the browser: one that went without a word is noticed within a minute.
func alive(ctx, io context.Context, ws *websocket.Conn) *ended {
	for {
		select {
		case <-ctx.Done():
			return &ended{closeEnded, "The connection ended."}
		case <-time.After(25 * time.Second):
		}
		p, cancel := context.WithTimeout(io, 25*time.Second)
		err := ws.Ping(p)
		cancel()
		if err != nil {
			return &ended{closeEnded, "The browser does not answer."}
		}
	}
}

// toMachine passes on what the browser sends. Its failures are the browser's end.
func toMachine(ctx context.Context, ws *websocket.Conn, vnc net.Conn, in *clientReader, wish func(compute.Session)) *ended {
	for {
		kind, msg, err := ws.Read(ctx)
		if err != nil {
			return &ended{websocket.StatusNormalClosure, "The browser closed the connection."}
		}
		if kind == websocket.MessageText {
			if err := heed(ctx, string(msg), ws, wish); err != nil {
				return &ended{closeProtocol, sentence(err)}
			}
			continue
		}
		pass, err := in.Next(msg)
		if err != nil {
			return &ended{closeProtocol, sentence(err)}
		}
		if len(pass) == 0 {
			continue
		}
		if _, err := vnc.Write(pass); err != nil {
			return &ended{closeScreen, "The desktop closed its screen."}
		}
	}
}

// heed answers what the page itself, not its VNC client, says: text messages.
//
//	ping N              answered "pong N", N up to 15 digits: how the page measures the way
//	keyboard LAYOUT     the desktop's keyboard layout, an XKB name
func heed(ctx context.Context, msg string, ws *websocket.Conn, wish func(compute.Session)) error {
	word, arg, _ := strings.Cut(msg, " ")
	switch {
	case word == "ping" && len(arg) <= 15 && strings.Trim(arg, "0123456789") == "":
		wctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_ = ws.Write(wctx, websocket.MessageText, []byte("pong "+arg)) // a broken WebSocket shows in its next read
		return nil
	case word == "keyboard" && len(arg) <= 8:
		wish(compute.Session{KeyboardLayout: arg})
		return nil
	}
	return errors.New("the page sent a message that is not known")
}

// toBrowser passes on what the machine draws, as it comes.
func toBrowser(ctx context.Context, ws *websocket.Conn, vnc net.Conn) *ended {
	buf := make([]byte, 32<<10)
	for {
		n, err := vnc.Read(buf)
		if n > 0 {
			wctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			werr := ws.Write(wctx, websocket.MessageBinary, buf[:n])
			cancel()
			if werr != nil {
				return &ended{websocket.StatusNormalClosure, "The browser does not take what the desktop shows."}
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return &ended{closeScreen, "The desktop closed its screen. It may have been restarted."}
			}
			return &ended{closeScreen, fmt.Sprintf("The desktop's screen failed: %v.", err)}
		}
	}
}
