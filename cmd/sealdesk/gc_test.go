package main

import (
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		since   time.Duration
		live    uint64
		percent int
		want    int
	}{
		{time.Minute, 20 << 20, 100, 100},            // idle
		{50 * time.Millisecond, 20 << 20, 100, 480},  // busy
		{200 * time.Millisecond, 20 << 20, 480, 480}, // still busy: at 100 it would be every 42 ms
		{200 * time.Millisecond, 21 << 20, 480, 480}, // near enough
		{200 * time.Millisecond, 60 << 20, 480, 160}, // the live heap has grown
		{5 * time.Second, 20 << 20, 480, 100},        // calm again
		{50 * time.Millisecond, 2 << 30, 100, 100},   // large: never less than the default
		{50 * time.Millisecond, 0, 100, 1000},        // small: bounded
	} {
		if got := gcPercent(c.since, c.live, c.percent); got != c.want {
			t.Errorf("gcPercent(%v, %d MiB, %d) = %d, want %d", c.since, c.live>>20, c.percent, got, c.want)
		}
	}
}
