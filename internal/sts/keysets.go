package sts

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keySets are the signing keys of providers, fetched when a token needs them. Anybody
// can show a token, so what that makes this server do is bounded: of a provider one fetch is under
// way at a time, whose outcome all who need it share; after it, failed ones included, the
// provider is left alone for keySetRetry; and maxFetches are under way in all.
type keySets struct {
	now   func() time.Time
	slots chan struct{} // one in it for each fetch under way
	mu    sync.Mutex    // guards what follows, and every keySet
	m     map[string]*keySet
}

type keySet struct {
	at     time.Time // of the last fetch that succeeded
	keys   *jose.JSONWebKeySet
	failed time.Time // of the last fetch, if it failed
	err    error
	under  *keyFetch // way, nil when none is
}

// keyFetch is a fetch under way; the results are there when done is closed.
type keyFetch struct {
	done chan struct{}
	keys *jose.JSONWebKeySet
	err  error
}

const (
	keySetAge   = 10 * time.Minute // as long as keys are used without asking again
	keySetRetry = 10 * time.Second // how soon a provider is asked again: for a key that it did not have, or after it failed
	fetchTime   = 10 * time.Second
	maxKeySets  = 1000
	maxFetches  = 32
)

func newKeySets(now func() time.Time) *keySets {
	return &keySets{now: now, slots: make(chan struct{}, maxFetches), m: map[string]*keySet{}}
}

// get returns the keys known under id when they are younger than least, else what fetch
// finds now, or found or failed with a moment ago.
func (ks *keySets) get(ctx context.Context, id string, least time.Duration, fetch func(context.Context) (*jose.JSONWebKeySet, error)) (*jose.JSONWebKeySet, error) {
	now := ks.now()
	recent := func(at time.Time, age time.Duration) bool { return !now.Before(at) && now.Sub(at) < age }
	ks.mu.Lock()
	set := ks.m[id]
	if set == nil {
		if len(ks.m) >= maxKeySets {
			clear(ks.m)
		}
		set = &keySet{}
		ks.m[id] = set
	}
	switch {
	case set.keys != nil && recent(set.at, least):
		defer ks.mu.Unlock()
		return set.keys, nil
	case set.err != nil && recent(set.failed, keySetRetry):
		defer ks.mu.Unlock()
		return nil, set.err
	case set.under == nil:
		f := &keyFetch{done: make(chan struct{}), err: unreachable(errBusy)}
		set.under = f
		ks.mu.Unlock()
		// Others may come to wait for it: it goes on when this caller hangs up.
		ks.run(context.WithoutCancel(ctx), set, f, fetch)
		return f.keys, f.err
	}
	f := set.under
	ks.mu.Unlock()
	select {
	case <-f.done:
		return f.keys, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errBusy = errors.New("too many providers are being asked just now")

// run fetches, once one of maxFetches may.
func (ks *keySets) run(ctx context.Context, set *keySet, f *keyFetch, fetch func(context.Context) (*jose.JSONWebKeySet, error)) {
	defer func() {
		ks.mu.Lock()
		set.under = nil
		ks.mu.Unlock()
		close(f.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	select {
	case ks.slots <- struct{}{}:
		defer func() { <-ks.slots }()
	case <-ctx.Done():
		return // no failure of the provider's
	}
	asked := ks.now()
	f.keys, f.err = fetch(ctx)
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if set.err = f.err; f.err == nil {
		set.keys, set.at = f.keys, asked
	} else {
		set.failed = ks.now()
	}
}
