package block

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"
	"unsafe"

	"github.com/sealdesk/sealdesk/internal/block/vaes"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Suite makes the AEAD that seals blocks, pages and descriptors: 32-byte keys,
// 12-byte nonces, 16-byte tags. The format's only suite is AES-256-GCM; tests wrap
// it to watch nonces.
type Suite interface {
	NewAEAD(key []byte) (cipher.AEAD, error)
}

type gcmSuite struct{}

func (gcmSuite) NewAEAD(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCM(b)
	wipeObject(b)
	if err != nil {
		return nil, err
	}
	return vaes.New(key, a), nil
}

// volID is how a volume is named in associated data: SHA-256 of its ID, cut to 16 bytes.
type volID [16]byte

func makeVolID(id string) volID {
	s := sha256.Sum256([]byte("sealdesk volume id\x00" + id))
	return volID(s[:16])
}

const (
	labelManifest = "sealdesk volume v1 manifest"
	labelData     = "sealdesk volume v1 data"
	labelPage     = "sealdesk volume v1 page"
	labelDesc     = "sealdesk volume v1 descriptor"
	labelKeyring  = "sealdesk volume v1 keyring"

	minKeyLen = 32
	saltLen   = 32
	tagLen    = 16
	macLen    = 32
)

// derive is HKDF-SHA256(dek, salt, label ‖ id ‖ n) to 32 bytes (RFC 5869). The caller overwrites them.
func derive(dek *secret.Bytes, salt []byte, label string, id volID, n uint32) []byte {
	info := make([]byte, 0, len(label)+21)
	info = append(info, label...)
	info = append(info, id[:]...)
	info = binary.LittleEndian.AppendUint32(info, n)
	key := make([]byte, sha256.Size)
	burnStack(0) // it grows now, if it has to, and not with keys on it: what it grew out of is not erased
	deriveInto(key, dek, salt, append(info, 1))
	burnStack(0)
	return key
}

//go:noinline
func deriveInto(key []byte, dek *secret.Bytes, salt, info []byte) {
	prk := hmacSHA256(salt, dek.Expose())
	sum := hmacSHA256(prk[:], info)
	copy(key, sum[:])
}

// burnStack overwrites what functions that returned have left on the stack, which is more than hashing needs.
//
//go:noinline
func burnStack(i uint8) byte {
	var b [4096]byte
	return b[i]
}

// hmacSHA256 is RFC 2104 with a key of at most 64 bytes, for a message of at most 128. Package hmac, and hkdf above it, leave copies
// of keys behind in the heap that nobody can erase; here they are on the stack.
func hmacSHA256(key, msg []byte) [sha256.Size]byte {
	var b [sha256.BlockSize + 128]byte
	pad := func(with byte) []byte {
		for i := range sha256.BlockSize {
			b[i] = with
		}
		for i, k := range key {
			b[i] ^= k
		}
		return b[:sha256.BlockSize]
	}
	inner := sha256.Sum256(append(pad(0x36), msg...))
	return sha256.Sum256(append(pad(0x5c), inner[:]...))
}

func manifestMAC(dek *secret.Bytes, id volID, b []byte) [macLen]byte {
	k := derive(dek, nil, labelManifest, id, 0)
	defer secret.Zero(k)
	m := hmac.New(sha256.New, k)
	m.Write(b)
	return [macLen]byte(m.Sum(nil))
}

// epoch is one set of keys: drawn at every attach, and again when a counter nears its end.
type epoch struct {
	num    uint32
	origin volID  // volume that sealed under it
	dek    uint32 // 0: the volume's own data key; else a keyring entry
	salt   [saltLen]byte
	live   int64 // map entries and pages that need it

	data, page, desc cipher.AEAD
}

func newEpoch(num uint32, origin volID) *epoch {
	e := &epoch{num: num, origin: origin}
	_, _ = rand.Read(e.salt[:]) // never fails (Go 1.24)
	return e
}

func (e *epoch) open(s Suite, dek *secret.Bytes) error {
	for _, k := range []struct {
		label string
		dst   *cipher.AEAD
	}{{labelData, &e.data}, {labelPage, &e.page}, {labelDesc, &e.desc}} {
		key := derive(dek, e.salt[:], k.label, e.origin, e.num)
		var err error
		*k.dst, err = s.NewAEAD(key)
		secret.Zero(key)
		if err != nil {
			return fmt.Errorf("derive epoch %d: %w", e.num, err)
		}
	}
	return nil
}

func (e *epoch) wipe() {
	for _, a := range []cipher.AEAD{e.data, e.page, e.desc} {
		wipeObject(a)
	}
	e.data, e.page, e.desc = nil, nil, nil
}

// wrapped is another volume's data key, sealed under this volume's (keyring entry).
type wrapped struct {
	id     uint32
	origin volID
	salt   [saltLen]byte
	sealed []byte // key ‖ tag
}

func wrapKey(dek *secret.Bytes, self volID, id uint32, origin volID, key *secret.Bytes) (wrapped, error) {
	w := wrapped{id: id, origin: origin}
	_, _ = rand.Read(w.salt[:])
	a, err := w.aead(dek, self)
	if err != nil {
		return w, err
	}
	defer wipeObject(a)
	w.sealed = a.Seal(nil, make([]byte, 12), key.Expose(), w.aad())
	return w, nil
}

// aead's key is used for one message only (the salt is fresh), so the nonce is zero.
func (w *wrapped) aead(dek *secret.Bytes, self volID) (cipher.AEAD, error) {
	k := derive(dek, w.salt[:], labelKeyring, self, w.id)
	defer secret.Zero(k)
	return gcmSuite{}.NewAEAD(k)
}

func (w *wrapped) aad() []byte {
	return binary.LittleEndian.AppendUint32(append([]byte(nil), w.origin[:]...), w.id)
}

func (w *wrapped) unwrap(dek *secret.Bytes, self volID) (*secret.Bytes, error) {
	a, err := w.aead(dek, self)
	if err != nil {
		return nil, err
	}
	defer wipeObject(a)
	b, err := a.Open(nil, make([]byte, 12), w.sealed, w.aad())
	if err != nil {
		return nil, fmt.Errorf("keyring entry %d: %w", w.id, ErrCorrupt)
	}
	return secret.New(b), nil
}

// wipeObject overwrites the struct behind a pointer in an interface, when it holds
// no pointers itself: the standard library keeps AES round keys in such structs and
// offers no way to erase them. Other kinds of values are left to the collector.
func wipeObject(x any) {
	if w, ok := x.(interface{ Wipe() }); ok {
		w.Wipe()
	}
	if w, ok := x.(interface{ Unwrap() cipher.AEAD }); ok {
		wipeObject(w.Unwrap())
		return
	}
	v := reflect.ValueOf(x)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return
	}
	if t := v.Type().Elem(); t.Kind() == reflect.Struct {
		wipeStruct(v.UnsafePointer(), t)
	}
	runtime.KeepAlive(x)
}

func wipeStruct(p unsafe.Pointer, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case !hasPointers(f.Type):
			clear(unsafe.Slice((*byte)(unsafe.Add(p, f.Offset)), f.Type.Size()))
		case f.Type.Kind() == reflect.Struct:
			wipeStruct(unsafe.Add(p, f.Offset), f.Type)
		}
	}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return false
	case reflect.Array:
		return t.Len() > 0 && hasPointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	}
	return true
}
