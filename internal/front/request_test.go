package front

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// request makes bytes from a readable form.
func request(head, body string) []byte {
	return []byte(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body)
}

const ordinary = "POST / HTTP/1.1\nHost: localhost:8443\nUser-Agent: x\nContent-Length: 2\nX-Amz-Target: TrentService.ListKeys\nauthorization:  AWS4-HMAC-SHA256 a=b  \nX-Empty:"

// notOurs are changes that make the ordinary request one for net/http.
var notOurs = map[string]func() []byte{
	"method":             func() []byte { return request(strings.Replace(ordinary, "POST", "PUT", 1), "{}") },
	"path":               func() []byte { return request(strings.Replace(ordinary, "/ ", "/x ", 1), "{}") },
	"query":              func() []byte { return request(strings.Replace(ordinary, "/ ", "/?a=b ", 1), "{}") },
	"absolute form":      func() []byte { return request(strings.Replace(ordinary, "/ ", "http://other/ ", 1), "{}") },
	"HTTP/1.0":           func() []byte { return request(strings.Replace(ordinary, "1.1", "1.0", 1), "{}") },
	"two spaces":         func() []byte { return request(strings.Replace(ordinary, "POST ", "POST  ", 1), "{}") },
	"no host":            func() []byte { return request(strings.Replace(ordinary, "Host: localhost:8443\n", "", 1), "{}") },
	"empty host":         func() []byte { return request(strings.Replace(ordinary, "localhost:8443", "", 1), "{}") },
	"two hosts":          func() []byte { return request(ordinary+"\nHost: other", "{}") },
	"bad host":           func() []byte { return request(strings.Replace(ordinary, "localhost", "a b", 1), "{}") },
	"no length":          func() []byte { return request(strings.Replace(ordinary, "Content-Length: 2\n", "", 1), "") },
	"two lengths":        func() []byte { return request(ordinary+"\nContent-Length: 2", "{}") },
	"two other lengths":  func() []byte { return request(ordinary+"\nContent-Length: 3", "{}") },
	"signed length":      func() []byte { return request(strings.Replace(ordinary, ": 2", ": +2", 1), "{}") },
	"length list":        func() []byte { return request(strings.Replace(ordinary, ": 2", ": 2, 2", 1), "{}") },
	"hexadecimal length": func() []byte { return request(strings.Replace(ordinary, ": 2", ": 0x2", 1), "{}") },
	"negative length":    func() []byte { return request(strings.Replace(ordinary, ": 2", ": -2", 1), "{}") },
	"chunked": func() []byte {
		return request(strings.Replace(ordinary, "Content-Length: 2", "Transfer-Encoding: chunked", 1), "2\r\n{}\r\n0\r\n\r\n")
	},
	"chunked and length":  func() []byte { return request(ordinary+"\nTransfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n") },
	"odd encoding":        func() []byte { return request(ordinary+"\nTransfer-Encoding: xchunked", "{}") },
	"expect":              func() []byte { return request(ordinary+"\nExpect: 100-continue", "{}") },
	"upgrade":             func() []byte { return request(ordinary+"\nConnection: Upgrade\nUpgrade: websocket", "{}") },
	"close":               func() []byte { return request(ordinary+"\nConnection: close", "{}") },
	"pragma":              func() []byte { return request(ordinary+"\nPragma: no-cache", "{}") },
	"header twice":        func() []byte { return request(ordinary+"\nx-amz-target: TrentService.ListKeys", "{}") },
	"space before colon":  func() []byte { return request(ordinary+"\nX-A : b", "{}") },
	"length, odd name":    func() []byte { return request(ordinary+"\nContent-Length : 3", "{}") },
	"folded":              func() []byte { return request(ordinary+"\nX-A: b\n c", "{}") },
	"folded first":        func() []byte { return request("POST / HTTP/1.1\n Host: x\nHost: y\nContent-Length: 2", "{}") },
	"no colon":            func() []byte { return request(ordinary+"\nX-A", "{}") },
	"no name":             func() []byte { return request(ordinary+"\n: b", "{}") },
	"bare line feeds":     func() []byte { return bytes.ReplaceAll(request(ordinary, "{}"), []byte("\r\n"), []byte("\n")) },
	"one bare line feed":  func() []byte { return bytes.Replace(request(ordinary, "{}"), []byte("x\r\n"), []byte("x\n"), 1) },
	"carriage return":     func() []byte { return request(ordinary+"\nX-A: b\rContent-Length: 9", "{}") },
	"zero byte":           func() []byte { return request(ordinary+"\nX-A: \x00", "{}") },
	"tab":                 func() []byte { return request(ordinary+"\nX-A:\tb", "{}") },
	"UTF-8":               func() []byte { return request(ordinary+"\nX-A: ü", "{}") },
	"Latin-1":             func() []byte { return request(ordinary+"\nX-A: \xfc", "{}") },
	"odd name":            func() []byte { return request(ordinary+"\nX\xc3\xbc: a", "{}") },
	"line end first":      func() []byte { return request("\n"+ordinary, "{}") },
	"many headers":        func() []byte { return request(ordinary+strings.Repeat("\nX-A: b", maxFields), "{}") },
	"a long header":       func() []byte { return request(ordinary+"\nX-A: "+strings.Repeat("b", maxHead), "{}") },
	"too long a header":   func() []byte { return request(ordinary+"\nX-A: "+strings.Repeat("b", 80<<10), "{}") },
	"TLS":                 func() []byte { return []byte("\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03") },
	"HTTP/2":              func() []byte { return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") },
	"nothing but newline": func() []byte { return []byte("\r\n\r\n") },
}

func TestForeign(t *testing.T) {
	var h head
	for name, b := range notOurs {
		if _, v := h.parse(b()); v != foreign {
			t.Errorf("%s: parse = %d, want foreign", name, v)
		}
		b := request(ordinary, "{}") // what was left half read has no part in what follows
		if size, v := h.parse(b); v != whole || size != len(b)-2 {
			t.Fatalf("an ordinary request after %q: parse = %d, %d, want %d, whole", name, size, v, len(b)-2)
		}
		same(t, &h, b, len(b)-2)
	}
}

// same compares what h read at the start of b with what net/http reads.
func same(t *testing.T, h *head, b []byte, size int) {
	t.Helper()
	rd := bytes.NewReader(b)
	in := bufio.NewReaderSize(rd, 16)
	r, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("%q: net/http refuses what the front answers: %v", b, err)
	}
	if r.Host != h.host || h.host == "" {
		t.Fatalf("%q: host %q, the front has %q", b, r.Host, h.host)
	}
	if !reflect.DeepEqual(r.Header, h.header) {
		t.Fatalf("%q: header\n%q, the front has\n%q", b, r.Header, h.header)
	}
	if r.Method != http.MethodPost || r.RequestURI != "/" || r.URL.String() != "/" || r.Proto != "HTTP/1.1" || r.Close || r.TransferEncoding != nil || r.Trailer != nil {
		t.Fatalf("%q: net/http reads %+v", b, r)
	}
	if r.ContentLength != int64(h.length) {
		t.Fatalf("%q: length %d, the front has %d", b, r.ContentLength, h.length)
	}
	if body, err := io.ReadAll(r.Body); len(b) >= size+h.length && (err != nil || !bytes.Equal(body, b[size:size+h.length])) {
		t.Fatalf("%q: body %q, %v, the front has %q", b, body, err, b[size:size+h.length])
	}
	if rest := rd.Len() + in.Buffered(); len(b) >= size+h.length && rest != len(b)-size-h.length {
		t.Fatalf("%q: net/http leaves %d bytes, the front %d", b, rest, len(b)-size-h.length)
	}
}

// FuzzRequest: whatever the front answers, net/http reads alike; whatever came before
// on the connection, and in however many pieces it comes.
func FuzzRequest(f *testing.F) {
	for _, b := range notOurs {
		f.Add(request(ordinary, "{}"), b())
		f.Add(b(), request(ordinary, "{}more"))
	}
	f.Add(request(ordinary, "{}"), fmt.Appendf(nil, decrypt, 4, 1, 2))
	f.Add(fmt.Appendf(nil, decrypt, 4, 1, 2), fmt.Appendf(nil, decrypt, 0, 1, 3))
	f.Add(request(ordinary, "{}"), request(strings.Replace(ordinary, "User-Agent: x", "User-Agent: x\nConnection: keep-alive", 1), "{}"))
	f.Fuzz(func(t *testing.T, before, b []byte) {
		var h head
		h.parse(before)
		size, v := h.parse(b)
		if v != whole {
			var fresh head
			if size2, v2 := fresh.parse(b); v2 != v || size2 != size {
				t.Fatalf("%q: %d after %q, and %d otherwise", b, v, before, v2)
			}
			return
		}
		same(t, &h, b, size)
		for _, n := range []int{1, len(requestLine), size / 2, size - 1} {
			if _, v := h.parse(b[:min(n, size-1)]); v != partial {
				t.Fatalf("%q: the first %d bytes are %d, want partial", b, n, v)
			}
		}
		if size2, v := h.parse(b); v != whole || size2 != size {
			t.Fatalf("%q: read again, %d, %d", b, v, size2)
		}
		same(t, &h, b, size)
	})
}
