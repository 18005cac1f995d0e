package front

import (
	"bytes"
	"net/http"
	"net/textproto"
)

// Bounds of a request that the front answers; larger ones are net/http's.
const (
	maxRequest = 64 << 10 // all of it
	maxHead    = 16 << 10
	maxFields  = 48
)

const requestLine = "POST / HTTP/1.1\r\n"

// verdict is what the bytes at hand are.
type verdict uint8

const (
	partial verdict = iota // the beginning of a request that the front may answer
	foreign                // net/http's
	whole                  // a request's head
)

// field is a header line, and what it means to the front.
type field struct {
	line  string // as sent, without its end
	key   string // canonical name
	value string // a part of line
	kind  fieldKind
	size  int // of a Content-Length
}

type fieldKind uint8

const (
	plain fieldKind = iota
	host
	contentLength
)

// head is the head of a request. A connection uses one for all its requests, which
// are much alike: what a line says anew is made anew, the rest stays.
type head struct {
	fields []field
	n      int // of fields that the present request has
	header http.Header
	values [maxFields]string
	host   string
	length int // of the body
}

// parse reads the head at the start of b and returns its size.
func (h *head) parse(b []byte) (size int, v verdict) {
	if len(b) < len(requestLine) {
		if string(b) == requestLine[:len(b)] {
			return 0, partial
		}
		return 0, foreign
	}
	if string(b[:len(requestLine)]) != requestLine {
		return 0, foreign
	}
	if h.header == nil {
		h.header = make(http.Header, 14) // fills a table of 16
	}
	clear(h.header)
	h.n, h.host, h.length = 0, "", -1
	for at := len(requestLine); ; {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			if len(b) > maxHead {
				return 0, foreign
			}
			return 0, partial
		}
		line := b[at : at+end]
		at += end + 1
		if at > maxHead || len(line) == 0 || line[len(line)-1] != '\r' {
			return 0, foreign
		}
		line = line[:len(line)-1]
		if len(line) == 0 {
			if h.host == "" || h.length < 0 {
				return 0, foreign
			}
			return at, whole
		}
		if !h.add(line) {
			return 0, foreign
		}
	}
}

// add takes in the next line. It returns false for what the front leaves to net/http.
func (h *head) add(line []byte) bool {
	if h.n == maxFields {
		return false
	}
	if h.n == len(h.fields) {
		h.fields = append(h.fields, field{})
	}
	f := &h.fields[h.n]
	if f.line != string(line) && !f.read(line) {
		f.line = ""
		return false
	}
	switch f.kind {
	case host:
		if h.host != "" {
			return false
		}
		h.host = f.value // which net/http keeps out of the header
	case contentLength:
		h.length = f.size
		fallthrough
	default:
		before := len(h.header)
		h.values[h.n] = f.value
		h.header[f.key] = h.values[h.n : h.n+1 : h.n+1]
		if len(h.header) == before {
			return false // a header twice
		}
	}
	h.n++
	return true
}

// read takes a line apart.
func (f *field) read(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return false
	}
	sameName := len(f.line) > colon && f.line[:colon+1] == string(line[:colon+1])
	for _, c := range line[:colon] {
		if !nameByte[c] {
			return false
		}
	}
	for _, c := range line[colon+1:] {
		if c < ' ' || c > '~' {
			return false
		}
	}
	f.line = string(line)
	if !sameName {
		f.key = textproto.CanonicalMIMEHeaderKey(f.line[:colon])
	}
	from, to := colon+1, len(f.line)
	for from < to && f.line[from] == ' ' {
		from++
	}
	for from < to && f.line[to-1] == ' ' {
		to--
	}
	f.value, f.kind, f.size = f.line[from:to], plain, 0
	switch f.key {
	case "Host":
		f.kind = host
		return plainHost(f.value)
	case "Content-Length":
		f.kind = contentLength
		return f.number()
	case "Connection":
		return f.value == "keep-alive" || f.value == "Keep-Alive"
	case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Te", "Pragma", "Http2-Settings", "Proxy-Connection":
		return false
	}
	return true
}

func (f *field) number() bool {
	if f.value == "" || len(f.value) > 6 {
		return false
	}
	for i := range len(f.value) {
		c := f.value[i]
		if c < '0' || c > '9' {
			return false
		}
		f.size = 10*f.size + int(c-'0')
	}
	return true
}

// plainHost accepts names, addresses and ports.
func plainHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return s != ""
}

// nameByte has the bytes of a header's name (a token, RFC 9110, section 5.6.2) that
// occur in practice.
var nameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	}
	return t
}()
