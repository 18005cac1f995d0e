package block_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

var rewrite = flag.Bool("rewrite-golden", false, "make the golden volumes of the present version anew")

// goldenWant is the content of both golden volumes, by block.
func goldenWant(lba int) []byte {
	switch {
	case lba < 4, lba >= 300 && lba < 310, lba == 1999:
		return stamped(lba, uint64(1000+lba))
	case lba == 5:
		return stamped(lba, 2)
	}
	return make([]byte, bs)
}

// TestGolden reads volumes of version 1 that were written when it was new: one closed
// in order, one whose process was killed.
func TestGolden(t *testing.T) {
	for _, kind := range []string{"closed", "killed"} {
		dir := filepath.Join("testdata", "v1-"+kind)
		if *rewrite {
			writeGolden(t, dir, kind == "closed")
		}
		fs := blocktest.NewMemFS() // the files in the repository stay as they are
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) < 2 {
			t.Fatalf("golden volume %s: %v %v", dir, names, err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			fs.Put(filepath.Base(n), b)
		}
		for _, readOnly := range []bool{true, false} {
			v, err := block.Open("", block.Options{VolumeID: "vol-golden", Key: key(42), FS: fs.Kill(), ReadOnly: readOnly, CheckpointInterval: -1})
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			got := make([]byte, bs)
			for lba := range 2048 {
				if _, err := v.ReadAt(got, int64(lba)*bs); err != nil || !bytes.Equal(got, goldenWant(lba)) {
					t.Fatalf("%s: block %d: %v, or other bytes", kind, lba, err)
				}
			}
			v.Abandon()
		}
	}
}

func writeGolden(t *testing.T, dir string, clean bool) {
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	opt := block.Options{VolumeID: "vol-golden", SizeBytes: 2048 * bs, Key: key(42), SegmentSlots: 121, CheckpointInterval: -1}
	if _, err := block.Create(dir, opt); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	put := func(lba, n int, stamp func(int) uint64) {
		for i := lba; i < lba+n; i++ {
			if _, err := v.WriteAt(stamped(i, stamp(i)), int64(i)*bs); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(5, 1, func(int) uint64 { return 1 })
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	put(0, 4, func(i int) uint64 { return uint64(1000 + i) })
	put(5, 1, func(int) uint64 { return 2 })
	put(10, 5, func(int) uint64 { return 3 })
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	put(300, 10, func(i int) uint64 { return uint64(1000 + i) })
	put(1999, 1, func(i int) uint64 { return uint64(1000 + i) })
	if err := v.Discard(10*bs, 5*bs); err != nil {
		t.Fatal(err)
	}
	if clean {
		err = v.Close()
	} else {
		err = v.Flush()
		v.Abandon()
	}
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "lock"))
	os.Remove(filepath.Join(dir, "spare"))
	segs, _ := filepath.Glob(filepath.Join(dir, "seg-*"))
	for _, s := range segs {
		b, err := os.ReadFile(s)
		if err == nil {
			err = os.Truncate(s, int64(len(bytes.TrimRight(b, "\x00"))+bs-1)/bs*bs)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestStranger reads the closed golden volume with nothing but docs/formats/volume.md.
func TestStranger(t *testing.T) {
	dir := filepath.Join("testdata", "v1-closed")
	le := binary.LittleEndian
	dek := bytes.Repeat([]byte{42}, 64)
	idSum := sha256.Sum256([]byte("sealdesk volume id\x00vol-golden"))
	id := idSum[:16]
	derive := func(label string, salt, id []byte, n uint32) []byte {
		k, err := hkdf.Key(sha256.New, dek, salt, label+string(id)+string(le.AppendUint32(nil, n)), 32)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	var man []byte
	for _, n := range []string{"manifest.0", "manifest.1"} {
		b, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			continue
		}
		end := 64 + le.Uint32(b[16:])
		mac := hmac.New(sha256.New, derive("sealdesk volume v1 manifest", nil, id, 0))
		mac.Write(b[:end])
		if string(b[:4]) == "SDVM" && bytes.Equal(b[24:40], id) && hmac.Equal(mac.Sum(nil), b[end:end+32]) &&
			(man == nil || le.Uint64(b[8:]) > le.Uint64(man[8:])) {
			man = b[:end]
		}
	}
	if man == nil {
		t.Fatal("no manifest authenticates")
	}
	sections := map[uint16][]byte{}
	for p := man[64:]; len(p) > 0; p = p[8+le.Uint32(p[4:]):] {
		sections[le.Uint16(p)] = p[8 : 8+le.Uint32(p[4:])]
	}
	levels := int(le.Uint32(sections[1][12:]))
	type epoch struct{ origin, salt []byte }
	epochs := map[uint32]epoch{}
	for p := sections[5]; len(p) > 0; p = p[64:] {
		epochs[le.Uint32(p)] = epoch{p[8:24], p[32:64]}
	}
	open := func(e []byte, address uint64, level int) []byte {
		place := le.Uint64(e)
		kind, slot, seg := byte(place), place>>8&0xffff, place>>24
		num := le.Uint32(e[8:])
		ep := epochs[num]
		label := map[byte]string{1: "sealdesk volume v1 data", 3: "sealdesk volume v1 page"}[kind]
		c, err := aes.NewCipher(derive(label, ep.salt, ep.origin, num))
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("seg-%016x", seg)))
		if err != nil {
			t.Fatal(err)
		}
		nonce := make([]byte, 12)
		le.PutUint32(nonce, le.Uint32(e[12:]))
		aad := append([]byte(nil), ep.origin...)
		aad = le.AppendUint64(aad, address)
		aad = le.AppendUint32(aad, num)
		aad = append(aad, kind, byte(level), 0, 0)
		p, err := gcm.Open(nil, nonce, append(append([]byte(nil), f[slot*4096:slot*4096+4096]...), e[16:32]...), aad)
		if err != nil {
			t.Fatalf("address %d level %d: %v", address, level, err)
		}
		return p
	}
	read := func(lba uint64) []byte {
		e := sections[2]
		for l := levels - 1; l >= 0; l-- {
			if e[0] == 0 {
				return make([]byte, 4096)
			}
			page := open(e, lba>>(7*(l+1)), l)
			i := lba >> (7 * l) & 127
			e = page[32*i : 32*i+32]
		}
		if e[0] != 1 {
			return make([]byte, 4096)
		}
		return open(e, lba, 0)
	}
	for lba := range 2048 {
		if !bytes.Equal(read(uint64(lba)), goldenWant(lba)) {
			t.Fatalf("block %d reads as something else", lba)
		}
	}
}
