package kms

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Grants and their names are the many records of a key service, and etcd keeps every
// key in memory beside the store's own copy. So their table keys, of tables whose names are
// short too, are not paths in text but
//
//	size  field
//	   1  2n, or 2n+1 when the key is a multi-Region key (of a Region's name of 64 bytes
//	      or more: an unsigned varint)
//	   5  account, big endian
//	   n  Region
//	  16  key ID: the UUID's bytes, or the 16 bytes after "mrk-"
//	  32  grant ID; of a name, what nameHash returns
//
// All that a key has share the bytes before the last 32, which nothing else begins with.

// grantPrefix is what the keys of all grants on the key at a path begin with.
func grantPrefix(keyPath string) string {
	account, region, keyID := splitPath(keyPath)
	var packed [25]byte
	if err := packKey(packed[:], account, keyID); err != nil {
		panic(fmt.Sprintf("kms: %q is no path of a key: %v", keyPath, err))
	}
	b := binary.AppendUvarint(make([]byte, 0, 64), uint64(len(region))<<1|uint64(packed[0]&blobFlagMRK))
	return string(append(append(append(b, packed[4:9]...), region...), packed[9:]...))
}

// grantKey is the table key of a grant, by its ID, or of a name, by its hash: 64
// hexadecimal digits.
func grantKey(keyPath, id string) string {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != idSize {
		panic(fmt.Sprintf("kms: %q is no grant ID", id))
	}
	return grantPrefix(keyPath) + string(raw)
}

const idSize = 32

// grantRegion is the Region in a table key, and where in it; ok is false when p is none.
func grantRegion(p string) (region string, at int, ok bool) {
	var head [binary.MaxVarintLen64]byte
	n, size := binary.Uvarint(head[:copy(head[:], p)])
	at = size + 5
	if size <= 0 || n>>1 > uint64(len(p)) || len(p) != at+int(n>>1)+16+idSize {
		return "", 0, false
	}
	return p[at : at+int(n>>1)], at, true
}

// keyPathOf is the path of the key that a grant is on.
func keyPathOf(p string) string {
	region, at, ok := grantRegion(p)
	if !ok {
		panic(fmt.Sprintf("kms: %q is no table key of a grant", p))
	}
	var account [8]byte
	copy(account[3:], p[at-5:at])
	at += len(region)
	return path(unpackAccount(account[:]), region, unpackKeyID(p[0]&blobFlagMRK, []byte(p[at:at+16])))
}

// packedID is a grant ID, in its 32 bytes; "" for none. It is shown, and stored in
// records, in hexadecimal digits.
type packedID string

func (id packedID) String() string { return hex.EncodeToString([]byte(id)) }

// MarshalText writes the digits.
func (id packedID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads them.
func (id *packedID) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != idSize {
		return fmt.Errorf("kms: %q is no grant ID", b)
	}
	*id = packedID(raw)
	return nil
}

// packed is the ID of the grant, "" when it has no table key yet.
func (g *Grant) packed() packedID { return packedID(g.key[max(0, len(g.key)-idSize):]) }

// id is the grant's ID, 64 hexadecimal digits.
func (g *Grant) id() string { return g.packed().String() }
