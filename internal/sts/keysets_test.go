package sts

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestKeySets: when a provider is asked, and how many are.
func TestKeySets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		ks := newKeySets(time.Now)
		asked, set, fault := 0, &jose.JSONWebKeySet{}, error(nil)
		fetch := func(context.Context) (*jose.JSONWebKeySet, error) { asked++; return set, fault }
		check := func(what string, least time.Duration, wantAsked int, wantErr error) {
			t.Helper()
			keys, err := ks.get(ctx, "p", least, fetch)
			if !errors.Is(err, wantErr) || err == nil && keys != set || asked != wantAsked {
				t.Errorf("%s: keys %p, error %v, asked %d times; want error %v, %d times", what, keys, err, asked, wantErr, wantAsked)
			}
		}
		down := errors.New("down")
		check("first", keySetAge, 1, nil)
		time.Sleep(keySetRetry - 1)
		check("an unknown key, soon", keySetRetry, 1, nil)
		time.Sleep(1)
		fault = down
		check("an unknown key, later", keySetRetry, 2, down)
		check("a known key meanwhile", keySetAge, 2, nil)
		check("an unknown key, after the failure", keySetRetry, 2, down)
		fault = nil
		time.Sleep(keySetRetry)
		check("an unknown key, when it is well again", keySetRetry, 3, nil)
		time.Sleep(keySetAge)
		check("old keys", keySetAge, 4, nil)

		// A caller that hangs up while others wait changes nothing for them.
		gate := make(chan struct{})
		slow := func(ctx context.Context) (*jose.JSONWebKeySet, error) {
			select {
			case <-gate:
				return set, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		leaving, leave := context.WithCancel(ctx)
		got := make(chan error, 2)
		go func() { _, err := ks.get(leaving, "q", keySetAge, slow); got <- err }()
		synctest.Wait()
		go func() { _, err := ks.get(ctx, "q", keySetAge, slow); got <- err }()
		synctest.Wait()
		leave()
		synctest.Wait()
		close(gate)
		for range 2 {
			if err := <-got; err != nil {
				t.Errorf("one of two callers: %v", err)
			}
		}

		// No more than maxFetches at a time; who finds no room is told, and the provider not blamed.
		gate = make(chan struct{})
		stuck := func(context.Context) (*jose.JSONWebKeySet, error) { <-gate; return set, nil }
		for i := range maxFetches {
			go func() { _, _ = ks.get(ctx, fmt.Sprint("slow", i), keySetAge, stuck) }()
		}
		synctest.Wait()
		start := time.Now()
		if _, err := ks.get(ctx, "one more", keySetAge, fetch); err == nil || time.Since(start) != fetchTime {
			t.Errorf("one fetch too many: %v after %v, want an error after %v", err, time.Since(start), fetchTime)
		}
		close(gate)
		synctest.Wait()
		if _, err := ks.get(ctx, "one more", keySetAge, fetch); err != nil || len(ks.slots) != 0 {
			t.Errorf("when there is room again: %v, %d under way", err, len(ks.slots))
		}
		for i := range 2 * maxKeySets {
			_, _ = ks.get(ctx, fmt.Sprint("many", i), keySetAge, fetch)
		}
		if len(ks.m) > maxKeySets {
			t.Errorf("%d key sets are kept, want at most %d", len(ks.m), maxKeySets)
		}
	})
}
