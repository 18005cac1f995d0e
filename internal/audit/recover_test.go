package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// bare opens a log without its store: enough to append and to recover.
func bare(t *testing.T, dir string, open func(string) (file, error)) (*Log, error) {
	t.Helper()
	cfg := Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), openFile: open}
	cfg.EnsureDefaults()
	l := &Log{cfg: cfg, log: cfg.Logger, cur: &batch{}, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), quit: make(chan struct{}), appended: map[string]bool{}}
	l.lock, _ = os.Open(dir)
	if err := l.recover(); err != nil {
		return nil, err
	}
	l.wg.Add(1)
	go l.flusher()
	return l, nil
}

func one(n int) *Record {
	return &Record{EventID: fmt.Sprint("event-", n), EventName: "Decrypt", AWSRegion: "us-west-2", RecipientAccountID: "111122223333"}
}

// A log cut at any byte opens, holds every record that is whole, and goes on.
func TestTornTailAtEveryByte(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	l, err := bare(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := l.Append(ctx, one(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := segmentName(1)
	whole, _ := os.ReadFile(filepath.Join(dir, name))
	ends := []int{}
	for i, c := range whole {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	cut := t.TempDir()
	for size := 0; size <= len(whole); size++ {
		if size > ends[0]+2 && size < ends[2]-2 && testing.Short() {
			continue
		}
		for _, rest := range []string{"", "\x00\x00\x00"} {
			_ = os.RemoveAll(cut)
			_ = os.Mkdir(cut, 0o700)
			if err := os.WriteFile(filepath.Join(cut, name), append(bytes.Clone(whole[:size]), rest...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := 0
			for _, e := range ends[1:] {
				if size >= e {
					want++
				}
			}
			l, err := bare(t, cut, nil)
			if err != nil {
				t.Fatalf("cut at %d: %v", size, err)
			}
			if got := l.Head().Seq; got != uint64(want) {
				t.Fatalf("cut at %d: %d records, want %d", size, got, want)
			}
			if err := l.Append(ctx, one(9)); err != nil {
				t.Fatalf("cut at %d: %v", size, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := Verify(cut, nil, nil); err != nil || !r.OK() || r.Records != uint64(want+1) {
				t.Fatalf("cut at %d, one more record: %+v, %v", size, r, err)
			}
		}
	}
}

// When more than a torn record follows the last good one, it is kept as evidence.
func TestStrangeTailIsSetAside(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	l, _ := bare(t, dir, nil)
	for n := range 4 {
		if err := l.Append(ctx, one(n)); err != nil {
			t.Fatal(err)
		}
	}
	_ = l.Close()
	p := filepath.Join(dir, segmentName(1))
	b, _ := os.ReadFile(p)
	b = bytes.Replace(b, []byte("event-2"), []byte("event-x"), 1)
	_ = os.WriteFile(p, b, 0o600)
	l, err := bare(t, dir, nil)
	if err != nil || l.Head().Seq != 2 {
		t.Fatalf("opened at record %d, %v; want 2", l.Head().Seq, err)
	}
	_ = l.Close()
	kept, _ := filepath.Glob(p + ".rest-*")
	if len(kept) != 1 {
		t.Fatalf("kept %v, want one file", kept)
	}
	if k, _ := os.ReadFile(kept[0]); !bytes.Contains(k, []byte("event-x")) || !bytes.Contains(k, []byte("event-3")) {
		t.Errorf("what was set aside is %q, want records 3 and 4", k)
	}
}

// A segment that was only begun when the process was killed holds nothing.
func TestSegmentOnlyBegun(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	l, _ := bare(t, dir, nil)
	_ = l.Append(ctx, one(0))
	head := l.Head()
	_ = l.Close()
	full := appendHeader(nil, head.Log, 2, &head.Hash)
	for _, n := range []int{0, 1, len(full) - 1, len(full)} {
		if err := os.WriteFile(filepath.Join(dir, segmentName(2)), full[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := bare(t, dir, nil)
		if err != nil || l.Head() != head {
			t.Fatalf("header cut at %d: head %+v, %v; want %+v", n, l.Head(), err, head)
		}
		_ = l.Close()
	}
}

// faulty is a file that fails when told, having written nothing, some, or all.
type faulty struct {
	file
	mu        sync.Mutex
	failSync  bool
	failWrite int // bytes to write before failing, -1: no failure
}

var errDisk = errors.New("disk on fire")

func (f *faulty) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failWrite >= 0 {
		n, _ := f.file.Write(b[:min(f.failWrite, len(b))])
		return n, errDisk
	}
	return f.file.Write(b)
}

func (f *faulty) Datasync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failSync {
		return errDisk
	}
	return f.file.Datasync()
}

// After a failed write or sync nothing more is accepted, and a restart finds a
// log that holds everything that was answered.
func TestStopsAfterFailure(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		set  func(f *faulty)
		max  uint64
	}{
		{"sync fails", func(f *faulty) { f.failSync = true }, 4},
		{"nothing written", func(f *faulty) { f.failWrite = 0 }, 3},
		{"some written", func(f *faulty) { f.failWrite = 30 }, 3},
		{"written and failed", func(f *faulty) { f.failWrite = 1 << 20 }, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var f *faulty
			l, err := bare(t, dir, func(path string) (file, error) {
				in, err := openFile(path)
				f = &faulty{file: in, failWrite: -1}
				return f, err
			})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				if err := l.Append(ctx, one(n)); err != nil {
					t.Fatal(err)
				}
			}
			f.mu.Lock()
			c.set(f)
			f.mu.Unlock()
			if err := l.Append(ctx, one(3)); !errors.Is(err, ErrStopped) || !errors.Is(err, errDisk) {
				t.Errorf("Append = %v, want ErrStopped and why", err)
			}
			f.mu.Lock()
			f.failSync, f.failWrite = false, -1
			f.mu.Unlock()
			if err := l.Append(ctx, one(4)); !errors.Is(err, ErrStopped) {
				t.Errorf("Append after the failure = %v, want ErrStopped: what is on the disk is not known", err)
			}
			if err := l.Outbox(nil, one(5)); !errors.Is(err, ErrStopped) {
				t.Errorf("Outbox after the failure = %v, want ErrStopped", err)
			}
			_ = l.Close()
			if l, err = bare(t, dir, nil); err != nil {
				t.Fatal(err)
			}
			if got := l.Head().Seq; got < 3 || got > c.max {
				t.Errorf("after a restart %d records, want 3 to %d", got, c.max)
			}
			_ = l.Close()
		})
	}
}

// Waiters are not left behind when the log closes under them.
func TestCloseUnderLoad(t *testing.T) {
	dir := t.TempDir()
	l, err := bare(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok := 0
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; ; n++ {
				if err := l.Append(context.Background(), one(n)); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("Append = %v, want ErrClosed", err)
					}
					return
				}
				mu.Lock()
				ok++
				if ok == 500 {
					go l.Close()
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	r, err := Verify(dir, nil, nil)
	if err != nil || !r.OK() || r.Records < uint64(ok) {
		t.Errorf("%d answered, Verify = %+v, %v", ok, r, err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	if _, err := Open(Config{}); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("Open without a directory = %v", err)
	}
}
