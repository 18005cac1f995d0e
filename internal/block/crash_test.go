package block_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
	"github.com/sealdesk/sealdesk/internal/secret"
)

func key(b byte) *secret.Bytes { return secret.New(bytes.Repeat([]byte{b}, 64)) }

const bs = block.BlockSize

// history is what was done to a small volume, block by block, so that a state found
// after a crash can be matched with a prefix of it.
type history struct {
	mu      sync.Mutex
	blocks  int
	events  []event
	acked   int // events that were acknowledged
	flushed int // events that were flushed
	anchor  block.Anchor
}

type event struct {
	from, n int
	stamp   uint64 // 0: zeros
}

// stamped is a block that tells which event wrote it, and is different all over.
func stamped(lba int, stamp uint64) []byte {
	b := make([]byte, bs)
	if stamp == 0 {
		return b
	}
	for i := 0; i < bs; i += 16 {
		binary.LittleEndian.PutUint64(b[i:], stamp)
		binary.LittleEndian.PutUint64(b[i+8:], uint64(lba)<<32|uint64(i))
	}
	return b
}

// matches looks for a prefix of the history, of at least least events, that found equals.
func (h *history) matches(found []uint64, least int) error {
	state := make([]uint64, h.blocks)
	bad := 0
	for i := range found {
		if found[i] != 0 {
			bad++
		}
	}
	var first string
	for j := 0; ; j++ {
		if j >= least {
			if bad == 0 {
				return nil
			}
			if j == least {
				for i := range found {
					if found[i] != state[i] {
						first = fmt.Sprintf("block %d has stamp %d, after event %d it had %d", i, found[i], least, state[i])
						break
					}
				}
			}
		}
		if j == len(h.events) {
			return fmt.Errorf("the volume is in no state between event %d and %d: %s", least, len(h.events), first)
		}
		e := h.events[j]
		for i := e.from; i < e.from+e.n; i++ {
			if found[i] != state[i] {
				bad--
			}
			state[i] = e.stamp
			if found[i] != state[i] {
				bad++
			}
		}
	}
}

// scan reads the whole volume as stamps.
func scan(v block.Device, blocks int) ([]uint64, error) {
	out := make([]uint64, blocks)
	b := make([]byte, blocks*bs)
	if _, err := v.ReadAt(b, 0); err != nil {
		return nil, err
	}
	for i := range out {
		p := b[i*bs : (i+1)*bs]
		out[i] = binary.LittleEndian.Uint64(p)
		if !bytes.Equal(p, stamped(i, out[i])) {
			return nil, fmt.Errorf("block %d holds bytes that nobody wrote there", i)
		}
	}
	return out, nil
}

func (h *history) snapshot() (least, acked int, a block.Anchor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flushed, h.acked, h.anchor
}

// check opens what a crash left and compares.
func (h *history) check(fs *blocktest.MemFS, least int, anchor block.Anchor, suite block.Suite, r *rand.Rand, depth int) error {
	if depth > 0 { // cut the recovery too
		at, n := r.IntN(12), 0
		var inner error
		fs.Hook = func(int, string) error {
			if n++; n == at {
				inner = h.check(fs.Crash(r), least, anchor, suite, r, depth-1)
			}
			return nil
		}
		defer func() { fs.Hook = nil }()
		if err := h.open(fs, least, anchor, suite); err != nil {
			return err
		}
		return inner
	}
	return h.open(fs, least, anchor, suite)
}

func (h *history) open(fs *blocktest.MemFS, least int, anchor block.Anchor, suite block.Suite) error {
	v, err := block.Open("", block.Options{Key: key(1), FS: fs, Suite: suite, Anchor: anchor, CheckpointInterval: -1})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer v.Abandon()
	found, err := scan(v, h.blocks)
	if err != nil {
		return err
	}
	if err := v.Verify(nil); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.matches(found, least)
}

// TestCrashEverywhere runs a random workload and, before every single file operation
// it causes, cuts the power (several times, with different luck for what was not
// synced) and kills the process, and checks what is found.
func TestCrashEverywhere(t *testing.T) {
	seeds, steps := 12, 60
	if testing.Short() {
		seeds = 3
	}
	if n, err := strconv.Atoi(os.Getenv("SEALDESK_SOAK_SEEDS")); err == nil { // make soak
		seeds = n
	}
	var watch blocktest.NonceWatch
	var cases int
	start := time.Now()
	for seed := range seeds {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		h := &history{blocks: 700}
		fs := blocktest.NewMemFS()
		opt := block.Options{VolumeID: "vol-crash", SizeBytes: int64(h.blocks) * bs, Key: key(1), FS: fs, Suite: &watch,
			SegmentSlots: 121 + uint32(r.IntN(60)), CheckpointInterval: -1, CompactBytesPerSecond: 1 << 40, MapCachePages: 2 + r.IntN(8),
			OnAnchor: func(a block.Anchor) { h.mu.Lock(); h.anchor = a; h.mu.Unlock() }}
		a, err := block.Create("", opt)
		if err != nil {
			t.Fatal(err)
		}
		h.anchor = a
		fs.SyncDir()
		opt.SizeBytes = 0
		v, err := block.Open("", opt)
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		hr := rand.New(rand.NewPCG(uint64(seed), 2))
		fs.Hook = func(n int, op string) error {
			if failed != nil {
				return nil
			}
			least, acked, anchor := h.snapshot()
			for k := range 2 {
				depth := 0
				if hr.IntN(10) == 0 {
					depth = 1
				}
				if err := h.check(fs.Crash(hr), least, anchor, &watch, hr, depth); err != nil {
					failed = fmt.Errorf("seed %d: power cut %d before operation %d (%s): %w", seed, k, n, op, err)
					return nil
				}
				cases++
			}
			if hr.IntN(3) == 0 {
				if err := h.check(fs.Kill(), acked, anchor, &watch, hr, 0); err != nil {
					failed = fmt.Errorf("seed %d: kill before operation %d (%s): %w", seed, n, op, err)
				}
				cases++
			}
			return nil
		}
		for range steps {
			h.step(t, v, r)
			if failed != nil {
				t.Fatal(failed)
			}
			if r.IntN(25) == 0 { // a process dies and the volume is opened again
				next := fs.Kill()
				v.Abandon()
				hook := fs.Hook
				fs = next
				opt.FS = fs
				if v, err = block.Open("", opt); err != nil {
					t.Fatalf("seed %d: open after kill: %v", seed, err)
				}
				_ = hook
				fs.Hook = func(n int, op string) error {
					least, _, anchor := h.snapshot()
					if failed == nil {
						cases++
						if err := h.check(fs.Crash(hr), least, anchor, &watch, hr, 0); err != nil {
							failed = fmt.Errorf("seed %d: power cut before operation %d (%s): %w", seed, n, op, err)
						}
					}
					return nil
				}
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if failed != nil {
			t.Fatal(failed)
		}
	}
	n, err := watch.Check()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d crash states, %d seals without a repeated nonce, %v", cases, n, time.Since(start).Round(time.Millisecond))
}

// step does one random thing to the volume.
func (h *history) step(t *testing.T, v *block.Volume, r *rand.Rand) {
	t.Helper()
	begin := func(e event) {
		h.mu.Lock()
		h.events = append(h.events, e)
		h.mu.Unlock()
	}
	done := func() {
		h.mu.Lock()
		h.acked = len(h.events)
		h.mu.Unlock()
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	switch k := r.IntN(20); {
	case k < 11:
		n := 1 + r.IntN(4)
		if r.IntN(6) == 0 {
			n = 1 + r.IntN(200)
		}
		from := r.IntN(h.blocks - n + 1)
		var p []byte
		h.mu.Lock()
		for i := range n {
			h.events = append(h.events, event{from + i, 1, uint64(len(h.events) + 1)})
			p = append(p, stamped(from+i, uint64(len(h.events)))...)
		}
		h.mu.Unlock()
		_, err := v.WriteAt(p, int64(from)*bs)
		must(err)
		done()
	case k < 14:
		n := 1 + r.IntN(h.blocks/2)
		from := r.IntN(h.blocks - n + 1)
		begin(event{from, n, 0})
		if k == 13 {
			must(v.WriteZeroes(int64(from)*bs, int64(n)*bs, false))
		} else {
			must(v.Discard(int64(from)*bs, int64(n)*bs))
		}
		done()
	case k < 17:
		h.mu.Lock()
		upto := h.acked
		h.mu.Unlock()
		must(v.Flush())
		h.mu.Lock()
		h.flushed = max(h.flushed, upto)
		h.mu.Unlock()
	case k < 19:
		must(v.Checkpoint())
	default:
		v.Compact()
	}
}

// TestFailedSync: after a failed sync nothing is acknowledged any more, and what had
// been flushed before is there after a reopen.
func TestFailedSync(t *testing.T) {
	for _, what := range []string{"sync seg-", "sync manifest", "syncdir"} {
		t.Run(what, func(t *testing.T) {
			fs := blocktest.NewMemFS()
			opt := block.Options{VolumeID: "vol-f", SizeBytes: 4 << 20, Key: key(1), FS: fs, SegmentSlots: 128, CheckpointInterval: -1}
			if _, err := block.Create("", opt); err != nil {
				t.Fatal(err)
			}
			v, err := block.Open("", opt)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Abandon()
			old, lost := stamped(3, 1), stamped(3, 2)
			if _, err := v.WriteAt(old, 3*bs); err != nil {
				t.Fatal(err)
			}
			if err := v.Flush(); err != nil {
				t.Fatal(err)
			}
			eio := errors.New("input/output error")
			armed := true
			fs.Hook = func(_ int, op string) error {
				if armed && bytes.HasPrefix([]byte(op), []byte(what)) {
					armed = false // once: a later sync would lie
					return eio
				}
				return nil
			}
			// two segments' worth, so that the directory changes too
			for i := range 200 {
				if _, err := v.WriteAt(stamped(300+i, 9), int64(300+i)*bs); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := v.WriteAt(lost, 3*bs); err != nil {
				t.Fatal(err)
			}
			if what == "sync manifest" {
				err = v.Checkpoint()
			} else {
				err = v.Flush()
			}
			if !errors.Is(err, block.ErrFailed) || !errors.Is(err, eio) {
				t.Errorf("first sync: %v, want ErrFailed and the cause", err)
			}
			for name, err := range map[string]error{
				"Flush": v.Flush(), "WriteAt": second(v.WriteAt(old, 0)), "ReadAt": second(v.ReadAt(old, 0)),
				"Discard": v.Discard(0, bs), "Checkpoint": v.Checkpoint(), "Close": v.Close(),
			} {
				if !errors.Is(err, block.ErrFailed) {
					t.Errorf("%s afterwards: %v, want ErrFailed", name, err)
				}
			}
			for seed := range uint64(50) {
				c := fs.Crash(rand.New(rand.NewPCG(seed, 3)))
				w, err := block.Open("", block.Options{Key: key(1), FS: c, CheckpointInterval: -1})
				if err != nil {
					t.Fatalf("reopen: %v", err)
				}
				got := make([]byte, bs)
				if _, err := w.ReadAt(got, 3*bs); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, stamped(3, 1)) && !bytes.Equal(got, lost) {
					t.Error("block 3 holds neither what was flushed nor what was written last")
				}
				w.Abandon()
			}
		})
	}
}

func second(_ int, err error) error { return err }

// TestFullDisk fills the host, checks that refused writes hurt nothing, and that
// trimming makes room again.
func TestFullDisk(t *testing.T) {
	fs := blocktest.NewMemFS()
	fs.SetCapacity(6 << 20)
	blocks := 4096
	opt := block.Options{VolumeID: "vol-full", SizeBytes: int64(blocks) * bs, Key: key(1), FS: fs, SegmentSlots: 128, CheckpointInterval: -1}
	if _, err := block.Create("", opt); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open("", opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { v.Abandon() }()
	want := map[int]uint64{}
	fill := func() (ok int) {
		for i := range blocks {
			_, err := v.WriteAt(stamped(i, uint64(i+1)), int64(i)*bs)
			if errors.Is(err, block.ErrNoSpace) {
				return i
			}
			if err != nil {
				t.Fatal(err)
			}
			want[i] = uint64(i + 1)
		}
		t.Fatal("the disk never filled up")
		return 0
	}
	n := fill()
	verify := func() {
		t.Helper()
		for i, s := range want {
			got := make([]byte, bs)
			if _, err := v.ReadAt(got, int64(i)*bs); err != nil || !bytes.Equal(got, stamped(i, s)) {
				t.Fatalf("block %d after a full disk: %v", i, err)
			}
		}
	}
	verify()
	if err := v.Flush(); err != nil {
		t.Errorf("flush on a full disk: %v, want success: what was acknowledged has room", err)
	}
	if _, err := v.WriteAt(stamped(4000, 1), 4000*bs); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("write on a full disk: %v, want ErrNoSpace", err)
	}
	// a crash now loses nothing
	c := fs.Kill()
	v.Abandon()
	fs = c
	opt.FS = fs
	if v, err = block.Open("", opt); err != nil {
		t.Fatalf("open on a full disk: %v", err)
	}
	verify()
	if err := v.Discard(0, int64(n)*bs); err != nil {
		t.Fatalf("discard on a full disk: %v", err)
	}
	if err := v.Checkpoint(); err != nil {
		t.Fatalf("checkpoint on a full disk: %v", err)
	}
	clear(want)
	if m := fill(); m < n*8/10 {
		t.Errorf("after trimming everything only %d blocks fit, before it were %d", m, n)
	}
	verify()
}

// TestCrashReuse cuts the power at every operation of a volume that goes on in files of dead segments: what these held is never taken for anything.
func TestCrashReuse(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	var watch blocktest.NonceWatch
	h := &history{blocks: 240}
	fs := blocktest.NewMemFS()
	opt := block.Options{VolumeID: "vol-reuse", SizeBytes: int64(h.blocks) * bs, Key: key(1), FS: fs, Suite: &watch, SegmentSlots: 121, CheckpointInterval: -1,
		OnAnchor: func(a block.Anchor) { h.mu.Lock(); h.anchor = a; h.mu.Unlock() }}
	a, err := block.Create("", opt)
	if err != nil {
		t.Fatal(err)
	}
	h.anchor = a
	if err := fs.SyncDir(); err != nil {
		t.Fatal(err)
	}
	v, err := block.Open("", opt)
	if err != nil {
		t.Fatal(err)
	}
	reused, cases := 0, 0
	var failed error
	r := rand.New(rand.NewPCG(7, 7))
	fs.Hook = func(n int, op string) error {
		if strings.HasPrefix(op, "reuse ") {
			reused++
		}
		least, acked, anchor := h.snapshot()
		for k := range 4 {
			found, least := fs.Crash(r), least
			if k == 3 {
				found, least = fs.Kill(), acked
			}
			cases++
			if err := h.check(found, least, anchor, &watch, r, 0); err != nil && failed == nil {
				failed = fmt.Errorf("cut %d before operation %d (%s): %w", k, n, op, err)
			}
		}
		return nil
	}
	write := func(from, n int) {
		t.Helper()
		var p []byte
		h.mu.Lock()
		for i := range n {
			h.events = append(h.events, event{from + i, 1, uint64(len(h.events) + 1)})
			p = append(p, stamped(from+i, uint64(len(h.events)))...)
		}
		h.mu.Unlock()
		if _, err := v.WriteAt(p, int64(from)*bs); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		h.acked = len(h.events)
		h.mu.Unlock()
	}
	flush := func() {
		t.Helper()
		h.mu.Lock()
		upto := h.acked
		h.mu.Unlock()
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		h.flushed = max(h.flushed, upto)
		h.mu.Unlock()
	}
	for range rounds {
		for at := 0; at < h.blocks; {
			n := min(h.blocks-at, 1+r.IntN(60))
			write(at, n)
			if at += n; r.IntN(2) == 0 {
				flush()
			}
		}
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if failed != nil {
			t.Fatal(failed)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	if reused < rounds/2 {
		t.Errorf("%d files were used again in %d rounds", reused, rounds)
	}
	if segs := slices.DeleteFunc(fs.Names(), func(n string) bool { return !strings.HasPrefix(n, "seg-") }); len(segs) > 5 {
		t.Errorf("closed with %d files of segments: %v", len(segs), segs)
	}
	if _, err := watch.Check(); err != nil {
		t.Error(err)
	}
	t.Logf("%d crash states, %d files used again", cases, reused)
}
