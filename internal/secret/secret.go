// Package secret holds key material in memory without letting it leak.
//
// A Bytes prints as "secret" through every fmt verb, slog and encoding/json,
// compares in constant time, and has one owner who calls Wipe. A Bytes that was
// never filled (or was wiped) refuses to be used: Expose panics, because working
// with a zero key is a broken invariant and never a recoverable condition.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"runtime"

	"golang.org/x/sys/unix"
)

// Bytes is key material. The zero value is empty and unusable.
// A Bytes is not safe for concurrent Wipe and Expose; the owner serialises them.
type Bytes struct{ b []byte }

// New copies b into a Bytes and wipes b. The caller must not use b afterwards.
func New(b []byte) *Bytes {
	s := &Bytes{b: make([]byte, len(b))}
	copy(s.b, b)
	Zero(b)
	return s
}

// Random returns n bytes from the operating system's random source.
func Random(n int) *Bytes {
	s := &Bytes{b: make([]byte, n)}
	_, _ = rand.Read(s.b) // crypto/rand.Read never returns an error (Go 1.24)
	return s
}

// Expose returns the bytes themselves, valid until Wipe. It panics on an empty
// or wiped secret.
func (s *Bytes) Expose() []byte {
	if s == nil || len(s.b) == 0 {
		panic("secret: use of an empty or wiped secret")
	}
	return s.b
}

// Lock keeps the bytes out of swap as far as the limits allow (RLIMIT_MEMLOCK). It
// locks whole pages and Wipe leaves them locked: for the few secrets that live as
// long as the process.
func (s *Bytes) Lock() { _ = unix.Mlock(s.Expose()) }

// Len is the number of bytes held, 0 after Wipe.
func (s *Bytes) Len() int {
	if s == nil {
		return 0
	}
	return len(s.b)
}

// Clone returns a copy with an owner of its own.
func (s *Bytes) Clone() *Bytes {
	c := &Bytes{b: make([]byte, len(s.Expose()))}
	copy(c.b, s.b)
	return c
}

// Equal compares in constant time; only the lengths may be learned.
func (s *Bytes) Equal(o *Bytes) bool {
	return subtle.ConstantTimeCompare(s.Expose(), o.Expose()) == 1
}

// Wipe overwrites the bytes with zeros and empties s. It may be called twice.
func (s *Bytes) Wipe() {
	if s == nil {
		return
	}
	Zero(s.b)
	s.b = nil
}

// Zero overwrites b with zeros in a way the compiler keeps.
func Zero(b []byte) {
	clear(b)
	runtime.KeepAlive(&b)
}

const printed = "secret"

// String returns "secret".
func (s *Bytes) String() string { return printed }

// GoString returns "secret".
func (s *Bytes) GoString() string { return printed }

// Format prints "secret" for every verb.
func (s *Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(printed)) }

// MarshalText yields "secret", so that JSON and text encoders never see the bytes.
func (s *Bytes) MarshalText() ([]byte, error) { return []byte(printed), nil }

// LogValue yields "secret" to slog.
func (s *Bytes) LogValue() slog.Value { return slog.StringValue(printed) }
