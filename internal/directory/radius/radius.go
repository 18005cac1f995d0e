// Package radius asks RADIUS servers (RFC 2865) whether a user's second factor, a
// code from a token or a telephone, is right.
//
// # Promises
//
//   - A code is sent to one server at a time, in the order given; the next one is
//     asked only when one does not answer in time. Retransmissions are the same
//     datagram from the same port, so that a server takes them for what they are and
//     a code that is good once is not used up by them (RFC 5080, section 2.2.2).
//   - Only an answer made with the shared secret counts; others are dropped. Every
//     request carries a Message-Authenticator (RFC 2869), and one in an answer is
//     checked. With MS-CHAPv2 an acceptance must also prove that the server knows
//     the code (RFC 2759, section 5).
//   - The secret and the code appear in no error.
//
// An Access-Challenge counts as a rejection: there is one code and no dialogue. Of
// an answer without a Message-Authenticator, RADIUS itself proves little against
// somebody on the path (CVE-2024-3596): keep the way to the servers private, or
// use MS-CHAPv2.
package radius

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2759"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/vendors/microsoft"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// The protocols a code can be sent with, as Directory Service names them.
const (
	PAP      = "PAP"
	CHAP     = "CHAP"
	MSCHAPv1 = "MS-CHAPv1"
	MSCHAPv2 = "MS-CHAPv2"
)

// Protocols are all of them.
var Protocols = []string{PAP, CHAP, MSCHAPv1, MSCHAPv2}

// What Check answers.
var (
	// ErrRejected: a server said no.
	ErrRejected = errors.New("the RADIUS server rejected the code")
	// ErrNoAnswer: no server gave a valid answer in time. A wrong shared secret looks like this.
	ErrNoAnswer = errors.New("no RADIUS server answered")
)

// Settings say whom to ask, and how.
type Settings struct {
	Servers  []string // names or addresses
	Port     int
	Timeout  time.Duration // of one try at one server
	Retries  int           // tries after the first
	Protocol string
	Secret   *secret.Bytes
}

// Check asks whether the code is the user's: nil, ErrRejected or ErrNoAnswer.
func Check(ctx context.Context, s Settings, userName, code string) error {
	if len(userName) > 253 || len(code) > 128 || code == "" {
		return ErrRejected
	}
	failed := []error{ErrNoAnswer}
	for _, server := range s.Servers {
		err := ask(ctx, s, server, userName, code)
		if err == nil || errors.Is(err, ErrRejected) {
			return err
		}
		failed = append(failed, fmt.Errorf("%s: %w", server, err))
	}
	return errors.Join(failed...)
}

// ask puts the question to one server.
func ask(ctx context.Context, s Settings, server, userName, code string) error {
	request := radius.New(radius.CodeAccessRequest, s.Secret.Expose())
	accepted, err := question(request, s.Protocol, userName, code)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout*time.Duration(1+s.Retries))
	defer cancel()
	client := radius.Client{Retry: s.Timeout}
	if s.Retries == 0 {
		client.Retry = 0
	}
	answer, err := client.Exchange(ctx, request, net.JoinHostPort(server, strconv.Itoa(s.Port)))
	if err != nil {
		return err
	}
	return judge(request, answer, accepted)
}

// judge tells what an answer made with the secret says: nil is yes.
func judge(request, answer *radius.Packet, accepted func(*radius.Packet) bool) error {
	if mac, err := rfc2869.MessageAuthenticator_Lookup(answer); err == nil {
		got := slices.Clone(mac)
		answer.Authenticator = request.Authenticator
		want, err := authenticate(answer)
		if err != nil || !hmac.Equal(got, want) {
			return errors.New("the answer's Message-Authenticator is wrong")
		}
	}
	if answer.Code != radius.CodeAccessAccept || !accepted(answer) {
		return ErrRejected
	}
	return nil
}

// question fills in the request; accepted is what an acceptance has to satisfy besides.
func question(p *radius.Packet, protocol, userName, code string) (accepted func(*radius.Packet) bool, err error) {
	var failed []error
	set := func(err error) { failed = append(failed, err) }
	set(rfc2869.MessageAuthenticator_Set(p, make([]byte, md5.Size))) // first, as RFC 9765 and others advise
	set(rfc2865.UserName_SetString(p, userName))
	set(rfc2865.NASIdentifier_SetString(p, "sealdesk"))
	accepted = func(*radius.Packet) bool { return true }
	var challenge [16]byte
	_, _ = rand.Read(challenge[:])
	switch protocol {
	case PAP:
		set(rfc2865.UserPassword_SetString(p, code))
	case CHAP: // RFC 2865, section 2.2
		sum := md5.Sum(slices.Concat([]byte{p.Identifier}, []byte(code), challenge[:]))
		set(rfc2865.CHAPChallenge_Set(p, challenge[:]))
		set(rfc2865.CHAPPassword_Set(p, append([]byte{p.Identifier}, sum[:]...)))
	case MSCHAPv1: // RFC 2548, section 2.1.3
		text, err := rfc2759.ToUTF16([]byte(code))
		if err != nil {
			return nil, errors.New("the code is not text")
		}
		response := make([]byte, 50)
		response[1] = 1 // the NT response is the one to use; there is no LM response
		copy(response[26:], rfc2759.ChallengeResponse(challenge[:8], rfc2759.NTPasswordHash(text)))
		set(microsoft.MSCHAPChallenge_Set(p, challenge[:8]))
		set(microsoft.MSCHAPResponse_Set(p, response))
	case MSCHAPv2: // RFC 2548, section 2.3.2
		var peer [16]byte
		_, _ = rand.Read(peer[:])
		nt, err := rfc2759.GenerateNTResponse(challenge[:], peer[:], []byte(userName), []byte(code))
		if err != nil {
			return nil, errors.New("the code is not text")
		}
		response := make([]byte, 50)
		response[0] = p.Identifier
		copy(response[2:], peer[:])
		copy(response[26:], nt)
		set(microsoft.MSCHAPChallenge_Set(p, challenge[:]))
		set(microsoft.MSCHAP2Response_Set(p, response))
		proof, err := rfc2759.GenerateAuthenticatorResponse(challenge[:], peer[:], nt, []byte(userName), []byte(code))
		if err != nil {
			return nil, errors.New("the code is not text")
		}
		accepted = func(a *radius.Packet) bool {
			got := microsoft.MSCHAP2Success_Get(a)
			return len(got) > len(proof) && subtle.ConstantTimeCompare(got[1:1+len(proof)], []byte(proof)) == 1
		}
	default:
		return nil, fmt.Errorf("protocol %q is not known", protocol)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, errors.New("the request cannot be made: a value is too long")
	}
	mac, err := authenticate(p)
	if err != nil {
		return nil, err
	}
	return accepted, rfc2869.MessageAuthenticator_Set(p, mac)
}

// authenticate is the Message-Authenticator of a packet: RFC 2869, section 5.14. It
// leaves the attribute zero.
func authenticate(p *radius.Packet) ([]byte, error) {
	if err := rfc2869.MessageAuthenticator_Set(p, make([]byte, md5.Size)); err != nil {
		return nil, err
	}
	b, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	h := hmac.New(md5.New, p.Secret)
	h.Write(b)
	return h.Sum(nil), nil
}
