package compute

import (
	"context"
	"sync"
)

// eventBacklog is how many events a reader may be behind.
const eventBacklog = 256

// Broadcaster gives every Event sent to it to every subscriber, in order, and never waits for one: a subscriber that is more than
// 256 events behind loses the oldest. Drivers use it to keep the promise of Driver.Events.
type Broadcaster struct {
	mu     sync.Mutex
	closed bool
	subs   map[chan Event]struct{}
}

// NewBroadcaster returns a Broadcaster without subscribers.
func NewBroadcaster() *Broadcaster { return &Broadcaster{subs: map[chan Event]struct{}{}} }

// Send delivers e. After Close it does nothing.
func (b *Broadcaster) Send(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.subs {
		for sent := false; !sent; {
			select {
			case c <- e:
				sent = true
			default:
				select {
				case <-c: // the oldest makes room
				default:
				}
			}
		}
	}
}

// Subscribe returns a channel of all events from now on; it is closed when ctx ends or the Broadcaster is closed.
func (b *Broadcaster) Subscribe(ctx context.Context) <-chan Event {
	c := make(chan Event, eventBacklog)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(c)
		return c
	}
	b.subs[c] = struct{}{}
	context.AfterFunc(ctx, func() { b.drop(c) })
	return c
}

func (b *Broadcaster) drop(c chan Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.subs[c]; ok {
		delete(b.subs, c)
		close(c)
	}
}

// Close closes every subscriber's channel.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for c := range b.subs {
		delete(b.subs, c)
		close(c)
	}
}
