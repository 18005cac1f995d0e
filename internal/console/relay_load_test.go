package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/directory"
	"github.com/sealdesk/sealdesk/internal/store"
	"github.com/sealdesk/sealdesk/internal/workspaces"
)

// Stand-ins for the rest of the system: every user is enabled, every desktop's
// screen is one socket.
type (
	loadDirectories struct{ Directories }
	loadDesktops    struct {
		Desktops
		socket string
	}
	loadAudit struct{}
)

func (loadDirectories) User(_ *store.Tx, _, _, _, name string) (directory.User, bool) {
	return directory.User{SAMAccountName: name, SID: "S-1-5-" + name, Enabled: true}, true
}
func (loadDesktops) WebAccess(*store.Tx, string, string, string, netip.Addr) error  { return nil }
func (loadDesktops) Shows(*store.Tx, string, string, string, string) error          { return nil }
func (loadDesktops) Connection(context.Context, string, string, string, bool) error { return nil }
func (loadDesktops) Clipboard(*store.Tx, string, string, string) (bool, bool)       { return true, true }
func (loadAudit) Append(context.Context, *audit.Record) error                       { return nil }
func (d loadDesktops) Screen(_ context.Context, _, _, id string) (workspaces.Screen, error) {
	return workspaces.Screen{WorkspaceID: id, SID: "S-1-5-" + strings.TrimPrefix(id, "ws-"), Socket: d.socket}, nil
}

// loadPlan is what the process of the users is told.
type loadPlan struct {
	URL, Socket string
	Keys        int
	Tokens      [][2]string // path, token
}

const updateBytes = 4 + 12 + 16*16*4 // one rectangle of 16 x 16 pixels

// screenOf is a VNC server that answers each key with a small update.
func screenOf(c net.Conn) {
	defer c.Close()
	b := make([]byte, 12)
	fmt.Fprint(c, "RFB 003.008\n")
	_, _ = io.ReadFull(c, b)
	_, _ = c.Write([]byte{1, 1})
	_, _ = io.ReadFull(c, b[:1])
	_, _ = c.Write([]byte{0, 0, 0, 0})
	_, _ = io.ReadFull(c, b[:1])
	_, _ = c.Write(append([]byte{4, 0, 3, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4}, "desk"...))
	update := make([]byte, updateBytes)
	update[3], update[9], update[11] = 1, 16, 16
	for {
		if _, err := io.ReadFull(c, b[:8]); err != nil {
			return
		}
		if _, err := c.Write(update); err != nil {
			return
		}
	}
}

// TestRelayLoadUsers is the other process of TestRelayLoad: users and screens, so
// that the first holds nothing but the relay.
func TestRelayLoadUsers(t *testing.T) {
	var plan loadPlan
	if json.Unmarshal([]byte(os.Getenv("SEALDESK_RELAY_LOAD")), &plan) != nil {
		t.Skip("runs as a part of TestRelayLoad")
	}
	l, err := net.Listen("unix", plan.Socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go screenOf(c)
		}
	}()
	var mu sync.Mutex
	var all []time.Duration
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for _, pt := range plan.Tokens {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(plan.URL, "http")+pt[0], &websocket.DialOptions{Subprotocols: []string{protocol, tokenPrefix + pt[1]}, HTTPHeader: http.Header{"Origin": {plan.URL}}})
			if err != nil {
				t.Errorf("connect: %v", err)
				ready.Done()
				return
			}
			defer c.CloseNow()
			read := func(n int) {
				for n > 0 {
					kind, b, err := c.Read(t.Context())
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
					if kind == websocket.MessageBinary {
						n -= len(b)
					}
				}
			}
			send := func(b ...byte) { _ = c.Write(t.Context(), websocket.MessageBinary, b) }
			read(12)
			send([]byte("RFB 003.008\n")...)
			read(2)
			send(1)
			read(4)
			send(1)
			read(28)
			ready.Done()
			<-start
			var mine []time.Duration
			for range plan.Keys {
				began := time.Now()
				send(4, 1, 0, 0, 0, 0, 0, 'a')
				read(updateBytes)
				mine = append(mine, time.Since(began))
				time.Sleep(100 * time.Millisecond) // ten keys a second is a fast typist
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		}()
	}
	ready.Wait()
	fmt.Println("READY")
	_, _ = io.ReadFull(os.Stdin, make([]byte, 1))
	close(start)
	done.Wait()
	slices.Sort(all)
	if len(all) > 0 {
		fmt.Printf("RESULT %d %d %d\n", all[len(all)/2].Microseconds(), all[len(all)*95/100].Microseconds(), len(all))
	}
}

// TestRelayLoad runs many sessions through one relay at once and tells what each
// costs: bench/relay runs it with 100 and keeps the figures.
func TestRelayLoad(t *testing.T) {
	if testing.Short() || os.Getenv("SEALDESK_RELAY_LOAD") != "" {
		t.Skip("runs another process")
	}
	sessions, keys := 20, 5
	if os.Getenv("SEALDESK_BENCH") != "" {
		sessions, keys = 100, 100
	}
	ctx := t.Context()
	dir, err := os.MkdirTemp("", "rl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(ctx, store.Config{DataDir: dir, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	socket := filepath.Join(dir, "vnc.sock")
	c := New(Config{Store: st, Audit: loadAudit{}, Directories: loadDirectories{}, Desktops: loadDesktops{socket: socket}})
	if err := st.Start(ctx); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(c)
	defer srv.Close()
	plan := loadPlan{URL: srv.URL, Socket: socket, Keys: keys}
	now := time.Now()
	for i := range sessions {
		name := fmt.Sprintf("u%03d", i)
		u := &portalUser{Account: "111122223333", Region: "us-west-2", DirectoryID: "d-1234567890", UserName: name, SID: "S-1-5-" + name}
		_, sk := newToken()
		token, key := newToken()
		tk := &ticket{Expires: now.Add(5 * time.Minute), Addr: "127.0.0.1", Origin: srv.URL, User: u, WorkspaceID: "ws-" + name, SessionKey: sk, Path: name}
		err := st.Update(ctx, func(tx *store.Tx) error {
			if err := c.sessions.Put(tx, sk, &session{ID: name, User: u, Created: now, Expires: now.Add(time.Hour)}); err != nil {
				return err
			}
			return c.tickets.Put(tx, key, tk)
		})
		if err != nil {
			t.Fatal(err)
		}
		plan.Tokens = append(plan.Tokens, [2]string{"/desktops/" + name + "/ws", token})
	}
	told, _ := json.Marshal(plan)
	before := memory()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestRelayLoadUsers$", "-test.v")
	cmd.Env = append(os.Environ(), "SEALDESK_RELAY_LOAD="+string(told))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &watched{at: "READY", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.seen:
	case <-time.After(2 * time.Minute):
		t.Fatalf("the sessions were not all open in time:\n%s", out.String())
	}
	open := memory()
	if _, err := in.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("users: %v\n%s", err, out.String())
	}
	_, result, found := strings.Cut(out.String(), "RESULT ")
	var median, p95, n int
	if _, err := fmt.Sscan(result, &median, &p95, &n); !found || err != nil || n != sessions*keys {
		t.Fatalf("%d answers to %d keys:\n%s", n, sessions*keys, out.String())
	}
	each := (open - before) / int64(sessions)
	t.Logf("%d sessions at once, %d keys: key to update through the relay %.2f ms median, %.2f ms p95; %d KiB of memory a session", sessions, n, float64(median)/1000, float64(p95)/1000, each>>10)
	if each > 1<<20 {
		t.Errorf("a session takes %d bytes, want less than 1 MiB", each)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c.relays.mu.Lock()
		left := len(c.relays.m)
		c.relays.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d relays are left after their users have gone", left)
		}
	}
}

// memory is what the process holds for its work: heap and stacks, after a collection.
func memory() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// watched is an output that tells when a word has appeared.
type watched struct {
	mu   sync.Mutex
	b    bytes.Buffer
	at   string
	seen chan struct{}
	once sync.Once
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p)
	if strings.Contains(w.b.String(), w.at) {
		w.once.Do(func() { close(w.seen) })
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}
