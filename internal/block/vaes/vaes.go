// Package vaes seals and opens the volume engine's blocks with AES-256-GCM (NIST SP 800-38D) in the processor's wide AES and carry-less
// multiplication instructions (VAES, VPCLMULQDQ, AVX-512), four AES blocks at a time. The standard library uses the narrow ones,
// which take twice as long for 4 KiB.
//
// Only the one shape that fills a volume is done here: BlockSize bytes under AADSize bytes of associated data. Anything else, and
// everything where the processor lacks the instructions or FIPS 140-3 mode is on, is left to the standard library; the bytes are the same.
package vaes

import (
	"crypto/cipher"
	"crypto/fips140"
	"crypto/subtle"
	"errors"
	"runtime"
	"unsafe"
)

// The shape of what is sealed here.
const (
	BlockSize = 4096
	AADSize   = 32
)

const (
	keySize   = 32
	nonceSize = 12
	tagSize   = 16
	rounds    = 14
	powers    = 32 // blocks that are multiplied before one reduction
)

var errOpen = errors.New("vaes: message authentication failed")

// schedule is read by the assembly: its layout is known there.
type schedule struct {
	keys [rounds + 1][16]byte
	hash [powers][16]byte // powers 32 to 1 of the hash key, each byte-reversed and multiplied by x (RFC 8452, appendix A)
}

type aead struct {
	schedule
	std cipher.AEAD
}

// New wraps std, the standard library's AES-GCM under the same key, which has 32 bytes. It returns std itself where it has nothing
// better. What New returns can be used from several goroutines at once.
func New(key []byte, std cipher.AEAD) cipher.AEAD {
	if !supported || fips140.Enabled() || len(key) != keySize || std.NonceSize() != nonceSize || std.Overhead() != tagSize {
		return std
	}
	a := &aead{std: std}
	expandKey((*[keySize]byte)(key), &a.keys)
	var h [16]byte
	encrypt(&a.schedule, &h)
	h = timesX(h)
	a.hash[powers-1] = h
	for i := powers - 2; i >= 0; i-- {
		dot(&a.hash[i], &a.hash[i+1], &h)
	}
	clear(h[:])
	return a
}

// timesX reverses the bytes of a GHASH element and multiplies it by x in POLYVAL's field (RFC 8452, mulX_POLYVAL).
func timesX(h [16]byte) (r [16]byte) {
	carry := byte(0)
	for i := range r {
		b := h[15-i]
		r[i] = b<<1 | carry
		carry = b >> 7
	}
	r[0] ^= carry
	r[15] ^= 0xc2 & -carry
	return r
}

func (a *aead) NonceSize() int { return nonceSize }
func (a *aead) Overhead() int  { return tagSize }

// Unwrap returns the AEAD of the standard library.
func (a *aead) Unwrap() cipher.AEAD { return a.std }

// Wipe overwrites the keys here, not those of the wrapped AEAD. It must not be used after that.
func (a *aead) Wipe() {
	clear(unsafe.Slice((*byte)(unsafe.Pointer(&a.schedule)), unsafe.Sizeof(a.schedule)))
	runtime.KeepAlive(a)
}

// Seal implements cipher.AEAD.
func (a *aead) Seal(dst, nonce, plaintext, aad []byte) []byte {
	n := len(dst)
	if len(plaintext) != BlockSize || len(aad) != AADSize || len(nonce) != nonceSize || cap(dst)-n < BlockSize+tagSize || overlaps(dst[n:n+BlockSize+tagSize], plaintext) {
		return a.std.Seal(dst, nonce, plaintext, aad)
	}
	out := dst[n : n+BlockSize+tagSize]
	seal(&a.schedule, (*[nonceSize]byte)(nonce), (*[AADSize]byte)(aad), (*[BlockSize]byte)(out), (*[BlockSize]byte)(plaintext), (*[tagSize]byte)(out[BlockSize:]))
	return dst[:n+len(out)]
}

// Open implements cipher.AEAD.
func (a *aead) Open(dst, nonce, ciphertext, aad []byte) ([]byte, error) {
	n := len(dst)
	if len(ciphertext) != BlockSize+tagSize || len(aad) != AADSize || len(nonce) != nonceSize || cap(dst)-n < BlockSize || overlaps(dst[n:n+BlockSize], ciphertext) {
		return a.std.Open(dst, nonce, ciphertext, aad)
	}
	out := dst[n : n+BlockSize]
	var tag [tagSize]byte
	open(&a.schedule, (*[nonceSize]byte)(nonce), (*[AADSize]byte)(aad), (*[BlockSize]byte)(out), (*[BlockSize]byte)(ciphertext), &tag)
	if subtle.ConstantTimeCompare(tag[:], ciphertext[BlockSize:]) != 1 {
		clear(out)
		return nil, errOpen
	}
	return dst[:n+BlockSize], nil
}

// overlaps says that the two share memory otherwise than from the same first byte on, which is not for the assembly.
func overlaps(x, y []byte) bool {
	a, b := uintptr(unsafe.Pointer(&x[0])), uintptr(unsafe.Pointer(&y[0]))
	return a != b && a < b+uintptr(len(y)) && b < a+uintptr(len(x))
}
