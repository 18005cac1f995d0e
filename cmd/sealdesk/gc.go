package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// busyEvery: collections that follow each other faster than this cost too much.
	busyEvery = 250 * time.Millisecond
	// busyRoom is what the heap may then grow by between two of them.
	busyRoom = 96 << 20
)

// paceCollector spares the garbage collector under load. A server with few keys
// has a live heap of some 20 MiB, and Go's default would collect it twenty times
// a second to save as many MiB. While collections come fast the heap may grow by
// busyRoom, or by its own size if that is more; when calls are few it goes back to
// the default, and so does the memory. An operator's GOGC or GOMEMLIMIT is left as it is.
func paceCollector() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	p := &pacer{last: time.Now(), percent: 100}
	runtime.SetFinalizer(&marker{p}, (*marker).collected)
}

type pacer struct {
	last    time.Time // of the last collection
	percent int
}

// marker is garbage from the start: its finalizer runs after every collection.
type marker struct{ p *pacer }

func (m *marker) collected() {
	p, now := m.p, time.Now()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if want := gcPercent(now.Sub(p.last), live[0].Value.Uint64(), p.percent); want != p.percent {
		p.percent = want
		debug.SetGCPercent(want)
	}
	p.last = now
	runtime.SetFinalizer(&marker{p}, (*marker).collected)
}

// gcPercent is the GOGC to use, given the time since the last collection, the
// live heap and the GOGC so far. Collections made rarer by it do not count as calm
// until they are rarer than GOGC 100 would have them.
func gcPercent(since time.Duration, live uint64, percent int) int {
	if since*100/time.Duration(percent) > busyEvery {
		return 100
	}
	want := min(max(int(busyRoom*100/max(live, 1<<20)), 100), 1000)
	if d := want - percent; percent > 100 && -percent/8 < d && d < percent/8 {
		return percent // near enough; a change stops the world
	}
	return want
}
