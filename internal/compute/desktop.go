package compute

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"time"
)

// WaitReady waits until the guest of machine id says that its desktop is painted. It ends with an error when the machine stops, panics or
// the guest reports a failure, and with ctx. progress, if not nil, is told the Status about every two seconds.
func WaitReady(ctx context.Context, d Driver, id string, progress func(Status)) (Status, error) {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	events := d.Events(watch)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		st, err := d.Status(ctx, id)
		if err != nil {
			return st, fmt.Errorf("wait for the desktop: %w", err)
		}
		switch {
		case st.GuestReady:
			return st, nil
		case st.State == StateStopped || st.State == StatePanicked:
			return st, fmt.Errorf("wait for the desktop of %s: the machine is %s: %s", id, st.State, st.Reason)
		}
		if progress != nil {
			progress(st)
		}
		for again := true; again; {
			select {
			case ev, ok := <-events:
				if !ok {
					return st, fmt.Errorf("wait for the desktop of %s: %w", id, context.Cause(ctx))
				}
				if ev.Machine == id && ev.Kind == EventGuestFailed {
					return st, fmt.Errorf("wait for the desktop of %s: the guest says: %s", id, ev.Detail)
				}
				again = ev.Machine != id
			case <-tick.C:
				again = false
			case <-ctx.Done():
				return st, fmt.Errorf("wait for the desktop of %s: %w", id, ctx.Err())
			}
		}
	}
}

// RunInTerminal opens a terminal on a painted desktop (OpenTerminalChord), types command into it and presses Enter. It returns when
// the keys are sent, not when the command has run. US keyboard only.
func RunInTerminal(ctx context.Context, d Driver, id, command string) error {
	if _, err := TextChords(command); err != nil {
		return err
	}
	before, err := Settle(ctx, d, id)
	if err != nil {
		return err
	}
	if err := d.SendKeys(ctx, id, OpenTerminalChord); err != nil {
		return err
	}
	for { // until the window is there
		now, err := shot(ctx, d, id)
		if err != nil {
			return err
		}
		if changed(before, now) > 0.05 {
			break
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("wait for a terminal on %s: %w", id, err)
		}
	}
	if _, err := Settle(ctx, d, id); err != nil { // until the prompt is there
		return err
	}
	return d.TypeText(ctx, id, command+"\n")
}

// Settle waits until the screen has changed by less than a thousandth for three seconds, and returns it. A blinking cursor and a clock are less.
func Settle(ctx context.Context, d Driver, id string) (image.Image, error) {
	last, err := shot(ctx, d, id)
	if err != nil {
		return nil, err
	}
	for quiet := 0; quiet < 3; {
		if err := sleep(ctx, time.Second); err != nil {
			return nil, fmt.Errorf("wait for the screen of %s to settle: %w", id, err)
		}
		now, err := shot(ctx, d, id)
		if err != nil {
			return nil, err
		}
		quiet++
		if changed(last, now) > 0.001 {
			quiet = 0
		}
		last = now
	}
	return last, nil
}

func sleep(ctx context.Context, t time.Duration) error {
	select {
	case <-time.After(t):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func shot(ctx context.Context, d Driver, id string) (image.Image, error) {
	b, err := d.Screendump(ctx, id)
	if err != nil {
		return nil, err
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("decode the screen of %s: %w", id, err)
	}
	return img, nil
}

// changed is the fraction of sampled pixels that differ, 1 when the sizes do.
func changed(a, b image.Image) float64 {
	if a.Bounds() != b.Bounds() {
		return 1
	}
	n, diff := 0, 0
	r := a.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y += 2 {
		for x := r.Min.X; x < r.Max.X; x += 2 {
			n++
			if a.At(x, y) != b.At(x, y) {
				diff++
			}
		}
	}
	return float64(diff) / float64(n)
}
