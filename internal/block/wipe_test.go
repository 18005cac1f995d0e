package block

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// findInMemory counts how often the pattern (given masked, so as not to be found
// itself) occurs in this process's writable memory.
func findInMemory(t *testing.T, masked []byte, mask byte) (found []string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skipf("no /proc/self/mem: %v", err)
	}
	defer mem.Close()
	buf := make([]byte, 1<<20)
	sc := bufio.NewScanner(bytes.NewReader(maps))
	for sc.Scan() {
		var lo, hi int64
		var perm string
		if n, _ := fmt.Sscanf(sc.Text(), "%x-%x %s", &lo, &hi, &perm); n != 3 || !strings.HasPrefix(perm, "rw") {
			continue
		}
		for at := lo; at < hi; at += int64(len(buf) - 64) {
			n, _ := mem.ReadAt(buf[:min(int64(len(buf)), hi-at)], at)
			// Nothing is unmasked for that: buf is memory that is searched too.
			for i := 0; i+len(masked) <= n; i++ {
				k := bytes.IndexByte(buf[i:n], masked[0]^mask)
				if k < 0 {
					break
				}
				if i += k; i+len(masked) <= n && same(buf[i:], masked, mask) {
					found = append(found, fmt.Sprintf("%#x in %s", at+int64(i), sc.Text()))
					break
				}
			}
		}
		clear(buf)
	}
	return found
}

// same says whether b begins with what masked stands for.
func same(b, masked []byte, mask byte) bool {
	for i, m := range masked {
		if b[i]^mask != m {
			return false
		}
	}
	return true
}

// TestKeyIsWiped looks for the data key and a block key in the process's memory, while
// the volume is open and after it was closed.
func TestKeyIsWiped(t *testing.T) {
	const mask = 0xa5
	dir := t.TempDir()
	key := secret.Random(64)
	hide := func(k []byte) []byte {
		masked := make([]byte, 32)
		for i := range masked {
			masked[i] = k[i] ^ mask
		}
		return masked
	}
	masked := hide(key.Expose())
	create(t, dir, Options{Key: key})
	v, err := Open(dir, Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, v, noise(1, 4096), 0)
	key.Wipe()
	if found := findInMemory(t, masked, mask); len(found) == 0 {
		t.Fatal("the search does not even find the key of an open volume")
	}
	blockKey := derive(v.key, v.cur.salt[:], labelData, v.cur.origin, v.cur.num)
	maskedBlock := hide(blockKey)
	secret.Zero(blockKey)
	if found := findInMemory(t, maskedBlock, mask); len(found) == 0 {
		t.Fatal("the search does not even find the block key of an open volume")
	}
	aead := v.cur.data
	var nonce [12]byte
	var aad [32]byte
	// The second is of the shape of a volume's blocks, which may have another cipher.
	seal := func() []byte {
		return append(aead.Seal(nil, nonce[:], nonce[:], nil), aead.Seal(make([]byte, 0, BlockSize+tagLen), nonce[:], zeros[:BlockSize], aad[:])...)
	}
	before := seal()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }() // a wiped AEAD may refuse to work at all
		if after := seal(); bytes.Equal(before[:28], after[:28]) || bytes.Equal(before[28:], after[28:]) {
			t.Error("the round keys of a closed volume still seal")
		}
	}()
	runtime.GC()
	debug.FreeOSMemory()
	if found := findInMemory(t, masked, mask); len(found) > 0 {
		t.Errorf("the data key is still in memory at %s", strings.Join(found, "; "))
	}
	if found := findInMemory(t, maskedBlock, mask); len(found) > 0 {
		t.Errorf("the block key is still in memory at %s", strings.Join(found, "; "))
	}
}
