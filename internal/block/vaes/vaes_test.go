package vaes

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"testing"
)

func standard(t testing.TB, key []byte) cipher.AEAD {
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// same seals and opens with both, also in place, and wants the same bytes.
func same(t *testing.T, key, nonce, aad, plain []byte) {
	t.Helper()
	std := standard(t, key)
	fast := New(key, std)
	want := std.Seal(nil, nonce, plain, aad)
	in := bytes.Clone(plain)
	buf := make([]byte, 3, 3+len(plain)+tagSize)
	if got := fast.Seal(buf, nonce, in, aad); !bytes.Equal(got[3:], want) || !bytes.Equal(got[:3], buf) || !bytes.Equal(in, plain) {
		t.Fatalf("sealed %d bytes: otherwise than the standard library", len(plain))
	}
	place := append(make([]byte, 0, len(plain)+tagSize), plain...)
	if got := fast.Seal(place[:0], nonce, place, aad); !bytes.Equal(got, want) {
		t.Fatal("sealed in place: otherwise than the standard library")
	}
	if got, err := fast.Open(make([]byte, 0, len(plain)), nonce, want, aad); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("opened: %v, equal %v", err, bytes.Equal(got, plain))
	}
	place = bytes.Clone(want)
	if got, err := fast.Open(place[:0], nonce, place, aad); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("opened in place: %v, equal %v", err, bytes.Equal(got, plain))
	}
}

func TestSameAsStandardLibrary(t *testing.T) {
	for range 200 {
		same(t, random(32), random(12), random(AADSize), random(BlockSize))
	}
	for _, fill := range []byte{0, 0xff, 0x80, 1} {
		f := func(n int) []byte { return bytes.Repeat([]byte{fill}, n) }
		same(t, f(32), f(12), f(AADSize), f(BlockSize))
	}
	for _, n := range []int{0, 1, 16, 4000, BlockSize - 1, BlockSize + 1, 2 * BlockSize} {
		same(t, random(32), random(12), random(AADSize), random(n))
	}
	for _, n := range []int{0, 1, AADSize - 1, AADSize + 1, 96} {
		same(t, random(32), random(12), random(n), random(BlockSize))
	}
}

func FuzzSameAsStandardLibrary(f *testing.F) {
	f.Add(random(32), random(12), random(AADSize), random(64))
	f.Fuzz(func(t *testing.T, key, nonce, aad, some []byte) {
		k, n, a, p := make([]byte, 32), make([]byte, 12), make([]byte, AADSize), make([]byte, BlockSize)
		copy(k, key)
		copy(n, nonce)
		copy(a, aad)
		for i := range p {
			if len(some) > 0 {
				p[i] = some[i%len(some)]
			}
		}
		same(t, k, n, a, p)
	})
}

// TestEveryBitCounts: no bit of ciphertext, tag, nonce or associated data can be flipped, and nothing is returned then.
func TestEveryBitCounts(t *testing.T) {
	key, nonce, aad := random(32), random(12), random(AADSize)
	a := New(key, standard(t, key))
	c := a.Seal(nil, nonce, random(BlockSize), aad)
	for name, b := range map[string][]byte{"ciphertext and tag": c, "nonce": nonce, "associated data": aad} {
		for i := range 8 * len(b) {
			b[i/8] ^= 1 << (i % 8)
			dst := make([]byte, BlockSize)
			if got, err := a.Open(dst[:0], nonce, c, aad); err == nil || got != nil {
				t.Fatalf("%s with bit %d flipped was opened", name, i)
			}
			if !bytes.Equal(dst, make([]byte, BlockSize)) {
				t.Fatalf("%s with bit %d flipped: plaintext was left behind", name, i)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
	if _, err := a.Open(nil, nonce, c, aad); err != nil {
		t.Fatal(err)
	}
}

// TestNeighbours: nothing outside of the result is written.
func TestNeighbours(t *testing.T) {
	key, nonce, aad := random(32), random(12), random(AADSize)
	a := New(key, standard(t, key))
	arena := bytes.Repeat([]byte{0xa5}, 3*BlockSize)
	for at := range 130 {
		at += BlockSize / 2
		sealed := a.Seal(arena[at:at:at+BlockSize+tagSize], nonce, random(BlockSize), aad)
		if _, err := a.Open(arena[at:at:at+BlockSize], nonce, sealed, aad); err != nil {
			t.Fatal(err)
		}
		clear(arena[at : at+BlockSize+tagSize])
		for i, b := range arena {
			if in := i >= at && i < at+BlockSize+tagSize; !in && b != 0xa5 {
				t.Fatalf("byte %d was written, outside of %d to %d", i, at, at+BlockSize+tagSize)
			}
		}
		for i := at; i < at+BlockSize+tagSize; i++ {
			arena[i] = 0xa5
		}
	}
}

func TestOverlap(t *testing.T) {
	key, nonce, aad := random(32), random(12), random(AADSize)
	a := New(key, standard(t, key))
	defer func() {
		if recover() == nil {
			t.Error("sealed into memory that overlaps the plaintext, shifted")
		}
	}()
	b := make([]byte, 2*BlockSize)
	a.Seal(b[8:8], nonce, b[:BlockSize], aad)
}

// TestWipe: of the key nothing is left in the object.
func TestWipe(t *testing.T) {
	if !supported {
		t.Skip("this processor has no VAES with AVX-512")
	}
	key := random(32)
	a := New(key, standard(t, key)).(*aead)
	if !bytes.Equal(a.keys[0][:], key[:16]) || !bytes.Equal(a.keys[1][:], key[16:]) {
		t.Fatal("the first round keys are not the key")
	}
	a.Wipe()
	if a.schedule != (schedule{}) {
		t.Error("there is something left")
	}
}

func BenchmarkSeal(b *testing.B) {
	key, nonce, aad := random(32), random(12), random(AADSize)
	p, dst := random(BlockSize), make([]byte, 0, BlockSize+tagSize)
	std := standard(b, key)
	for name, a := range map[string]cipher.AEAD{"standard library": std, "vaes": New(key, std)} {
		b.Run(fmt.Sprintf("seal/%s", name), func(b *testing.B) {
			b.SetBytes(BlockSize)
			for b.Loop() {
				a.Seal(dst, nonce, p, aad)
			}
		})
		c := a.Seal(nil, nonce, p, aad)
		b.Run(fmt.Sprintf("open/%s", name), func(b *testing.B) {
			b.SetBytes(BlockSize)
			for b.Loop() {
				_, _ = a.Open(dst, nonce, c, aad)
			}
		})
	}
}
