package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseMessage(t *testing.T) {
	for line, ok := range map[string]bool{
		`{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}},"capabilities":["oob"]}}`: true,
		`{"return":{},"id":3}`: true,
		`{"return":[],"id":4}`: true,
		`{"error":{"class":"CommandNotFound","desc":"no"},"id":3}`:                                                                 true,
		`{"timestamp":{"seconds":1700000000,"microseconds":5},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}`: true,
		`{}`:                        false,
		`{"return":{},"event":"X"}`: false,
		`{"event":5}`:               false,
		`[]`:                        false,
		`nonsense`:                  false,
		``:                          false,
		`{"return":{},"id":-1}`:     false,
	} {
		if m, err := parseMessage([]byte(line)); (err == nil) != ok {
			t.Errorf("parseMessage(%s) = %+v, %v; want ok=%v", line, m, err, ok)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, s := range []string{`{"QMP":{}}`, `{"return":{},"id":3}`, `{"error":{"class":"x","desc":"y"}}`, `{"event":"STOP","timestamp":{"seconds":-1}}`, `{"event":`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMessage(line)
		if err != nil {
			return
		}
		if m.when().Location() != time.UTC {
			t.Errorf("when(%q) is not UTC", line)
		}
		if m.Event == "" && m.QMP == nil && m.Return == nil && m.Error == nil {
			t.Errorf("parseMessage(%q) = nothing, want an error", line)
		}
	})
}

func FuzzParseAgent(f *testing.F) {
	f.Add([]byte(`{"v":1,"state":"desktop-ready","boot":"x","uptime_ms":5,"detail":"d"}`))
	f.Add([]byte(`{"v":1,"detail":"\u0000\u001b[31m"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAgent(line)
		if err != nil {
			return
		}
		if a.V != 1 || len(a.Detail) > 1024 || strings.ContainsFunc(a.Detail, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("parseAgent(%q) = %+v, want version 1 and a short printable detail", line, a)
		}
	})
}

func FuzzDecodePPM(f *testing.F) {
	f.Add([]byte("P6\n2 1\n255\nabcdef"))
	f.Add([]byte("P6\n99999 99999\n255\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := decodePPM(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && img.Bounds().Dx()*img.Bounds().Dy()*3 > len(b) {
			t.Errorf("decodePPM of %d bytes gives %v pixels", len(b), img.Bounds())
		}
	})
}

// fakeQEMU speaks just enough QMP on a socket.
func fakeQEMU(t *testing.T, serve func(net.Conn)) net.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "q")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err == nil {
			serve(c)
			c.Close()
		}
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMonitor(t *testing.T) {
	events := make(chan string, 1)
	conn := fakeQEMU(t, func(c net.Conn) {
		_, _ = c.Write([]byte("{\"QMP\":{}}\r\n"))
		r := bufio.NewScanner(c)
		for r.Scan() {
			var req struct {
				Execute string `json:"execute"`
				ID      uint64 `json:"id"`
			}
			if json.Unmarshal(r.Bytes(), &req) != nil {
				return
			}
			id, _ := json.Marshal(req.ID)
			switch req.Execute {
			case "boom":
				_, _ = c.Write([]byte(`{"id":` + string(id) + `,"error":{"class":"GenericError","desc":"no such thing"}}` + "\n"))
			case "hang":
				_, _ = c.Write([]byte(`{"event":"STOP"}` + "\n"))
			case "die":
				return
			default:
				_, _ = c.Write([]byte(`{"id":` + string(id) + `,"return":{"status":"running"}}` + "\n"))
			}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	q, err := newMonitor(ctx, conn, func(m message) { events <- m.Event })
	if err != nil {
		t.Fatal(err)
	}
	var st struct{ Status string }
	if err := q.query(ctx, "query-status", &st); err != nil || st.Status != "running" {
		t.Errorf("query-status = %+v, %v; want running", st, err)
	}
	var refused *qmpError
	if _, err := q.do(ctx, "boom", nil); !errors.As(err, &refused) || refused.Desc != "no such thing" {
		t.Errorf("refused command = %v, want QEMU's reason", err)
	}
	short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	if _, err := q.do(short, "hang", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unanswered command = %v, want the deadline", err)
	}
	if ev := <-events; ev != "STOP" {
		t.Errorf("event = %q, want STOP", ev)
	}
	if _, err := q.do(ctx, "die", nil); !errors.Is(err, errMonitorClosed) {
		t.Errorf("command on a dying monitor = %v, want %v", err, errMonitorClosed)
	}
}

func TestProbeCache(t *testing.T) {
	dir := t.TempDir()
	kernel, cache := filepath.Join(dir, "k"), filepath.Join(dir, "c")
	if err := os.WriteFile(kernel, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, why := Probe(context.Background(), "/bin/false", "", "", cache); ok || why != "no kernel to probe with" {
		t.Errorf("Probe without a kernel = %v, %q", ok, why)
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("no /dev/kvm here: the rest of the probe cannot be reached")
	}
	if ok, why := Probe(context.Background(), "/bin/false", kernel, kernel, cache); ok {
		t.Errorf("Probe with a QEMU that does nothing = true (%s), want false", why)
	}
	if ok, why := Probe(context.Background(), "/bin/false", kernel, kernel, cache); ok || !strings.Contains(why, "known from before") {
		t.Errorf("second Probe = %v, %q; want the cached result", ok, why)
	}
	if err := os.WriteFile(kernel, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, why := Probe(context.Background(), "/bin/false", kernel, kernel, cache); strings.Contains(why, "known from before") {
		t.Errorf("Probe of another kernel = %q, want a new result", why)
	}
}

func TestProbeFiles(t *testing.T) {
	dir := t.TempDir()
	image := func() (string, error) { return filepath.Join(dir, "desktop.raw"), nil }
	for _, f := range []string{"desktop-1.raw", "desktop-1.kernel"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("desktop-1.raw", filepath.Join(dir, "desktop.raw")); err != nil {
		t.Fatal(err)
	}
	if k, i := probeFiles(image); k != "" || i != "" {
		t.Errorf("probeFiles without an initrd = %q, %q; want nothing", k, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "desktop-1.initrd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if k, i := probeFiles(image); filepath.Base(k) != "desktop-1.kernel" || filepath.Base(i) != "desktop-1.initrd" {
		t.Errorf("probeFiles = %q, %q; want the two beside the image", k, i)
	}
	if k, _ := probeFiles(func() (string, error) { return "", os.ErrNotExist }); k != "" {
		t.Errorf("probeFiles without an image = %q, want nothing", k)
	}
	if k, _ := probeFiles(nil); k != "" {
		t.Errorf("probeFiles(nil) = %q, want nothing", k)
	}
}
