package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/blocktest"
)

// estate is a place, and hosts that come and go. Content is by parts, a byte for each.
type estate struct {
	t     *testing.T
	o     *blocktest.Objects
	watch blocktest.NonceWatch
	root  string
	hosts int
}

const (
	part  = 256 << 10
	parts = 16
)

type content [parts]byte

func newPlace(t *testing.T) *estate {
	root := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "share"); err == nil { // thousands of syncs
		t.Cleanup(func() { os.RemoveAll(shm) })
		root = shm
	}
	e := &estate{t: t, o: &blocktest.Objects{}, root: root}
	t.Cleanup(func() {
		if _, err := e.watch.Check(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// host is the directory of another host, which has nothing.
func (e *estate) host() string {
	e.hosts++
	return filepath.Join(e.root, fmt.Sprint("host", e.hosts))
}

// options of a volume; its key is that of the first letter of its ID.
func (e *estate) options(host, id string) (dir string, o block.Options, err error) {
	dir = filepath.Join(host, id)
	r, err := block.NewRemote(block.RemoteConfig{Dir: dir, Place: e.o.At, ID: id, FlushRemote: true})
	return dir, block.Options{VolumeID: id, SizeBytes: parts * part, Key: key(id[0]), FS: r, FlushCheckpoints: true, Suite: &e.watch, SegmentSlots: 160, CheckpointInterval: -1}, err
}

func (e *estate) create(host, id string) error {
	dir, o, err := e.options(host, id)
	if err == nil {
		_, err = block.Create(dir, o)
	}
	return err
}

func (e *estate) open(host, id string) (*block.Volume, error) {
	dir, o, err := e.options(host, id)
	if err != nil {
		return nil, err
	}
	v, err := block.Open(dir, o)
	if err == nil {
		e.t.Cleanup(v.Abandon)
	}
	return v, err
}

func (e *estate) clone(host, id, from string, pin block.Anchor, size int64, scratch bool) error {
	dir, o, err := e.options(host, id)
	if err != nil {
		return err
	}
	o.SizeBytes = size
	_, err = block.Clone(dir, o, block.Source{ID: from, Key: key(from[0]), Anchor: pin, Scratch: scratch})
	return err
}

func (e *estate) destroy(id string) error {
	return block.DestroyRemote(context.Background(), e.o.At, id)
}

func fill(v *block.Volume, c *content, from, to int, b byte) error {
	for i := from; i < to; i++ {
		c[i] = b
		if _, err := v.WriteAt(bytes.Repeat([]byte{b}, part), int64(i)*part); err != nil {
			return err
		}
	}
	return v.Flush()
}

func sameContent(v *block.Volume, c content) error {
	p := make([]byte, part)
	for i, b := range c {
		if _, err := v.ReadAt(p, int64(i)*part); err != nil {
			return err
		}
		if !bytes.Equal(p, bytes.Repeat([]byte{b}, part)) {
			return fmt.Errorf("part %d begins with %d, want %d", i, p[0], b)
		}
	}
	var damage error
	if err := v.Check(context.Background(), func(d block.Damage) { damage = fmt.Errorf("%+v", d) }); err != nil {
		return err
	}
	return damage
}

// read finds what a host that has nothing reads of a snapshot or volume, through a clone for reading.
func (e *estate) read(id string, pin block.Anchor, c content) error {
	host, before := e.host(), e.o.Changes()
	if err := e.clone(host, "reader", id, pin, 0, true); err != nil {
		return err
	}
	dir, o, err := e.options(host, "reader")
	if err != nil {
		return err
	}
	o.ReadOnly = true
	v, err := block.Open(dir, o)
	if err != nil {
		return err
	}
	defer v.Close()
	if e.o.Changes() != before && e.o.Before == nil {
		return fmt.Errorf("a clone for reading changed the store")
	}
	return sameContent(v, c)
}

// check opens a volume on another host and compares.
func (e *estate) check(id string, states ...content) error {
	v, err := e.open(e.host(), id)
	if err != nil {
		return err
	}
	defer v.Close()
	var errs []error
	for _, c := range states {
		err := sameContent(v, c)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// story is a life of volumes that share segments over two hosts. It notes what it was answered, and ends with the first error.
type story struct {
	*estate
	state  map[string][]content // by ID: what it may hold; nil: being made or destroyed
	pins   map[string]block.Anchor
	opened []*block.Volume
}

func (s *story) tell() error {
	one, two := s.host(), s.host()
	var vols = map[string]*block.Volume{}
	step := func(id string, result func(c content) (content, error)) error {
		var c content
		if st := s.state[id]; len(st) > 0 {
			c = st[len(st)-1]
		}
		n, err := result(c)
		if err != nil {
			s.state[id] = append(s.state[id], n)
			return err
		}
		s.state[id] = []content{n}
		return nil
	}
	write := func(id string, from, to int, b byte) error {
		return step(id, func(c content) (content, error) { err := fill(vols[id], &c, from, to, b); return c, err })
	}
	open := func(host, id string) (err error) {
		if vols[id], err = s.open(host, id); err == nil {
			s.opened = append(s.opened, vols[id])
		}
		return err
	}
	// making and destroying: in between it may or may not be there
	during := func(id string, do func() error, after []content) error {
		s.state[id] = nil
		if err := do(); err != nil {
			return err
		}
		if s.state[id] = after; after == nil {
			delete(s.state, id)
		}
		return nil
	}
	snapshot := func(of, id string) error {
		return during(id, func() (err error) { s.pins[id], err = vols[of].Snapshot("", id); return err }, s.state[of])
	}
	destroy := func(id string) error { return during(id, func() error { return s.destroy(id) }, nil) }
	clone := func(host, id, from string, size int64) error {
		return during(id, func() error { return s.clone(host, id, from, s.pins[from], size, false) }, s.state[from])
	}
	discard := func(id string, from, to int) error {
		return step(id, func(c content) (content, error) {
			for i := from; i < to; i++ {
				c[i] = 0
			}
			return c, errors.Join(vols[id].Discard(int64(from)*part, int64(to-from)*part), vols[id].Flush())
		})
	}
	for _, f := range []func() error{
		func() error { return during("a", func() error { return s.create(one, "a") }, []content{{}}) },
		func() error { return open(one, "a") },
		func() error { return write("a", 0, 12, 1) },
		func() error { return snapshot("a", "a-snap1") },
		func() error { return write("a", 0, 6, 2) },
		func() error { return clone(two, "c", "a-snap1", 0) },
		func() error { return open(two, "c") },
		func() error { return write("c", 3, 8, 3) },
		func() error { return snapshot("c", "c-snap2") },
		func() error { return destroy("a-snap1") },
		func() error { return write("a", 0, 16, 4) },
		func() error { return vols["a"].Close() },
		func() error { return destroy("a") },
		func() error { return clone(one, "d", "c-snap2", 64*parts*part) },
		func() error { return open(one, "d") },
		func() error { return discard("c", 0, 9) },
		func() error { return discard("c", 8, 16) },
		func() error { return write("c", 0, 2, 5) },
		func() error { return vols["c"].Close() },
		func() error { return snapshot("d", "d-snap3") },
		func() error { return destroy("c-snap2") },
		func() error { return destroy("c") },
		func() error { return vols["d"].Close() },
		func() error { return destroy("d") },
		func() error { return destroy("d-snap3") },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

var everybody = []string{"a", "a-snap1", "c", "c-snap2", "d", "d-snap3"}

// TestShareCrash cuts the store at every put and removal of the story, before or after it took effect. What was answered for is there,
// on a host that has nothing else; what was not can be destroyed; and when everybody is destroyed nothing is left.
func TestShareCrash(t *testing.T) {
	total := newPlace(t)
	if err := (&story{estate: total, state: map[string][]content{}, pins: map[string]block.Anchor{}}).tell(); err != nil {
		t.Fatal(err)
	}
	if left := total.o.Names(); len(left) > 0 {
		t.Fatalf("left in the store: %v", left)
	}
	t.Logf("%d changes", total.o.Changes())
	power := errors.New("the host died")
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for cut := 1; cut <= total.o.Changes(); cut += stride {
		for _, persisted := range []bool{false, true} {
			e := newPlace(t)
			s := &story{estate: e, state: map[string][]content{}, pins: map[string]block.Anchor{}}
			e.o.Before = func(n int, _, _, _ string) error {
				if n > cut || n == cut && !persisted {
					return power
				}
				return nil
			}
			e.o.After = func(n int, _, _, _ string) error {
				if n == cut && persisted {
					return power
				}
				return nil
			}
			err := s.tell() // what happens behind a success may have failed
			if err != nil && !errors.Is(err, power) && !errors.Is(err, block.ErrFailed) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			for _, v := range s.opened {
				v.Abandon()
			}
			e.o.Before, e.o.After = nil, nil
			for id, states := range s.state {
				switch {
				case len(states) == 0:
				case strings.Contains(id, "snap"):
					if err := e.read(id, s.pins[id], states[0]); err != nil {
						t.Errorf("cut at %d (persisted %t): snapshot %s: %v", cut, persisted, id, err)
					}
				default:
					if err := e.check(id, states...); err != nil {
						t.Errorf("cut at %d (persisted %t): volume %s: %v", cut, persisted, id, err)
					}
				}
			}
			// All are destroyed, in some order, by a host that dies too, and then by one that does not.
			rnd := rand.New(rand.NewPCG(uint64(cut), 0))
			ids := append([]string(nil), everybody...)
			rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			from := e.o.Changes()
			again := from + 1 + rnd.IntN(30)
			e.o.Before = func(n int, _, _, _ string) error {
				if n == again {
					return power
				}
				return nil
			}
			for range 3 { // the cut comes in the first or the second round
				for _, id := range ids {
					if err := e.destroy(id); err != nil && !errors.Is(err, power) {
						t.Errorf("cut at %d: destroy %s: %v", cut, id, err)
					}
				}
			}
			if left := e.o.Names(); len(left) > 0 {
				t.Errorf("cut at %d (persisted %t), destroyed in the order %v, cut at %d: left in the store: %v", cut, persisted, ids, again-from, left)
			}
			os.RemoveAll(e.root)
			if t.Failed() {
				return
			}
		}
	}
}

// TestShareFence: a host is overtaken while it takes a snapshot. Either the snapshot is refused, or it is whole whatever the new owner does.
func TestShareFence(t *testing.T) {
	for _, at := range []string{"put s/plan", "put a/hold-s.", "put s/gen-", "delete s/plan"} {
		e := newPlace(t)
		if err := e.create(e.host(), "a"); err != nil {
			t.Fatal(err)
		}
		v, err := e.open(e.host(), "a")
		if err != nil {
			t.Fatal(err)
		}
		var c content
		if err := fill(v, &c, 0, parts, 1); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		e.o.After = func(_ int, op, id, name string) error {
			if strings.HasPrefix(op+" "+id+"/"+name, at) {
				once.Do(func() {
					w, err := e.open(e.host(), "a")
					if err != nil {
						t.Error(err)
						return
					}
					var d content
					for b := range byte(4) { // everything old goes
						if err := errors.Join(w.Discard(0, parts*part), fill(w, &d, 0, parts, 10+b)); err != nil {
							t.Error(err)
						}
					}
					if err := w.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			return nil
		}
		pin, err := v.Snapshot("", "s")
		e.o.After = nil
		switch {
		case errors.Is(err, block.ErrFenced):
			for _, name := range e.o.Names() {
				if strings.HasPrefix(name, "s/") || strings.HasPrefix(name, "a/hold") {
					t.Errorf("overtaken at %q: %s is left", at, name)
				}
			}
		case err != nil:
			t.Errorf("overtaken at %q: %v", at, err)
		default:
			// "s" is no volume of key "s": its snapshot keeps the volume's key
			host := e.host()
			dir, o, err := e.options(host, "reader")
			if err != nil {
				t.Fatal(err)
			}
			o.SizeBytes = 0
			if _, err := block.Clone(dir, o, block.Source{ID: "s", Key: key('a'), Anchor: pin}); err != nil {
				t.Fatalf("overtaken at %q: %v", at, err)
			}
			if err := e.check("reader", c); err != nil {
				t.Errorf("overtaken at %q: the snapshot that was answered for: %v", at, err)
			}
		}
		if refused := errors.Is(err, block.ErrFenced); refused != (at == "put s/plan" || at == "put a/hold-s.") {
			t.Errorf("overtaken at %q: refused %t", at, refused)
		}
	}
}

// TestShareRace clones a snapshot while it is destroyed, and its volume while others drop its segments: what was answered for is whole.
func TestShareRace(t *testing.T) {
	for round := range 30 {
		e := newPlace(t)
		home := e.host()
		if err := e.create(home, "a"); err != nil {
			t.Fatal(err)
		}
		v, err := e.open(home, "a")
		if err != nil {
			t.Fatal(err)
		}
		var c, now content
		if err := fill(v, &c, 0, parts, 1); err != nil {
			t.Fatal(err)
		}
		now = c
		pin, err := v.Snapshot("", "a-snap")
		if err != nil {
			t.Fatal(err)
		}
		hosts := []string{e.host(), e.host(), e.host()}
		made := make([]bool, len(hosts))
		var wg sync.WaitGroup
		for i, h := range hosts {
			wg.Go(func() {
				err := e.clone(h, fmt.Sprint("c", i), "a-snap", pin, 0, false)
				made[i] = err == nil
				if err != nil && !errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), "destroyed") {
					t.Errorf("clone: %v", err)
				}
			})
		}
		wg.Go(func() {
			for range round % 7 {
				e.o.Names()
			}
			if err := e.destroy("a-snap"); err != nil {
				t.Errorf("destroy: %v", err)
			}
		})
		wg.Go(func() {
			if err := errors.Join(v.Discard(0, parts*part), fill(v, &now, 0, 4, 2), fill(v, &now, 0, 4, 3), v.Close()); err != nil {
				t.Errorf("the volume itself: %v", err)
			}
		})
		wg.Wait()
		for i, ok := range made {
			if ok {
				if err := e.check(fmt.Sprint("c", i), c); err != nil {
					t.Errorf("round %d: clone %d: %v", round, i, err)
				}
			}
		}
		for _, id := range []string{"c0", "a", "c1", "a-snap", "c2"} {
			if err := e.destroy(id); err != nil {
				t.Error(err)
			}
		}
		if left := e.o.Names(); len(left) > 0 {
			t.Errorf("round %d: left in the store: %v", round, left)
		}
		os.RemoveAll(e.root)
	}
}

// TestGoldenStore reads a store of generations of version 1 (a volume) and 2 (its snapshot, destroyed volumes' clone) that was written when they were new.
func TestGoldenStore(t *testing.T) {
	dir := filepath.Join("testdata", "store-v2")
	e := newPlace(t)
	want := content{0: 1, 1: 2}
	if *rewrite {
		host := e.host()
		write := func(v *block.Volume, at int64, b byte) {
			if _, err := v.WriteAt(bytes.Repeat([]byte{b}, 2*bs), at); err != nil {
				t.Fatal(err)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(e.create(host, "a"))
		v, err := e.open(host, "a")
		must(err)
		write(v, 0, want[0])
		pin, err := v.Snapshot("", "a-snap")
		must(err)
		must(e.clone(host, "c", "a-snap", pin, 0, false))
		must(v.Close())
		v, err = e.open(host, "c")
		must(err)
		write(v, part, want[1])
		must(v.Close())
		must(os.RemoveAll(dir))
		for _, name := range e.o.Names() {
			must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must(os.WriteFile(filepath.Join(dir, name), e.o.Object(name), 0o644))
		}
		e = newPlace(t)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(names) < 8 {
		t.Fatalf("golden store: %v %v", names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(dir, name)
		e.o.Set(rel, b)
	}
	for id, parts := range map[string]int{"a": 1, "c": 2} {
		v, err := e.open(e.host(), id)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 3*bs)
		for i := range parts {
			if _, err := v.ReadAt(p, int64(i)*part); err != nil || !bytes.Equal(p[:2*bs], bytes.Repeat([]byte{want[i]}, 2*bs)) || !bytes.Equal(p[2*bs:], make([]byte, bs)) {
				t.Errorf("%s holds something else at part %d: %v", id, i, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"a", "c", "a-snap"} {
		if err := e.destroy(id); err != nil {
			t.Error(err)
		}
	}
	if left := e.o.Names(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
