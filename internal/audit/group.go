package audit

import "time"

// Group commit. A sync costs the same for one record as for a hundred: the
// processor time of the file system's own threads, and waking everybody up. So,
// while many calls wait at a time, a sync is not begun for the first few records
// that happen to be there but for a quarter of the calls there usually are; the
// others are worked on meanwhile. A call alone, or among a few, never waits for
// others; among many it waits gatherTime at most.

const (
	// few calls at a time are synced as they come.
	few = 8
	// gatherTime bounds the wait for others.
	gatherTime = time.Millisecond
	// quietTime: after it nothing is known of how many calls to expect.
	quietTime = 10 * time.Millisecond
)

// join notes that a call waits for b. It returns whether the caller is to write
// the batch itself: it leaves that to the flusher when others are to be waited
// for. mu is held.
func (l *Log) join(b *batch, lead bool) bool {
	l.calls++
	b.calls++
	if l.cfg.Sync != Fsynced {
		return lead
	}
	if lead && l.peers > few {
		if time.Since(l.flushed) > quietTime {
			l.peers = 0
			return true
		}
		notify(l.wake)
		return false
	}
	if l.target > 0 && b.calls >= l.target {
		l.target = 0
		notify(l.full)
	}
	return lead
}

// gather waits until about a quarter of the usual calls are in the batch, gatherTime at most.
func (l *Log) gather() {
	if l.cfg.Sync != Fsynced {
		return
	}
	select {
	case <-l.full: // of a round that ran out of time
	default:
	}
	l.mu.Lock()
	if l.peers > few && l.cur.calls < l.peers/4 {
		l.target = l.peers / 4
	}
	wait := l.target > 0
	l.mu.Unlock()
	if !wait {
		return
	}
	t := time.NewTimer(gatherTime)
	select {
	case <-l.full:
	case <-t.C:
	case <-l.quit:
	}
	t.Stop()
	l.mu.Lock()
	l.target = 0
	l.mu.Unlock()
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
