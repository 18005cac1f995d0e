// Package ids makes the identifiers AWS clients expect: request and event
// UUIDs, vol-, snap-, i-, ws-, d- and IAM unique IDs. All come from the
// operating system's random source; none carries meaning.
package ids

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"strings"
)

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (Go 1.24)
	return b
}

// UUID returns a random (version 4) UUID, RFC 9562.
func UUID() string {
	b := random(16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var d [36]byte
	hex.Encode(d[0:8], b[0:4])
	d[8] = '-'
	hex.Encode(d[9:13], b[4:6])
	d[13] = '-'
	hex.Encode(d[14:18], b[6:8])
	d[18] = '-'
	hex.Encode(d[19:23], b[8:10])
	d[23] = '-'
	hex.Encode(d[24:36], b[10:16])
	return string(d[:])
}

// Hex returns prefix followed by n random lower-case hexadecimal digits.
func Hex(prefix string, n int) string {
	return prefix + hex.EncodeToString(random((n + 1) / 2))[:n]
}

// EC2 returns an EC2 resource ID such as vol-0123456789abcdef0 (17 digits).
func EC2(prefix string) string { return Hex(prefix+"-0", 16) }

// Directory returns a directory ID such as d-9067012345 (10 digits).
func Directory() string { return Hex("d-", 10) }

// WorkSpace returns an ID such as ws-1a2b3c4d5 for the given prefix
// ("ws", "wsb", "wsi", "wsipg"): nine characters of [0-9a-z].
func WorkSpace(prefix string) string {
	const alphabet = "0123456789abcdfghjklmnpqrstvwxyz" // 32 letters, so a byte's low bits are uniform
	b := random(9)
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return prefix + "-" + string(b)
}

// IAM returns an IAM unique identifier: a four letter prefix (AIDA user, AROA
// role, AGPA group, ANPA policy, AKIA long-term and ASIA temporary access key)
// followed by n upper-case base32 characters.
// Source: IAM User Guide, "Unique identifiers".
func IAM(prefix string, n int) string {
	s := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random(n))
	return prefix + s[:n]
}

// Account returns a 12 digit account ID that does not begin with 0.
func Account() string {
	b := random(12)
	var s strings.Builder
	for i, c := range b {
		if i == 0 {
			s.WriteByte('1' + c%9)
			continue
		}
		s.WriteByte('0' + c%10)
	}
	return s.String()
}

// SecretAccessKey returns 40 characters of [A-Za-z0-9/+], 240 random bits.
func SecretAccessKey() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	b := random(40)
	for i := range b {
		b[i] = alphabet[b[i]&63]
	}
	return string(b)
}
