package kms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sort"
	"strconv"
	"strings"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Offsets of the ciphertext blob; see the package doc.
const (
	blobVersion  = 1
	blobHSM      = 2
	blobXKS      = 3
	blobFlagMRK  = 1
	blobKeyID    = 10
	blobMaterial = 26
	blobN        = 58
	blobCheck    = 90
	blobSealed   = 98
	gcmTag       = 16
)

// errBlob is any ciphertext that does not open.
var errBlob = errors.New("kms: ciphertext does not open")

// blobRef is what a symmetric ciphertext says about itself.
type blobRef struct{ account, keyID, materialID string }

// parseBlob reads a blob's header. It vouches for the form only.
func parseBlob(blob []byte) (blobRef, error) {
	if len(blob) < blobSealed+gcmTag || blob[0] < blobVersion || blob[0] > blobXKS || blob[1]&^blobFlagMRK != 0 {
		return blobRef{}, errBlob
	}
	sum := sha256.Sum256(blob[:blobCheck])
	if !bytes.Equal(sum[:8], blob[blobCheck:blobSealed]) {
		return blobRef{}, errBlob
	}
	return blobRef{account: unpackAccount(blob[2:10]), keyID: unpackKeyID(blob[1], blob[blobKeyID:blobMaterial]),
		materialID: hex.EncodeToString(blob[blobMaterial:blobN])}, nil
}

// sealBlob encrypts plaintext under one key material.
func sealBlob(ref blobRef, material *secret.Bytes, plaintext []byte, context map[string]string) ([]byte, error) {
	out, err := blobHeader(blobVersion, ref, len(plaintext)+gcmTag)
	if err != nil {
		return nil, err
	}
	a, err := blobAEAD(material, out[blobN:blobCheck])
	if err != nil {
		return nil, err
	}
	return a.Seal(out, zeroNonce[:], plaintext, blobAAD(out[:blobSealed], context)), nil
}

// blobHeader is the header of a new blob, with room for size bytes after it.
func blobHeader(version byte, ref blobRef, size int) ([]byte, error) {
	out := make([]byte, blobSealed, blobSealed+size)
	out[0] = version
	if err := packKey(out[1:blobMaterial], ref.account, ref.keyID); err != nil {
		return nil, err
	}
	if n, err := hex.Decode(out[blobMaterial:blobN], []byte(ref.materialID)); err != nil || n != 32 {
		return nil, errors.New("kms: key material ID is not 64 hexadecimal digits")
	}
	_, _ = rand.Read(out[blobN:blobCheck])
	sum := sha256.Sum256(out[:blobCheck])
	copy(out[blobCheck:], sum[:8])
	return out, nil
}

// openBlob decrypts a blob whose header parseBlob accepted.
func openBlob(blob []byte, material *secret.Bytes, context map[string]string) ([]byte, error) {
	a, err := blobAEAD(material, blob[blobN:blobCheck])
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(make([]byte, 0, len(blob)-blobSealed-gcmTag+1), zeroNonce[:], blob[blobSealed:], blobAAD(blob[:blobSealed], context))
	if err != nil {
		return nil, errBlob
	}
	return plain, nil
}

var zeroNonce [12]byte

const blobInfo = "sealdesk kms ciphertext 1"

// blobAEAD derives the message key: HKDF-Expand (RFC 5869 section 2.3) of one
// block, T(1) = HMAC(material, info ‖ 0x01).
func blobAEAD(material *secret.Bytes, n []byte) (cipher.AEAD, error) {
	k := messageKey(material.Expose(), n)
	defer secret.Zero(k[:])
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// messageKey is HMAC-SHA-256(material, blobInfo ‖ n ‖ 1) (RFC 2104), like crypto/hmac's,
// which would leave copies of the padded key behind in memory. The material has 32 bytes and n has 32.
func messageKey(material, n []byte) (k [32]byte) {
	if len(material) != 32 || len(n) != 32 {
		panic("kms: key material and N of a ciphertext have 32 bytes each")
	}
	var inner [sha256.BlockSize + len(blobInfo) + 33]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	defer secret.Zero(inner[:sha256.BlockSize])
	defer secret.Zero(outer[:sha256.BlockSize])
	for i := range sha256.BlockSize {
		inner[i], outer[i] = 0x36, 0x5c
	}
	subtle.XORBytes(inner[:], inner[:], material)
	subtle.XORBytes(outer[:], outer[:], material)
	message := inner[sha256.BlockSize:]
	copy(message, blobInfo)
	copy(message[len(blobInfo):], n)
	message[len(message)-1] = 1
	hash := sha256.Sum256(inner[:])
	copy(outer[sha256.BlockSize:], hash[:])
	return sha256.Sum256(outer[:])
}

func blobAAD(header []byte, context map[string]string) []byte {
	n := len(header) + 4
	for k, v := range context {
		n += 8 + len(k) + len(v)
	}
	out := make([]byte, 0, n)
	return appendContext(append(out, header...), context)
}

// appendContext appends the canonical form of an encryption context.
func appendContext(out []byte, context map[string]string) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(context)))
	if len(context) == 0 {
		return out
	}
	var few [8]string
	keys := few[:0]
	for k := range context {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		v := context[k]
		out = binary.BigEndian.AppendUint32(out, uint32(len(k)))
		out = append(out, k...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(v)))
		out = append(out, v...)
	}
	return out
}

// packKey writes flags, account and key ID (25 bytes).
func packKey(out []byte, account, keyID string) error {
	n, err := strconv.ParseUint(account, 10, 64)
	if err != nil || len(account) != 12 {
		return errors.New("kms: account ID is not 12 digits")
	}
	binary.BigEndian.PutUint64(out[1:9], n)
	digits := strings.ReplaceAll(keyID, "-", "")
	if rest, ok := strings.CutPrefix(keyID, "mrk-"); ok {
		out[0] |= blobFlagMRK
		digits = rest
	}
	if n, err := hex.Decode(out[9:25], []byte(digits)); err != nil || n != 16 {
		return errors.New("kms: key ID is neither a UUID nor mrk- and 32 hexadecimal digits")
	}
	return nil
}

func unpackAccount(b []byte) string {
	s := strconv.FormatUint(binary.BigEndian.Uint64(b), 10)
	if len(s) < 12 {
		s = strings.Repeat("0", 12-len(s)) + s
	}
	return s
}

func unpackKeyID(flags byte, b []byte) string {
	var d [36]byte
	if flags&blobFlagMRK != 0 {
		copy(d[:], "mrk-")
		hex.Encode(d[4:], b)
		return string(d[:])
	}
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
