package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// echo answers with what it was asked, in the manner that X-Do names.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch r.Header.Get("X-Do") {
	case "":
		w.Header().Set("Content-Type", "text/x-echo")
	case "nothing":
		return
	case "none":
		w.Header().Set("Content-Length", "3")
		w.WriteHeader(http.StatusNoContent)
		_, err := w.Write([]byte("abc"))
		if !errors.Is(err, http.ErrBodyNotAllowed) {
			panic(err)
		}
		return
	case "headers":
		w.Header().Set("X-Split", "a\r\nContent-Length: 7")
		w.Header()["X-Two"] = []string{"1", "2"}
		w.Header()["bad name"] = []string{"x"}
		w.Header().Set("Date", "yesterday")
		w.WriteHeader(418)
		w.WriteHeader(500)
		w.Header().Set("X-Late", "1")
	case "odd":
		w.WriteHeader(799)
		return
	case "less":
		w.Header().Set("Content-Length", "1000000")
	case "more":
		w.Header().Set("Content-Length", "1")
	case "hang up":
		w.Header().Set("Connection", "close")
	case "panic":
		panic(http.ErrAbortHandler)
	case "large":
		w.Header().Set("Content-Length", strconv.Itoa(3<<20))
		_, _ = w.Write(bytes.Repeat([]byte("x"), 3<<20))
		return
	}
	fmt.Fprintf(w, "%s %s %s %q %d %v %v %v\n", r.Method, r.RequestURI, r.Host, body, r.ContentLength, r.TransferEncoding, err, r.TLS != nil)
	_ = r.Header.Write(w)
}

// started is a front with a handler and what it tells about itself.
type started struct {
	*Server
	addr  string
	fast  atomic.Int64 // requests that the front answered itself
	ended chan error
}

func start(t *testing.T, srv *http.Server, secure *tls.Config) *started {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &started{addr: l.Addr().String(), ended: make(chan error, 1)}
	h := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(*response); ok {
			s.fast.Add(1)
		}
		h.ServeHTTP(w, r)
	})
	srv.ErrorLog = log.New(io.Discard, "", 0)
	s.Server = New(srv)
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	go func() { s.ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// exchangeRaw writes the pieces, then ends its side, and reads all replies.
func exchangeRaw(t *testing.T, addr string, pieces ...[]byte) string {
	t.Helper()
	c := dial(t, addr)
	for i, p := range pieces {
		if i > 0 {
			time.Sleep(100 * time.Microsecond)
		}
		if _, err := c.Write(p); err != nil {
			break
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	in := bufio.NewReader(c)
	var out strings.Builder
	for {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Log(err)
			}
			return out.String()
		}
		if d, err := http.ParseTime(r.Header.Get("Date")); err == nil && time.Since(d) < time.Minute {
			r.Header.Set("Date", "now")
		}
		body, err := io.ReadAll(r.Body)
		if err != nil { // in pieces or at once, it is not a reply
			return out.String()
		}
		r.Header.Del("Content-Length") // large replies are chunked by net/http
		if len(body) > 1000 {
			body = fmt.Appendf(nil, "%d bytes", len(body))
		}
		fmt.Fprintln(&out, r.Status, r.Close, string(body))
		_ = r.Header.Write(&out)
	}
}

// TestLikeNetHTTP: the same bytes get the same replies from the front as from
// net/http alone.
func TestLikeNetHTTP(t *testing.T) {
	reference := httptest.NewServer(http.HandlerFunc(echo))
	defer reference.Close()
	reference.Config.ErrorLog = log.New(io.Discard, "", 0)
	s := start(t, &http.Server{Handler: http.HandlerFunc(echo)}, nil)
	plain := request(ordinary, "{}")
	cases := map[string][]byte{
		"ordinary":           plain,
		"two":                append(request(ordinary, "{}"), plain...),
		"two, then a GET":    append(append(request(ordinary, "{}"), plain...), "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"...),
		"line end between":   append(request(ordinary, "{}\r\n"), plain...),
		"close after two":    append(append(request(ordinary, "{}"), plain...), request(ordinary+"\nConnection: close", "{}")...),
		"cut in the body":    request(ordinary, "{")[:len(plain)-1],
		"cut in the head":    plain[:40],
		"no body":            request(strings.Replace(ordinary, ": 2", ": 0", 1), ""),
		"a body of 60 KB":    request(strings.Replace(ordinary, ": 2", ": 60000", 1), strings.Repeat("b", 60000)),
		"a body of 100 KB":   request(strings.Replace(ordinary, ": 2", ": 100000", 1), strings.Repeat("b", 100000)),
		"after a close":      append(request(ordinary+"\nX-Do: hang up", "{}"), plain...),
		"half a second one":  append(request(ordinary, "{}"), plain[:50]...),
		"smuggled in a body": append(request(strings.Replace(ordinary, ": 2", ": 44", 1), "POST / HTTP/1.1\r\nHost: evil\r\nContent-Length"), plain...),
	}
	for _, do := range []string{"nothing", "none", "headers", "odd", "less", "more", "panic", "large"} {
		cases["X-Do: "+do] = append(request(ordinary+"\nX-Do: "+do, "{}"), plain...)
	}
	for name, b := range notOurs {
		cases[name] = append(b(), plain...)
	}
	try := func(t *testing.T, b []byte) {
		want := exchangeRaw(t, reference.Listener.Addr().String(), b)
		bytewise := make([][]byte, 0, len(b))
		for i := range min(len(b), 300) {
			bytewise = append(bytewise, b[i:i+1])
		}
		if len(b) > 300 {
			bytewise = append(bytewise, b[300:])
		}
		headAndBody := [][]byte{b}
		if i := bytes.Index(b, []byte("\r\n\r\n")); i > 0 {
			headAndBody = [][]byte{b[:i+4], b[i+4:]}
		}
		for how, pieces := range map[string][][]byte{"whole": {b}, "head and body": headAndBody, "bytewise": bytewise} {
			if how == "bytewise" && testing.Short() {
				continue
			}
			got := exchangeRaw(t, s.addr, pieces...)
			for i := 0; got == "" && want != "" && i < 5; i++ {
				got = exchangeRaw(t, s.addr, pieces...) // a refusal is lost when the client still sends
			}
			if got != want {
				t.Errorf("%s:\n%s\nwant\n%s", how, got, want)
			}
		}
	}
	t.Run("cases", func(t *testing.T) {
		for name, b := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				try(t, b)
			})
		}
	})
	if s.fast.Load() == 0 {
		t.Error("the front answered nothing itself")
	}
}

func TestKeepAlive(t *testing.T) {
	s := start(t, &http.Server{Handler: http.HandlerFunc(echo)}, nil)
	var dials atomic.Int64
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}}
	for i := range 100 {
		body := strings.Repeat("b", i*100)
		r, err := client.Post("http://"+s.addr+"/", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(got), fmt.Sprintf("%q %d ", body, len(body))) {
			t.Fatalf("call %d: %q, %v", i, got, err)
		}
	}
	if dials.Load() != 1 || s.fast.Load() != 100 {
		t.Errorf("%d connections, of 100 calls the front answered %d", dials.Load(), s.fast.Load())
	}
}

func TestTLS(t *testing.T) {
	reference := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	reference.StartTLS() // for its certificate
	defer reference.Close()
	s := start(t, &http.Server{Handler: http.HandlerFunc(echo)}, &tls.Config{Certificates: reference.TLS.Certificates})
	client := reference.Client()
	for i, call := range []func() (*http.Response, error){
		func() (*http.Response, error) {
			return client.Post("https://"+s.addr+"/", "text/plain", strings.NewReader("secure"))
		},
		func() (*http.Response, error) { return client.Get("https://" + s.addr + "/x") },
	} {
		r, err := call()
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if line, _, _ := strings.Cut(string(got), "\n"); !strings.HasSuffix(line, " true") {
			t.Errorf("call %d: the handler saw %q, want a request over TLS", i, line)
		}
	}
	if s.fast.Load() != 1 {
		t.Errorf("the front answered %d calls, want the POST", s.fast.Load())
	}
	if got := exchangeRaw(t, s.addr, request(ordinary, "{}")); !strings.HasPrefix(got, "400 ") {
		t.Errorf("HTTP on the TLS port is answered with %q", got)
	}
}

// ends waits for the server to close the connection.
func ends(c net.Conn, within time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, net.ErrClosed) || err != nil && !strings.Contains(err.Error(), "timeout") {
		return nil
	}
	return err
}

func TestSlowClients(t *testing.T) {
	t.Parallel()
	s := start(t, &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: time.Second, IdleTimeout: time.Second}, nil)
	ordinary, large := request(ordinary, "{}"), request(ordinary+"\nX-Do: large", "{}")
	for name, sent := range map[string][]byte{
		"nothing sent": nil, "a byte": ordinary[:1], "half a head": ordinary[:60], "no body": ordinary[:len(ordinary)-2], "idle": ordinary,
		"a request begun": append(ordinary, ordinary[:1]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s.addr)
			_, _ = c.Write(sent)
			from := time.Now()
			if err := ends(c, 5*time.Second); err != nil {
				t.Errorf("the connection is still open after 5 s: %v", err)
			}
			if since := time.Since(from); since < time.Second {
				t.Errorf("closed after %v already", since)
			}
		})
	}
	t.Run("does not read", func(t *testing.T) {
		t.Parallel()
		s := start(t, &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: time.Second}, nil)
		c := dial(t, s.addr)
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		for range 8 {
			_, _ = c.Write(large)
		}
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.conns) > 0 {
			t.Error("a client that takes nothing of its reply is still served after 5 s")
		}
	})
	t.Run("slow and steady", func(t *testing.T) {
		t.Parallel()
		c := dial(t, s.addr)
		in := bufio.NewReader(c)
		for range 4 {
			_, _ = c.Write(ordinary)
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(900 * time.Millisecond)
		}
	})
}

func TestClientLeaves(t *testing.T) {
	t.Parallel()
	began, ended := make(chan bool, 1), make(chan error, 1)
	s := start(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		select {
		case <-r.Context().Done():
			ended <- nil
		case <-time.After(5 * time.Second):
			ended <- errors.New("the context still lives after 5 s")
		}
	})}, nil)
	for name, leave := range map[string]func(c *net.TCPConn){
		"closes": func(c *net.TCPConn) { c.Close() }, "resets": func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, "ends its side": func(c *net.TCPConn) { _ = c.CloseWrite() },
	} {
		c := dial(t, s.addr)
		_, _ = c.Write(request(ordinary, "{}"))
		<-began
		time.Sleep(1200 * time.Millisecond)
		select {
		case <-ended:
			t.Fatal("the context has ended while the client waits")
		default:
		}
		leave(c.(*net.TCPConn))
		if err := <-ended; err != nil {
			t.Errorf("the client %s: %v", name, err)
		}
	}
}

// TestContextEnds: what a handler started must not go on as if it were still at work.
func TestContextEnds(t *testing.T) {
	kept := make(chan *http.Request, 1)
	s := start(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Context().Err() != nil {
			t.Error("the context has ended before the handler")
		}
		kept <- r
	})}, nil)
	c := dial(t, s.addr)
	_, _ = c.Write(request(ordinary, "{}"))
	r := <-kept
	select {
	case <-r.Context().Done():
	case <-time.After(5 * time.Second):
		t.Error("the context lives on")
	}
}

func TestShutdown(t *testing.T) {
	began, end := make(chan bool), make(chan bool)
	s := start(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wait") != "" {
			began <- true
			<-end
		}
		echo(w, r)
	})}, nil)
	idle := dial(t, s.addr)
	_, _ = idle.Write(request(ordinary, "{}"))
	if _, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil {
		t.Fatal(err)
	}
	fresh := dial(t, s.addr)
	busy, get := dial(t, s.addr), dial(t, s.addr)
	_, _ = busy.Write(request(ordinary+"\nX-Wait: 1", "{}"))
	<-began
	_, _ = get.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX-Wait: 1\r\n\r\n"))
	<-began
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown with calls at work = %v, want the context's error", err)
	}
	if err := <-s.ended; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve = %v", err)
	}
	for name, c := range map[string]net.Conn{"idle": idle, "fresh": fresh} {
		if err := ends(c, 2*time.Second); err != nil {
			t.Errorf("the %s connection is still open: %v", name, err)
		}
	}
	if c, err := net.Dial("tcp", s.addr); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	select {
	case err := <-done:
		t.Errorf("Shutdown = %v while calls are at work", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	for name, c := range map[string]net.Conn{"busy": busy, "handed over": get} {
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || r.StatusCode != 200 || !r.Close {
			t.Errorf("the %s call was answered %+v, %v, want 200 and Connection: close", name, r, err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

func TestShutdownOfNothing(t *testing.T) {
	s := start(t, &http.Server{Handler: http.HandlerFunc(echo)}, nil)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPanic(t *testing.T) {
	s := start(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) { panic("oops") })}, nil)
	for range 3 {
		c := dial(t, s.addr)
		_, _ = c.Write(request(ordinary, "{}"))
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
			t.Errorf("%q, %v, want the connection closed", b, err)
		}
	}
}

// TestWiped: what a call brought and took away is not there in the next one.
func TestWiped(t *testing.T) {
	const secret = "\xfe"
	var s *started
	s = start(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		for c := range s.conns { // one, and this is its goroutine
			for name, b := range map[string][]byte{"request": c.buf[c.n:], "reply": c.w.body[:cap(c.w.body)], "reply as sent": c.w.head[:cap(c.w.head)]} {
				if bytes.Contains(b, []byte(secret)) {
					t.Errorf("the last %s is still in memory", name)
				}
				if len(b) > 64<<10 {
					t.Errorf("the buffer of the %s keeps %d bytes", name, len(b))
				}
			}
		}
		s.mu.Unlock()
		b, _ := io.ReadAll(r.Body)
		for range b { // in many pieces, so that the buffer grows
			_, _ = w.Write(bytes.Repeat([]byte(secret), 100))
		}
	})}, nil)
	c := dial(t, s.addr)
	in := bufio.NewReader(c)
	for _, n := range []int{40, 1, 40000, 400, 1} {
		_, _ = c.Write(request(strings.Replace(ordinary, ": 2", ": "+strconv.Itoa(n), 1), strings.Repeat(secret, n)))
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.Copy(io.Discard, r.Body); got != int64(100*n) || err != nil {
			t.Fatalf("%d bytes, %v", got, err)
		}
	}
}
