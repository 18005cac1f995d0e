// Package sigv4 verifies AWS Signature Version 4 on requests to this server:
// in the Authorization header and in presigned query strings, with and without
// a session token.
//
// Parse takes a request's claim apart without believing it; the caller looks
// up the secret of the access key it names; Verify then recomputes the
// signature and compares in constant time. A request that passes was signed, within
// the clock skew or the presigned lifetime, by one who knows the secret, and its
// method, path, query, signed headers and body are as they were then. The signed
// headers always include host and every X-Amz-* header of the request, so that
// neither X-Amz-Target nor a token can be added on the way.
//
// Source: "AWS Signature Version 4 for API requests" in the IAM User Guide (create
// a signed request; elements of a signed request; troubleshooting), whose error
// texts are used here.
package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Code is the kind of a failure, named as the Query services do.
type Code string

const (
	MissingAuthenticationToken Code = "MissingAuthenticationToken" // no signature at all
	IncompleteSignature        Code = "IncompleteSignature"        // not a well-formed signature
	InvalidClientTokenID       Code = "InvalidClientTokenId"       // unknown access key or token
	SignatureDoesNotMatch      Code = "SignatureDoesNotMatch"      // wrong
	SignatureExpired           Code = "SignatureExpired"           // signed too long ago, or in the future
	RequestExpired             Code = "RequestExpired"             // a presigned request past its lifetime
	ExpiredToken               Code = "ExpiredToken"               // the session is over
)

// An Error tells why a signature was not accepted. Package wire gives it the
// code of each protocol.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errors of the look-up between Parse and Verify, in AWS's words.
var (
	ErrUnknownAccessKey = &Error{InvalidClientTokenID, "The security token included in the request is invalid."}
	ErrExpiredToken     = &Error{ExpiredToken, "The security token included in the request is expired"}
	ErrMissing          = &Error{MissingAuthenticationToken, "Request is missing Authentication Token"}
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"

	// Skew is how far the signer's clock may be from ours.
	Skew = 5 * time.Minute
	// maxExpires is the longest lifetime of a presigned request.
	maxExpires = 7 * 24 * time.Hour
	// defaultExpires is the lifetime of a presigned request that names none.
	defaultExpires = 15 * time.Minute

	// UnsignedPayload in X-Amz-Content-Sha256 says that the body is not signed.
	UnsignedPayload = "UNSIGNED-PAYLOAD"
)

// Auth is the claim a request makes about its sender. Nothing in it is proven before
// Verify has returned nil.
type Auth struct {
	AccessKeyID   string
	Date          string // of the scope, 20060102
	Region        string
	Service       string
	SignedHeaders []string // lower case, ascending
	Time          time.Time
	Presigned     bool
	Expires       time.Duration // lifetime of a presigned request
	SessionToken  string        // "" for long-term keys
	PayloadHash   string        // X-Amz-Content-Sha256, "" when absent

	signature [sha256.Size]byte
	stamp     string // the time as sent
}

// Scope is the credential scope: date/region/service/aws4_request.
func (a *Auth) Scope() string {
	return a.Date + "/" + a.Region + "/" + a.Service + "/" + terminator
}

func incomplete(msg string) error { return &Error{IncompleteSignature, msg} }

// Parse reads the signature of a request. It fails with MissingAuthenticationToken when there is none, and
// with IncompleteSignature when it is not of the form.
func Parse(r *http.Request) (*Auth, error) {
	header := first(r.Header, "Authorization")
	presigned := strings.Contains(r.URL.RawQuery, "X-Amz-Signature=") || strings.Contains(r.URL.RawQuery, "X-Amz-Algorithm=")
	var a *Auth
	var err error
	switch {
	case header != "" && presigned:
		return nil, incomplete("Only one way to sign is allowed; the request has an Authorization header and X-Amz-Signature in its query string.")
	case len(r.Header["Authorization"]) > 1:
		return nil, incomplete("The request has more than one Authorization header.")
	case header != "":
		a, err = parseHeader(r, header)
	case presigned:
		a, err = parseQuery(r)
	case strings.Contains(r.URL.RawQuery, "AWSAccessKeyId="):
		return nil, incomplete("Signature Version 2 is not supported. Sign the request with Signature Version 4 (" + algorithm + ").")
	default:
		return nil, ErrMissing
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(a.SignedHeaders, "host") {
		return nil, &Error{SignatureDoesNotMatch, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	}
	for name := range r.Header {
		if len(name) > 6 && strings.EqualFold(name[:6], "x-amz-") && !a.signs(name) {
			return nil, &Error{SignatureDoesNotMatch, "'" + name + "' must be a 'SignedHeader' in the AWS Authorization."}
		}
	}
	if a.PayloadHash = first(r.Header, "X-Amz-Content-Sha256"); a.PayloadHash == "" && a.Presigned {
		a.PayloadHash = r.URL.Query().Get("X-Amz-Content-Sha256")
	}
	if strings.HasPrefix(a.PayloadHash, "STREAMING-") {
		return nil, incomplete("X-Amz-Content-Sha256 '" + clip(a.PayloadHash) + "' is not supported here: send the SHA-256 of the body, or " + UnsignedPayload + " where the operation allows it.")
	}
	return a, nil
}

// first is Header.Get for a name in canonical form, which it does not check.
func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// signs tells whether a header, in any case, is among the signed ones.
func (a *Auth) signs(name string) bool {
	return slices.ContainsFunc(a.SignedHeaders, func(s string) bool { return len(s) == len(name) && strings.EqualFold(s, name) })
}

func parseHeader(r *http.Request, header string) (*Auth, error) {
	alg, rest, _ := strings.Cut(header, " ")
	if alg != algorithm {
		if strings.HasPrefix(alg, "AWS4") || strings.HasPrefix(alg, "AWS ") || alg == "AWS" {
			return nil, incomplete("Unsupported AWS 'algorithm': '" + clip(alg) + "'. " + algorithm + " is expected.")
		}
		return nil, &Error{MissingAuthenticationToken, "Missing Authentication Token: the Authorization header is not of the form " + algorithm + " Credential=…, SignedHeaders=…, Signature=…"}
	}
	var credential, signed, signature string
	var seen [3]bool
	for part := range strings.SplitSeq(rest, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, incomplete("'" + clip(part) + "' not a valid key=value pair (missing equal-sign) in Authorization header.")
		}
		i := slices.Index([]string{"Credential", "SignedHeaders", "Signature"}, k)
		if i < 0 {
			continue
		}
		if seen[i] {
			return nil, incomplete("Authorization header has '" + k + "' more than once.")
		}
		seen[i] = true
		*[]*string{&credential, &signed, &signature}[i] = v
	}
	stamp := first(r.Header, "X-Amz-Date")
	date := first(r.Header, "Date")
	var missing []string
	for _, p := range []struct{ name, v string }{{"Credential", credential}, {"Signature", signature}, {"SignedHeaders", signed}} {
		if p.v == "" {
			missing = append(missing, "Authorization header requires '"+p.name+"' parameter.")
		}
	}
	if stamp == "" && date == "" {
		missing = append(missing, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if missing != nil {
		return nil, incomplete(strings.Join(missing, " "))
	}
	a := &Auth{SessionToken: first(r.Header, "X-Amz-Security-Token")}
	if stamp == "" {
		t, err := http.ParseTime(date)
		if err != nil {
			if t, err = time.Parse(timeFormat, date); err != nil {
				return nil, incomplete("Date must be in ISO-8601 'basic format' or of RFC 7231. Got '" + clip(date) + "'.")
			}
		}
		stamp = t.UTC().Format(timeFormat)
	}
	return a, a.fill(credential, signed, signature, stamp)
}

func parseQuery(r *http.Request) (*Auth, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, incomplete("The query string is malformed: " + err.Error())
	}
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		switch {
		case q.Get(name) == "":
			return nil, incomplete("AWS query-string parameters must include '" + name + "'. Re-examine the query-string parameters.")
		case len(q[name]) > 1:
			return nil, incomplete("The query string has '" + name + "' more than once.")
		}
	}
	if alg := q.Get("X-Amz-Algorithm"); alg != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '" + clip(alg) + "'. " + algorithm + " is expected.")
	}
	a := &Auth{Presigned: true, Expires: defaultExpires, SessionToken: q.Get("X-Amz-Security-Token")}
	if e := q.Get("X-Amz-Expires"); e != "" {
		n, err := strconv.Atoi(e)
		if err != nil || n < 1 || n > int(maxExpires/time.Second) {
			return nil, incomplete("X-Amz-Expires must be a number of seconds from 1 to 604800, got '" + clip(e) + "'.")
		}
		a.Expires = time.Duration(n) * time.Second
	}
	return a, a.fill(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date"))
}

func (a *Auth) fill(credential, signed, signature, stamp string) error {
	var parts [5]string
	n := 0
	for part := range strings.SplitSeq(credential, "/") {
		if n < len(parts) {
			parts[n] = part
		}
		n++
	}
	if n != len(parts) {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '" + clip(credential) + "'.")
	}
	a.AccessKeyID, a.Date, a.Region, a.Service = parts[0], parts[1], parts[2], parts[3]
	if parts[4] != terminator {
		return &Error{SignatureDoesNotMatch, "Credential should be scoped with a valid terminator: '" + terminator + "', not '" + clip(parts[4]) + "'."}
	}
	for i, name := range []string{"access key", "date", "region", "service"} {
		if parts[i] == "" {
			return incomplete("Credential has no " + name + ".")
		}
	}
	t, err := time.Parse(timeFormat, stamp)
	if err != nil {
		return incomplete("Date must be in ISO-8601 'basic format'. Got '" + clip(stamp) + "'. See http://en.wikipedia.org/wiki/ISO_8601.")
	}
	a.Time, a.stamp = t, stamp
	if a.Date != stamp[:8] {
		return &Error{SignatureDoesNotMatch, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" + clip(a.Date) + "' != '" + stamp[:8] + "', from '" + stamp + "'."}
	}
	var digits [2 * sha256.Size]byte
	copy(digits[:], signature)
	if _, err := hex.Decode(a.signature[:], digits[:]); err != nil || len(signature) != len(digits) {
		return incomplete("Signature must be 64 hexadecimal digits.")
	}
	a.SignedHeaders = make([]string, 0, strings.Count(signed, ";")+1)
	for h := range strings.SplitSeq(signed, ";") {
		if !validName(h) {
			return incomplete("SignedHeaders must be lower-case header names separated by semicolons, got '" + clip(signed) + "'.")
		}
		if len(a.SignedHeaders) > 0 && a.SignedHeaders[len(a.SignedHeaders)-1] >= h {
			return incomplete("SignedHeaders must be in ascending order without repetition, got '" + clip(signed) + "'.")
		}
		a.SignedHeaders = append(a.SignedHeaders, h)
	}
	return nil
}

// validName tells whether h can be the lower-case name of a header.
func validName(h string) bool {
	for i := range len(h) {
		switch c := h[i]; {
		case c >= 'A' && c <= 'Z', c == ' ', c == '\t', c == '\r', c == '\n', c == ':', c == ',':
			return false
		case c >= utf8.RuneSelf:
			return h == strings.ToLower(h) && !strings.ContainsAny(h, " \t\r\n:,")
		}
	}
	return h != ""
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:120], "") + "…"
	}
	return s
}
