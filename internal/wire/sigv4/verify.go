package sigv4

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Body says what is known of a request's body.
type Body struct {
	// Hash is the SHA-256 of the body as received.
	Hash [sha256.Size]byte
	// AllowUnsigned accepts X-Amz-Content-Sha256: UNSIGNED-PAYLOAD. Set it
	// only for operations that carry a checksum of their own (ebs
	// PutSnapshotBlock).
	AllowUnsigned bool
}

// BodyOf is the Body of a request that was read whole.
func BodyOf(b []byte) Body { return Body{Hash: sha256.Sum256(b)} }

// A Verifier recomputes signatures. It keeps derived signing keys, which are good for
// one day, region and service, bounded in number and bound to the secret they came from: a changed secret
// derives anew. The zero value is not usable, call NewVerifier.
type Verifier struct {
	salt [16]byte // so that no plain hash of a secret is kept
	mu   sync.RWMutex
	keys map[keyID]*signingKey
}

// signingKey signs; it keeps HMACs that have taken in the key.
type signingKey struct{ macs sync.Pool }

func newSigningKey(key [sha256.Size]byte) *signingKey {
	return &signingKey{sync.Pool{New: func() any { return hmac.New(sha256.New, key[:]) }}}
}

// sign appends the signature of message to b.
func (k *signingKey) sign(b, message []byte) []byte {
	m := k.macs.Get().(hash.Hash)
	m.Reset()
	m.Write(message)
	b = m.Sum(b)
	k.macs.Put(m)
	return b
}

type keyID struct {
	accessKey, date, region, service string
	secret                           [sha256.Size]byte
}

// maxKeys bounds the signing keys kept.
const maxKeys = 4096

// NewVerifier returns a Verifier without keys.
func NewVerifier() *Verifier {
	v := &Verifier{keys: map[keyID]*signingKey{}}
	rand.Read(v.salt[:])
	return v
}

func (v *Verifier) signingKey(a *Auth, secret []byte) *signingKey {
	id := keyID{a.AccessKeyID, a.Date, a.Region, a.Service, [sha256.Size]byte{}}
	var stack [128]byte
	tagged := append(append(stack[:0], v.salt[:]...), secret...)
	id.secret = sha256.Sum256(tagged)
	clear(tagged)
	v.mu.RLock()
	key, ok := v.keys[id]
	v.mu.RUnlock()
	if ok {
		return key
	}
	key = newSigningKey(deriveKey(secret, a.Date, a.Region, a.Service))
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.keys) >= maxKeys {
		n := 0
		for k := range v.keys { // in no order, so old and new go alike
			delete(v.keys, k)
			if n++; n >= maxKeys/4 {
				break
			}
		}
	}
	// The strings point into the request; keep copies.
	id.accessKey, id.date = strings.Clone(id.accessKey), strings.Clone(id.date)
	id.region, id.service = strings.Clone(id.region), strings.Clone(id.service)
	v.keys[id] = key
	return key
}

func deriveKey(secret []byte, date, region, service string) (key [sha256.Size]byte) {
	first := append([]byte("AWS4"), secret...)
	k := sum(first, date)
	clear(first)
	for _, s := range []string{region, service, terminator} {
		k = sum(k, s)
	}
	copy(key[:], k)
	clear(k)
	return key
}

func sum(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

// Verify checks that the request was signed with the secret and is as it was
// signed, and that now is within its time. Its errors are *Error.
//
// The signature is checked before the time, so that only a holder of the secret learns
// of our clock.
func (v *Verifier) Verify(a *Auth, r *http.Request, body Body, secret []byte, now time.Time) error {
	var digits [2 * sha256.Size]byte
	hex.Encode(digits[:], body.Hash[:])
	payloads := [2][]byte{digits[:]}
	switch {
	case a.PayloadHash == UnsignedPayload && !body.AllowUnsigned:
		return &Error{SignatureDoesNotMatch, "X-Amz-Content-Sha256 is " + UnsignedPayload + ", and this operation must have its body signed."}
	case a.PayloadHash == UnsignedPayload:
		payloads[0] = []byte(UnsignedPayload)
	case body.AllowUnsigned && a.PayloadHash == "":
		payloads[1] = []byte(UnsignedPayload) // some signers do not send the header
	}
	key := v.signingKey(a, secret)
	path := requestPath(r)
	// Some signers leave the path as it is instead of removing empty and dot
	// segments.
	paths := [2]string{cleanPath(path)}
	if paths[0] != path {
		paths[1] = path
	}
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	ok := false
	for _, payload := range payloads {
		for _, path := range paths {
			if payload == nil || path == "" || ok {
				continue
			}
			// The canonical request, then the string to sign, then its signature.
			b := canonicalRequest((*scratch)[:0], a, r, path, payload)
			n := len(b)
			b = a.appendStringToSign(b, b)
			m := len(b)
			b = key.sign(b, b[n:])
			ok = hmac.Equal(b[m:], a.signature[:])
			*scratch = b
		}
	}
	if !ok {
		canonical := canonicalRequest(nil, a, r, paths[0], payloads[0])
		redacted := canonicalRequest(nil, a.withoutToken(), r, paths[0], payloads[0])
		return &Error{SignatureDoesNotMatch, "The request signature we calculated does not match the signature you provided. " +
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\n" +
			"The Canonical String for this request should have been\n'" + clipLong(string(redacted)) + "'\n\n" +
			"The String-to-Sign should have been\n'" + string(a.appendStringToSign(nil, canonical)) + "'\n"}
	}
	return a.checkTime(now)
}

func (a *Auth) checkTime(now time.Time) error {
	now = now.UTC()
	if latest := now.Add(Skew); a.Time.After(latest) {
		return &Error{SignatureExpired, "Signature not yet current: " + a.stamp + " is still later than " + latest.Format(timeFormat) +
			" (" + now.Format(timeFormat) + " + 5 min.)"}
	}
	if a.Presigned {
		if end := a.Time.Add(a.Expires); now.After(end) {
			return &Error{RequestExpired, "Request has expired: it was signed at " + a.stamp + " for " + strconv.Itoa(int(a.Expires/time.Second)) +
				" seconds, and it is now " + now.Format(timeFormat)}
		}
		return nil
	}
	if earliest := now.Add(-Skew); a.Time.Before(earliest) {
		return &Error{SignatureExpired, "Signature expired: " + a.stamp + " is now earlier than " + earliest.Format(timeFormat) +
			" (" + now.Format(timeFormat) + " - 5 min.)"}
	}
	return nil
}

// scratches are buffers for canonical requests.
var scratches = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

func (a *Auth) appendStringToSign(b, canonical []byte) []byte {
	h := sha256.Sum256(canonical)
	b = append(b, algorithm+"\n"...)
	b = append(b, a.stamp...)
	b = append(b, '\n')
	b = append(b, a.Date...)
	b = append(b, '/')
	b = append(b, a.Region...)
	b = append(b, '/')
	b = append(b, a.Service...)
	b = append(b, "/"+terminator+"\n"...)
	return hex.AppendEncode(b, h[:])
}

// withoutToken is the claim with its token struck out, for messages.
func (a *Auth) withoutToken() *Auth {
	c := *a
	if c.SessionToken != "" {
		c.SessionToken = "\x00"
	}
	return &c
}

func (a *Auth) redacting() bool { return a.SessionToken == "\x00" }

// canonicalRequest appends method, path, query, headers, their names and the
// hash of the body, as the specification orders them.
func canonicalRequest(b []byte, a *Auth, r *http.Request, path string, payload []byte) []byte {
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendEscaped(b, path, true)
	b = append(b, '\n')
	b = appendQuery(b, a, r.URL.RawQuery)
	b = append(b, '\n')
	for _, name := range a.SignedHeaders {
		b = append(b, name...)
		b = append(b, ':')
		b = appendHeader(b, a, r, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range a.SignedHeaders {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return append(b, payload...)
}

// requestPath is the path as it was sent, still encoded.
func requestPath(r *http.Request) string {
	path := r.URL.EscapedPath()
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ = strings.Cut(r.RequestURI, "?")
	}
	if path == "" {
		path = "/"
	}
	return path
}

// cleanPath removes empty and dot segments (RFC 3986, section 5.2.4).
func cleanPath(path string) string {
	if !strings.Contains(path, "//") && !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segs := strings.Split(path, "/")
	for _, s := range segs {
		switch s {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, s)
		}
	}
	clean := "/" + strings.Join(out, "/")
	if last := segs[len(segs)-1]; len(out) > 0 && (last == "" || last == "." || last == "..") {
		clean += "/"
	}
	return clean
}

// appendEscaped writes s with all but the unreserved characters of RFC 3986
// encoded, and the slash unless it is kept. The path is encoded once more over the
// encoding it has, as every service but S3 wants it.
func appendEscaped(b []byte, s string, slash bool) []byte {
	const upper = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~', slash && c == '/':
			b = append(b, c)
		default:
			b = append(b, '%', upper[c>>4], upper[c&15])
		}
	}
	return b
}

func appendQuery(b []byte, a *Auth, raw string) []byte {
	if raw == "" {
		return b
	}
	type pair struct{ k, v string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		k, v = reescape(k), reescape(v)
		if a.Presigned && k == "X-Amz-Signature" {
			continue
		}
		if a.redacting() && k == "X-Amz-Security-Token" {
			v = "***"
		}
		pairs = append(pairs, pair{k, v})
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		if c := strings.Compare(x.k, y.k); c != 0 {
			return c
		}
		return strings.Compare(x.v, y.v)
	})
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.k...)
		b = append(b, '=')
		b = append(b, p.v...)
	}
	return b
}

// reescape brings the encoding of a query part to its canonical form. What
// cannot be decoded is taken literally.
func reescape(s string) string {
	if d, err := url.QueryUnescape(s); err == nil {
		s = d
	}
	return string(appendEscaped(nil, s, false))
}

// appendHeader writes a header's values trimmed, runs of spaces as one, joined by
// commas. Go keeps some headers outside of the header map.
func appendHeader(b []byte, a *Auth, r *http.Request, name string) []byte {
	if a.redacting() && name == "x-amz-security-token" {
		return append(b, "***"...)
	}
	vs := valuesOf(r.Header, name)
	if vs == nil {
		switch name {
		case "host":
			return appendTrimmed(b, r.Host)
		case "content-length":
			if r.ContentLength >= 0 {
				return strconv.AppendInt(b, r.ContentLength, 10)
			}
		case "transfer-encoding":
			vs = r.TransferEncoding
		}
	}
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTrimmed(b, v)
	}
	return b
}

// valuesOf finds a header by its lower-case name without making a string.
func valuesOf(h http.Header, name string) []string {
	var key [64]byte
	if len(name) > len(key) {
		return h[http.CanonicalHeaderKey(name)]
	}
	upper := true
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z':
			if upper {
				c -= 'a' - 'A'
			}
		case c >= '0' && c <= '9', c == '-':
		default:
			return h[http.CanonicalHeaderKey(name)]
		}
		key[i], upper = c, c == '-'
	}
	return h[string(key[:len(name)])]
}

func appendTrimmed(b []byte, s string) []byte {
	s = strings.Trim(s, " \t")
	space := false
	for i := range len(s) {
		if s[i] == ' ' {
			if space {
				continue
			}
			space = true
		} else {
			space = false
		}
		b = append(b, s[i])
	}
	return b
}

func clipLong(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 4096 {
		s = strings.ToValidUTF8(s[:4096], "") + "…"
	}
	return s
}
