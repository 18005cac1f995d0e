// Package clock is where time comes from. Everything that stamps, expires or
// waits takes a Clock from its Config, so that tests can move time by hand.
package clock

import (
	"sort"
	"sync"
	"time"
)

// Clock tells and waits for time. Times are UTC.
type Clock interface {
	// Now is the current time in UTC.
	Now() time.Time
	// After delivers once, when d has passed.
	After(d time.Duration) <-chan time.Time
}

// System is the machine's clock.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time                         { return time.Now().UTC() }
func (system) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Manual is a Clock that moves only when told. It is safe for concurrent use.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	waiters []waiter
}

type waiter struct {
	at time.Time
	ch chan time.Time
}

// NewManual returns a Manual that stands at t.
func NewManual(t time.Time) *Manual { return &Manual{now: t.UTC()} }

// Now is the time the clock was last set to.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// After delivers once Advance has moved the clock by d or more.
func (m *Manual) After(d time.Duration) <-chan time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- m.now
		return ch
	}
	m.waiters = append(m.waiters, waiter{m.now.Add(d), ch})
	return ch
}

// Advance moves the clock forward and wakes, in order of time, all who waited.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	sort.SliceStable(m.waiters, func(i, j int) bool { return m.waiters[i].at.Before(m.waiters[j].at) })
	n := 0
	for _, w := range m.waiters {
		if w.at.After(m.now) {
			break
		}
		w.ch <- m.now
		n++
	}
	m.waiters = append([]waiter(nil), m.waiters[n:]...)
}
