package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// limits measures what no peer has anything to compare with: recovery, many volumes, snapshots, steady overwriting.
type limits struct {
	dir string
	key *secret.Bytes
	n   int
}

func measureLimits(dir, only string) error {
	d, err := os.MkdirTemp(dir, "sdlimits")
	if err != nil {
		return err
	}
	defer os.RemoveAll(d)
	l := &limits{dir: d, key: secret.New(bytes.Repeat([]byte{1}, 64))}
	for _, m := range []struct {
		name string
		f    func() (string, error)
	}{
		{"restart after kill -9 with 4 GiB of log since the checkpoint", l.recovery},
		{"1,000 attached idle volumes", l.many},
		{"attach to first byte (median of 50)", l.attach},
		{"4 KiB writes after a snapshot against before (median of 15)", l.afterSnapshot},
		{"4 KiB write + flush against a plain file's (median of 15)", l.flushes},
		{"4 KiB random reads, 50 snapshots and clones deep against none (median of 9)", l.chain},
		{"steady random overwrite of a full volume", l.overwrite},
		{"10 GiB volume from an image: created and first block read", l.image},
	} {
		if !strings.Contains(m.name, only) {
			continue
		}
		s, err := m.f()
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Printf("%-78s %s\n", m.name, s)
	}
	return nil
}

func (l *limits) create(size int64, base *block.Base) (string, error) {
	l.n++
	dir := filepath.Join(l.dir, fmt.Sprint("vol", l.n))
	_, err := block.Create(dir, block.Options{VolumeID: fmt.Sprint("vol-", l.n), SizeBytes: size, Key: l.key, Base: base})
	return dir, err
}

func (l *limits) open(dir string, opt block.Options) (*block.Volume, error) {
	opt.Key = l.key
	return block.Open(dir, opt)
}

func (l *limits) fresh(size int64, opt block.Options) (*block.Volume, string, error) {
	dir, err := l.create(size, nil)
	if err != nil {
		return nil, "", err
	}
	v, err := l.open(dir, opt)
	return v, dir, err
}

// fill writes n bytes from the start, sequentially or at random places of the whole volume.
func fill(v *block.Volume, n int64, size int, random bool) error {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	for at := int64(0); at < n; at += int64(size) {
		off := at % v.Size()
		if random {
			off = rand.Int64N(v.Size()/int64(size)) * int64(size)
		}
		if _, err := v.WriteAt(p, off); err != nil {
			return err
		}
	}
	return nil
}

func (l *limits) recovery() (string, error) {
	v, dir, err := l.fresh(8<<30, block.Options{CheckpointInterval: -1, CheckpointBytes: 1 << 40})
	if err != nil {
		return "", err
	}
	for range 64 { // a guest flushes now and then; what was not flushed at the end is verified block by block
		if err := errors.Join(fill(v, 64<<20, 128<<10, true), v.Flush()); err != nil {
			return "", err
		}
	}
	if err := fill(v, 32<<20, 128<<10, true); err != nil {
		return "", err
	}
	v.Abandon()
	start := time.Now()
	if v, err = l.open(dir, block.Options{}); err != nil {
		return "", err
	}
	took := time.Since(start)
	if err := v.Close(); err != nil {
		return "", err
	}
	return took.Round(time.Millisecond).String(), block.Destroy(dir)
}

func rss() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	var kib int64
	for _, line := range strings.Split(string(b), "\n") {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			break
		}
	}
	return kib << 10
}

func (l *limits) many() (string, error) {
	before := rss()
	var all []*block.Volume
	defer func() {
		for _, v := range all {
			v.Abandon()
		}
	}()
	for range 1000 {
		v, _, err := l.fresh(10<<30, block.Options{})
		if err != nil {
			return "", err
		}
		all = append(all, v)
		if err := fill(v, 1<<20, 128<<10, false); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d MiB more", (rss()-before)>>20), nil
}

func (l *limits) attach() (string, error) {
	v, dir, err := l.fresh(10<<30, block.Options{})
	if err != nil {
		return "", err
	}
	if err := fill(v, 64<<20, 128<<10, false); err != nil {
		return "", err
	}
	var took []float64
	for range 50 {
		if err := v.Close(); err != nil {
			return "", err
		}
		start := time.Now()
		if v, err = l.open(dir, block.Options{}); err != nil {
			return "", err
		}
		if _, err := v.ReadAt(make([]byte, 4096), 32<<20); err != nil {
			return "", err
		}
		took = append(took, float64(time.Since(start).Microseconds()))
	}
	v.Abandon()
	return fmt.Sprintf("%.1f ms", median(took)/1e3), nil
}

func timed(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return float64(time.Since(start).Nanoseconds()), err
}

func (l *limits) afterSnapshot() (string, error) {
	v, _, err := l.fresh(256<<20, block.Options{CheckpointInterval: -1})
	if err != nil {
		return "", err
	}
	defer v.Abandon()
	if err := fill(v, 256<<20, 128<<10, false); err != nil {
		return "", err
	}
	var ratio, firstRatio []float64
	for i := range 15 {
		write := func() error { return fill(v, 8<<20, 4096, true) }
		one := func() error { return fill(v, 4096, 4096, true) }
		firstBefore, err := timed(one)
		if err != nil {
			return "", err
		}
		before, err := timed(write)
		if err != nil {
			return "", err
		}
		if _, err := v.Snapshot(filepath.Join(l.dir, fmt.Sprint("snap", i)), "snap"); err != nil {
			return "", err
		}
		firstAfter, err := timed(one)
		if err != nil {
			return "", err
		}
		after, err := timed(write)
		if err != nil {
			return "", err
		}
		ratio = append(ratio, before/after)
		firstRatio = append(firstRatio, firstBefore/firstAfter)
	}
	return fmt.Sprintf("%.2f times as fast; the very first one %.2f times", median(ratio), median(firstRatio)), nil
}

// flushes compares with overwriting a file in place, which is what nbdkit's file plugin does.
func (l *limits) flushes() (string, error) {
	const size = 256 << 20
	v, _, err := l.fresh(size, block.Options{})
	if err != nil {
		return "", err
	}
	defer v.Abandon()
	f, err := os.Create(filepath.Join(l.dir, "plain"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		if _, err := f.WriteAt(p, off); err != nil {
			return "", err
		}
	}
	if err := errors.Join(fill(v, size, 1<<20, false), v.Flush(), f.Sync()); err != nil {
		return "", err
	}
	cpu := func() float64 {
		var r syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		return float64(r.Utime.Nano() + r.Stime.Nano())
	}
	var speed, cost []float64
	for range 15 {
		var ns, used [2]float64
		for i, one := range []func(off int64) error{
			func(off int64) error { _, err := v.WriteAt(p[:4096], off); return errors.Join(err, v.Flush()) },
			func(off int64) error {
				_, err := f.WriteAt(p[:4096], off)
				return errors.Join(err, syscall.Fdatasync(int(f.Fd())))
			},
		} {
			before := cpu()
			ns[i], err = timed(func() error {
				for range 300 {
					if err := one(rand.Int64N(size/4096) * 4096); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return "", err
			}
			used[i] = cpu() - before
		}
		speed, cost = append(speed, ns[1]/ns[0]), append(cost, used[0]/used[1])
	}
	return fmt.Sprintf("%.2f times as fast, with %.2f times the CPU", median(speed), median(cost)), nil
}

func reads(v *block.Volume) (float64, error) {
	p := make([]byte, 4096)
	return timed(func() error {
		for range 20000 {
			if _, err := v.ReadAt(p, rand.Int64N(v.Size()/4096)*4096); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *limits) chain() (string, error) {
	plain, _, err := l.fresh(64<<20, block.Options{CheckpointInterval: -1})
	if err != nil {
		return "", err
	}
	defer plain.Abandon()
	deep, _, err := l.fresh(64<<20, block.Options{CheckpointInterval: -1})
	if err != nil {
		return "", err
	}
	for _, v := range []*block.Volume{plain, deep} {
		if err := fill(v, 64<<20, 128<<10, false); err != nil {
			return "", err
		}
	}
	for i := range 50 {
		snap := filepath.Join(l.dir, fmt.Sprint("chain", i))
		if _, err := deep.Snapshot(snap, "snap"); err != nil {
			return "", err
		}
		if err := deep.Close(); err != nil {
			return "", err
		}
		dir := filepath.Join(l.dir, fmt.Sprint("clone", i))
		if _, err := block.Clone(dir, block.Options{VolumeID: fmt.Sprint("clone-", i), Key: l.key}, block.Source{Dir: snap, Key: l.key}); err != nil {
			return "", err
		}
		if deep, err = l.open(dir, block.Options{CheckpointInterval: -1}); err != nil {
			return "", err
		}
		for _, v := range []*block.Volume{plain, deep} {
			if err := fill(v, 1<<20, 4096, true); err != nil {
				return "", err
			}
		}
	}
	defer deep.Abandon()
	var ratio []float64
	for range 9 {
		a, err := reads(plain)
		if err != nil {
			return "", err
		}
		b, err := reads(deep)
		if err != nil {
			return "", err
		}
		ratio = append(ratio, a/b)
	}
	return fmt.Sprintf("%.2f times as fast", median(ratio)), nil
}

// diskUse is what the files of dir occupy.
func diskUse(dir string) (n int64, err error) {
	des, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, de := range des {
		fi, err := de.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return 0, err
		}
		n += fi.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n, nil
}

func (l *limits) overwrite() (string, error) {
	run := func(rate int64) (amp, p99, space float64, err error) {
		const size = 2 << 30
		v, dir, err := l.fresh(size, block.Options{CompactBytesPerSecond: rate})
		if err != nil {
			return 0, 0, 0, err
		}
		if err := fill(v, size, 128<<10, false); err != nil {
			return 0, 0, 0, err
		}
		var a block.Stats
		var lat []float64
		p := make([]byte, 4096)
		const batches = 5 * size / 2 / 4096 / 32
		for i := range batches { // of 32, as a queue of that depth brings them
			if i == batches/2 { // from here on the state is a steady one
				a, lat = v.Stats(), nil
			}
			if i%512 == 0 && i >= batches/2 {
				used, err := diskUse(dir)
				if err != nil {
					return 0, 0, 0, err
				}
				space = max(space, float64(used)/float64(v.Size()))
			}
			ns, err := timed(func() error {
				for range 32 {
					if err := v.WriteBuffered(p, rand.Int64N(v.Size()/4096)*4096); err != nil {
						return err
					}
				}
				return v.Push()
			})
			if err != nil {
				return 0, 0, 0, err
			}
			lat = append(lat, ns)
		}
		slices.Sort(lat)
		b := v.Stats()
		if err := v.Close(); err != nil {
			return 0, 0, 0, err
		}
		wrote := float64(b.LogBytes-a.LogBytes+b.PageBytes-a.PageBytes+b.CompactBytes-a.CompactBytes) / float64(b.WriteBytes-a.WriteBytes)
		return wrote, lat[len(lat)*99/100] / 1e3, space, block.Destroy(dir)
	}
	amp, with, space, err := run(1 << 40) // as fast as it must
	if err != nil {
		return "", err
	}
	_, without, _, err := run(-1)
	return fmt.Sprintf("%.2f bytes written for one in at most %.2f times the space; p99 of a batch of 32 %.0f us, without compaction %.0f us (%.1f times)", amp, space, with, without, with/without), err
}

func (l *limits) image() (string, error) {
	img := filepath.Join(l.dir, "image")
	f, err := os.Create(img)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const size = 10 << 30
	if err := f.Truncate(size); err != nil {
		return "", err
	}
	b := &block.Base{File: f, Size: size, Sums: nil}
	chunk := make([]byte, 512<<10)
	one, err := block.HashBase(context.Background(), bytes.NewReader(chunk), int64(len(chunk)))
	if err != nil {
		return "", err
	}
	for range size / len(chunk) {
		b.Sums = append(b.Sums, one.Sums[0])
	}
	start := time.Now()
	dir, err := l.create(size, b)
	if err != nil {
		return "", err
	}
	v, err := l.open(dir, block.Options{Base: b})
	if err != nil {
		return "", err
	}
	defer v.Abandon()
	if _, err := v.ReadAt(make([]byte, 4096), 5<<30); err != nil {
		return "", err
	}
	return time.Since(start).Round(time.Millisecond).String(), nil
}
