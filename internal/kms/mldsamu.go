package kms

import (
	"bytes"
	"crypto"
	"crypto/sha3"
	"fmt"

	"filippo.io/mldsa"
	"filippo.io/mldsa/mldsacrypto"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// MessageType EXTERNAL_MU: the caller has made the message representative μ
// (FIPS 204, section 6.2), 64 bytes, and sends it in the place of the message.

const muSize = 64

// muOptions tells Sign that it is given μ.
type muOptions struct{}

func (muOptions) HashFunc() crypto.Hash { return mldsacrypto.MLDSAMu }

// signMu signs μ under the private key with this seed, which it wipes.
func signMu(p mldsa.Parameters, seed, mu []byte) ([]byte, error) {
	defer secret.Zero(seed)
	k, err := mldsa.NewPrivateKey(p, seed)
	if err != nil {
		return nil, fmt.Errorf("sign a message representative: %w", err)
	}
	return k.Sign(nil, mu, muOptions{})
}

// mldsaSet is a parameter set of FIPS 204, table 1.
type mldsaSet struct {
	k, l, tau, lambda, omega, beta int
	gamma1Bits                     int
	gamma2                         int64
}

var (
	set44 = mldsaSet{4, 4, 39, 128, 80, 78, 17, (mldsaQ - 1) / 88}
	set65 = mldsaSet{6, 5, 49, 192, 55, 196, 19, (mldsaQ - 1) / 32}
	set87 = mldsaSet{8, 7, 60, 256, 75, 120, 19, (mldsaQ - 1) / 32}
)

const (
	mldsaQ = 8380417
	mldsaN = 256
	mldsaD = 13
)

type ringElement [mldsaN]int64 // coefficients modulo q

// zetas[i] is 1753 to the power of i with its 8 bits reversed, modulo q.
var zetas = func() (z [mldsaN]int64) {
	powers := [mldsaN]int64{1}
	for i := 1; i < mldsaN; i++ {
		powers[i] = powers[i-1] * 1753 % mldsaQ
	}
	for i := range z {
		r := 0
		for b := range 8 {
			r |= i >> b & 1 << (7 - b)
		}
		z[i] = powers[r]
	}
	return z
}()

func mod(x int64) int64 { return ((x % mldsaQ) + mldsaQ) % mldsaQ }

// ntt is algorithm 41, inverse algorithm 42.
func (w *ringElement) ntt() {
	m := 0
	for n := 128; n >= 1; n /= 2 {
		for start := 0; start < mldsaN; start += 2 * n {
			m++
			for j := start; j < start+n; j++ {
				t := zetas[m] * w[j+n] % mldsaQ
				w[j], w[j+n] = mod(w[j]+t), mod(w[j]-t)
			}
		}
	}
}

func (w *ringElement) inverse() {
	m := mldsaN
	for n := 1; n < mldsaN; n *= 2 {
		for start := 0; start < mldsaN; start += 2 * n {
			m--
			for j := start; j < start+n; j++ {
				t := w[j]
				w[j], w[j+n] = mod(t+w[j+n]), mod(-zetas[m]*mod(t-w[j+n]))
			}
		}
	}
	for j := range w {
		w[j] = w[j] * 8347681 % mldsaQ
	}
}

// bits reads integers of n bits, least significant first.
func bits(b []byte, n int, f func(i int, v int64)) {
	for i := range len(b) * 8 / n {
		var v int64
		for j := range n {
			at := i*n + j
			v |= int64(b[at/8]>>(at%8)&1) << j
		}
		f(i, v)
	}
}

// verifyMu is ML-DSA.Verify_internal (algorithm 8) from the message
// representative on. It works on public values only.
func (p mldsaSet) verifyMu(public, mu, sig []byte) bool {
	zBytes := 32 * (p.gamma1Bits + 1)
	c0 := p.lambda / 4
	if len(public) != 32+320*p.k || len(mu) != muSize || len(sig) != c0+p.l*zBytes+p.omega+p.k {
		return false
	}
	challenge, hint := sig[:c0], sig[c0+p.l*zBytes:]

	z := make([]ringElement, p.l)
	small := true
	for i := range z {
		bits(sig[c0+i*zBytes:c0+(i+1)*zBytes], p.gamma1Bits+1, func(j int, v int64) {
			x := int64(1)<<p.gamma1Bits - v
			if most := int64(1)<<p.gamma1Bits - int64(p.beta); x >= most || x <= -most {
				small = false
			}
			z[i][j] = mod(x)
		})
		z[i].ntt()
	}
	// The hint, algorithm 21: ascending places, nothing behind the last.
	h := make([][mldsaN]bool, p.k)
	index := 0
	for i := range h {
		end, first := int(hint[p.omega+i]), index
		if end < index || end > p.omega {
			return false
		}
		for ; index < end; index++ {
			if index > first && hint[index-1] >= hint[index] {
				return false
			}
			h[i][hint[index]] = true
		}
	}
	for ; index < p.omega; index++ {
		if hint[index] != 0 {
			return false
		}
	}
	if !small {
		return false
	}

	c := p.ball(challenge)
	c.ntt()
	again := sha3.NewSHAKE256()
	_, _ = again.Write(mu)
	width := 4
	if p.gamma2 == (mldsaQ-1)/88 {
		width = 6
	}
	for r := range p.k {
		var t, w ringElement
		bits(public[32+320*r:32+320*(r+1)], 10, func(j int, v int64) { t[j] = v << mldsaD % mldsaQ })
		t.ntt()
		for s := range p.l {
			a := expand(public[:32], byte(s), byte(r))
			for j := range w {
				w[j] = (w[j] + a[j]*z[s][j]) % mldsaQ
			}
		}
		for j := range w {
			w[j] = mod(w[j] - c[j]*t[j]%mldsaQ)
		}
		w.inverse()
		packed := make([]byte, 32*width)
		for j := range w {
			v := p.useHint(h[r][j], w[j])
			for b := range width {
				packed[(j*width+b)/8] |= byte(v>>b&1) << ((j*width + b) % 8)
			}
		}
		_, _ = again.Write(packed)
	}
	want := make([]byte, c0)
	_, _ = again.Read(want)
	return bytes.Equal(want, challenge)
}

// ball is SampleInBall, algorithm 29.
func (p mldsaSet) ball(seed []byte) (c ringElement) {
	x := sha3.NewSHAKE256()
	_, _ = x.Write(seed)
	var signs [8]byte
	_, _ = x.Read(signs[:])
	for i := mldsaN - p.tau; i < mldsaN; i++ {
		var j [1]byte
		for _, _ = x.Read(j[:]); int(j[0]) > i; _, _ = x.Read(j[:]) {
		}
		c[i] = c[j[0]]
		c[j[0]] = 1
		if n := i + p.tau - mldsaN; signs[n/8]>>(n%8)&1 == 1 {
			c[j[0]] = mldsaQ - 1
		}
	}
	return c
}

// expand is one element of ExpandA, algorithms 32 and 30.
func expand(rho []byte, s, r byte) (a ringElement) {
	x := sha3.NewSHAKE128()
	_, _ = x.Write(append(bytes.Clone(rho), s, r))
	for j := 0; j < mldsaN; {
		var b [3]byte
		_, _ = x.Read(b[:])
		if v := int64(b[0]) | int64(b[1])<<8 | int64(b[2]&0x7f)<<16; v < mldsaQ {
			a[j] = v
			j++
		}
	}
	return a
}

// useHint is algorithms 40 and 36.
func (p mldsaSet) useHint(h bool, r int64) int64 {
	r0 := r % (2 * p.gamma2)
	if r0 > p.gamma2 {
		r0 -= 2 * p.gamma2
	}
	r1 := (r - r0) / (2 * p.gamma2)
	if r-r0 == mldsaQ-1 {
		r1, r0 = 0, r0-1
	}
	m := (mldsaQ - 1) / (2 * p.gamma2)
	switch {
	case h && r0 > 0:
		return (r1 + 1) % m
	case h:
		return (r1 - 1 + m) % m
	}
	return r1
}
