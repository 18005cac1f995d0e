package qemu

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// keyPause is between the press and the release of a chord and before the next one: a guest under TCG must have taken one event
// from the device's short queue before the next comes.
const keyPause = 15 * time.Millisecond

// Screendump implements compute.Driver. The picture comes through memory: a memfd is given to QEMU as a descriptor set (QMP
// add-fd) and written by it as PPM, the one form every QEMU knows.
func (d *Driver) Screendump(ctx context.Context, id string) (out []byte, err error) {
	err = d.with(ctx, id, func(_ *machine, q *monitor) error {
		fd, err := unix.MemfdCreate("screen", unix.MFD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("make memory for the screen: %w", err)
		}
		mem := os.NewFile(uintptr(fd), "screen")
		defer mem.Close()
		// QEMU takes a descriptor of a set only when its access mode is the one it wants: write only.
		w, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("open memory for the screen: %w", err)
		}
		defer w.Close()
		var set struct {
			ID int64 `json:"fdset-id"`
		}
		raw, err := q.do(ctx, "add-fd", nil, int(w.Fd()))
		if err != nil {
			return err
		}
		if err := decode(raw, &set); err != nil {
			return err
		}
		defer func() {
			free, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_, _ = q.do(free, "remove-fd", map[string]any{"fdset-id": set.ID})
		}()
		if _, err := q.do(ctx, "screendump", map[string]any{"filename": "/dev/fdset/" + strconv.FormatInt(set.ID, 10)}); err != nil {
			return err
		}
		if _, err := mem.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read the screen: %w", err)
		}
		img, err := decodePPM(bufio.NewReaderSize(mem, 1<<16))
		if err != nil {
			return fmt.Errorf("decode the screen: %w", err)
		}
		var b bytes.Buffer
		if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, img); err != nil {
			return fmt.Errorf("encode the screen: %w", err)
		}
		out = b.Bytes()
		return nil
	})
	return out, err
}

// decodePPM reads a binary PPM of 8-bit colours (netpbm ppm(5), "P6") as QEMU writes it.
func decodePPM(r *bufio.Reader) (image.Image, error) {
	var w, h, depth int
	magic, err := r.Peek(2)
	if err != nil || string(magic) != "P6" {
		return nil, fmt.Errorf("not a binary PPM: it begins with %q", magic)
	}
	if _, err := fmt.Fscanf(r, "P6\n%d %d\n%d", &w, &h, &depth); err != nil {
		return nil, fmt.Errorf("header of a PPM: %w", err)
	}
	if _, err := r.ReadByte(); err != nil {
		return nil, fmt.Errorf("header of a PPM: %w", err)
	}
	if w < 1 || h < 1 || w > 16384 || h > 16384 || depth != 255 {
		return nil, fmt.Errorf("PPM of %dx%d with maximum %d, want up to 16384x16384 with 255", w, h, depth)
	}
	row := make([]byte, 3*w)
	var img *image.NRGBA // made once the first row is there: a header alone costs no memory
	for y := range h {
		if _, err := io.ReadFull(r, row); err != nil {
			return nil, fmt.Errorf("row %d of %d of a PPM: %w", y, h, err)
		}
		if img == nil {
			img = image.NewNRGBA(image.Rect(0, 0, w, h))
		}
		line := img.Pix[y*img.Stride : y*img.Stride+4*w]
		for x := range w {
			line[4*x], line[4*x+1], line[4*x+2], line[4*x+3] = row[3*x], row[3*x+1], row[3*x+2], 255
		}
	}
	return img, nil
}

// SendKeys implements compute.Driver, by QMP input-send-event.
func (d *Driver) SendKeys(ctx context.Context, id string, chords ...compute.Chord) error {
	if err := compute.ValidateChords(chords); err != nil {
		return err
	}
	return d.with(ctx, id, func(m *machine, q *monitor) error {
		for _, c := range chords {
			if err := sendChord(ctx, q, c); err != nil {
				return fmt.Errorf("keys %q: %w", c, err)
			}
		}
		return nil
	})
}

// TypeText implements compute.Driver.
func (d *Driver) TypeText(ctx context.Context, id, text string) error {
	chords, err := compute.TextChords(text)
	if err != nil {
		return err
	}
	return d.SendKeys(ctx, id, chords...)
}

// Arrange implements compute.Driver.
func (d *Driver) Arrange(_ context.Context, id string, wish compute.Session) error {
	lines, err := wish.Lines()
	if err != nil {
		return err
	}
	m, err := d.get(id, false)
	if err != nil {
		return err
	}
	m.mu.Lock()
	agent := m.agent
	m.mu.Unlock()
	if m.process() == nil || agent == nil {
		return fmt.Errorf("machine %s: %w", id, compute.ErrNotRunning)
	}
	_ = agent.SetWriteDeadline(time.Now().Add(time.Second)) // a guest that reads nothing must not hold us
	if _, err := io.WriteString(agent, lines); err != nil {
		return fmt.Errorf("machine %s: tell the agent: %w", id, err)
	}
	return nil
}

// sendChord presses and releases; whatever happens, nothing stays pressed.
func sendChord(ctx context.Context, q *monitor, c compute.Chord) error {
	events := func(down bool) map[string]any {
		var list []any
		for i := range c {
			k := c[i]
			if !down {
				k = c[len(c)-1-i]
			}
			list = append(list, map[string]any{"type": "key", "data": map[string]any{"down": down,
				"key": map[string]any{"type": "qcode", "data": string(k)}}})
		}
		return map[string]any{"events": list}
	}
	if _, err := q.do(ctx, "input-send-event", events(true)); err != nil {
		return err
	}
	time.Sleep(keyPause)
	up, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := q.do(up, "input-send-event", events(false)); err != nil {
		return err
	}
	select {
	case <-time.After(keyPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
