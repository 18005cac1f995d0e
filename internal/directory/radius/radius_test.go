package radius

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"

	"github.com/sealdesk/sealdesk/internal/secret"
)

const shared = "a-shared-secret"

// serve runs the library's server with a handler; interop has FreeRADIUS at the other end.
func serve(t *testing.T, h radius.HandlerFunc) Settings {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &radius.PacketServer{SecretSource: radius.StaticSecretSource([]byte(shared)), Handler: h}
	go func() { _ = s.Serve(conn) }()
	t.Cleanup(func() { conn.Close() })
	return Settings{Servers: []string{"127.0.0.1"}, Port: conn.LocalAddr().(*net.UDPAddr).Port, Timeout: 300 * time.Millisecond, Protocol: PAP, Secret: secret.New([]byte(shared))}
}

func answer(w radius.ResponseWriter, r *radius.Request, code radius.Code, edit ...func(*radius.Packet)) {
	p := r.Response(code)
	for _, f := range edit {
		f(p)
	}
	_ = w.Write(p)
}

func TestAnswers(t *testing.T) {
	ctx := context.Background()
	pap := serve(t, func(w radius.ResponseWriter, r *radius.Request) {
		mac := append([]byte(nil), rfc2869.MessageAuthenticator_Get(r.Packet)...)
		if want, err := authenticate(r.Packet); err != nil || string(mac) != string(want) && rfc2865.UserName_GetString(r.Packet) != "stranger" {
			t.Errorf("Message-Authenticator %x, want %x (%v)", mac, want, err)
		}
		switch user, code := rfc2865.UserName_GetString(r.Packet), rfc2865.UserPassword_GetString(r.Packet); {
		case user == "jane" && code == "123456":
			answer(w, r, radius.CodeAccessAccept)
		case user == "asked":
			answer(w, r, radius.CodeAccessChallenge)
		case user == "forged": // a Message-Authenticator that is not made with the secret
			answer(w, r, radius.CodeAccessAccept, func(p *radius.Packet) { _ = rfc2869.MessageAuthenticator_Set(p, make([]byte, 16)) })
		default:
			answer(w, r, radius.CodeAccessReject)
		}
	})
	for _, x := range []struct {
		user, code string
		want       error
	}{
		{"jane", "123456", nil}, {"jane", "123457", ErrRejected}, {"jane", "", ErrRejected}, {"asked", "123456", ErrRejected}, {"forged", "123456", ErrNoAnswer},
		{strings.Repeat("j", 300), "123456", ErrRejected}, {"jane", strings.Repeat("1", 129), ErrRejected},
	} {
		if err := Check(ctx, pap, x.user, x.code); !errors.Is(err, x.want) || x.want == nil && err != nil {
			t.Errorf("Check(%.10q, %.10q) = %v, want %v", x.user, x.code, err, x.want)
		}
	}
	other := pap
	other.Secret = secret.New([]byte("another-secret"))
	err := Check(ctx, other, "stranger", "123456")
	if !errors.Is(err, ErrNoAnswer) {
		t.Errorf("with another secret: %v, want %v", err, ErrNoAnswer)
	}
	for _, s := range []string{shared, "another-secret", "123456"} {
		if strings.Contains(fmt.Sprint(err, other), s) {
			t.Errorf("%q shows in %v", s, err)
		}
	}
	// An acceptance that does not prove the code is none with MS-CHAPv2.
	yes := serve(t, func(w radius.ResponseWriter, r *radius.Request) { answer(w, r, radius.CodeAccessAccept) })
	yes.Protocol = MSCHAPv2
	if err := Check(ctx, yes, "jane", "123456"); !errors.Is(err, ErrRejected) {
		t.Errorf("an unproved acceptance: %v, want %v", err, ErrRejected)
	}
	yes.Protocol = "EAP"
	if err := Check(ctx, yes, "jane", "123456"); err == nil || errors.Is(err, ErrRejected) {
		t.Errorf("an unknown protocol: %v", err)
	}
}

// A server that is silent is asked again with the same datagram, then the next one is asked.
func TestRetries(t *testing.T) {
	ctx := context.Background()
	var mu sync.Mutex
	seen := map[string]int{}
	silent := serve(t, func(_ radius.ResponseWriter, r *radius.Request) {})
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			seen[from.String()+string(b[:n])]++
			mu.Unlock()
		}
	}()
	s := silent
	s.Port, s.Retries = conn.LocalAddr().(*net.UDPAddr).Port, 2
	if err := Check(ctx, s, "jane", "123456"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a silent server: %v, want %v", err, ErrNoAnswer)
	}
	mu.Lock()
	for _, n := range seen {
		if len(seen) != 1 || n < 2 {
			t.Errorf("%d different datagrams, one of them %d times, want one, about 3 times", len(seen), n)
		}
	}
	mu.Unlock()
	// The same port on two addresses: nobody listens at the first.
	good := serve(t, func(w radius.ResponseWriter, r *radius.Request) { answer(w, r, radius.CodeAccessAccept) })
	good.Servers = []string{"127.0.0.2", "127.0.0.1"}
	if err := Check(ctx, good, "jane", "123456"); err != nil {
		t.Errorf("the second server: %v", err)
	}
}

// No bytes that are not made with the secret and the code are an acceptance.
func FuzzAnswer(f *testing.F) {
	for _, code := range []radius.Code{radius.CodeAccessAccept, radius.CodeAccessReject} {
		p := radius.New(code, []byte(shared))
		_ = rfc2869.MessageAuthenticator_Set(p, make([]byte, 16))
		b, err := p.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	request := radius.New(radius.CodeAccessRequest, []byte(shared))
	accepted, err := question(request, MSCHAPv2, "jane", "123456")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := radius.Parse(b, []byte(shared))
		if err != nil {
			return
		}
		if err := judge(request, p, accepted); err == nil {
			t.Errorf("%x was taken for an acceptance", b)
		}
	})
}
