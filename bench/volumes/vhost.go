package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sealdesk/sealdesk/internal/block/vhostuser"
)

// load runs a job on a vhost-user-blk back end from one queue, as fio does over NBD. It waits for completions, it does not poll.
// seconds 0: once over the disk.
func (p *peer) load(j job, seconds, mib int) (value, p99, cpu float64, err error) {
	k, err := vhostuser.Dial(context.Background(), p.sock, 1, j.depth, j.bs)
	if err != nil {
		return 0, 0, 0, err
	}
	defer k.Close()
	q := k.Queue(0)
	size := int64(mib) << 20
	var at, ops int64
	lat := make([]time.Duration, 0, 1<<20)
	start := make([]time.Time, j.depth)
	flushing := make([]bool, j.depth)
	submit := func(slot int) {
		start[slot] = time.Now()
		off := at
		at = (at + int64(j.bs)) % size
		if !j.seq {
			off = rand.Int64N(size/int64(j.bs)) * int64(j.bs)
		}
		typ := uint32(vhostuser.Write)
		if rand.IntN(100) < j.reads {
			typ = vhostuser.Read
		}
		q.Submit(slot, typ, off, j.bs)
	}
	before := p.cpu()
	began := time.Now()
	for s := range j.depth {
		for i := range q.Data(s) {
			q.Data(s)[i] = byte(rand.Uint32())
		}
		submit(s)
	}
	q.Kick()
	var cs []vhostuser.Completed
	for busy := j.depth; busy > 0; {
		if cs, err = q.Reap(cs[:0], true); err != nil {
			return 0, 0, 0, err
		}
		now := time.Now()
		for _, c := range cs {
			if c.Status != 0 {
				return 0, 0, 0, fmt.Errorf("%s on %s: virtio-blk status %d", j.name, p.name, c.Status)
			}
			if j.flush && !flushing[c.Slot] {
				flushing[c.Slot] = true
				q.Submit(c.Slot, vhostuser.Flush, 0, 0)
				continue
			}
			flushing[c.Slot] = false
			ops++
			lat = append(lat, now.Sub(start[c.Slot]))
			if (seconds > 0 && now.Sub(began) < time.Duration(seconds)*time.Second) || (seconds == 0 && ops+int64(busy) <= size/int64(j.bs)) {
				submit(c.Slot)
			} else {
				busy--
			}
		}
		q.Kick()
	}
	took := time.Since(began).Seconds()
	slices.Sort(lat)
	value = float64(ops) / took
	if j.bw {
		value *= float64(j.bs) / 1e6
	}
	return value, float64(lat[len(lat)*99/100].Nanoseconds()) / 1e3, (p.cpu() - before).Seconds() * 1e6 / float64(ops), nil
}
