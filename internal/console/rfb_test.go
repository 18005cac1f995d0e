package console

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

var hello = []byte("RFB 003.008\n\x01\x01")

func key(k uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{4, 1, 0, 0}, k)
}

func cut(length int32, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{6, 0, 0, 0}, uint32(length)), text...)
}

func encodings(list ...int32) []byte {
	b := binary.BigEndian.AppendUint16([]byte{2, 0}, uint16(len(list)))
	for _, e := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(e))
	}
	return b
}

func TestClientReaderPassesWholeMessages(t *testing.T) {
	var all []byte
	for _, m := range [][]byte{hello, make([]byte, 20), encodings(7, 16, -239), {3, 0, 0, 0, 0, 0, 4, 0, 3, 0}, key('a'), {5, 1, 0, 10, 0, 20}, cut(5, "hello"), cut(-4, "\x08\x00\x00\x01"),
		{150, 1, 0, 0, 0, 0, 0, 9, 0, 9}, {248, 0, 0, 0, 0x80, 0, 0, 0, 2, 'o', 'k'}, append([]byte{251, 0, 0, 9, 0, 9, 1, 0}, make([]byte, 16)...), {255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 30}} {
		all = append(all, m...)
	}
	for _, step := range []int{1, 2, 3, 7, len(all)} { // however the bytes arrive
		sizes := 0
		c := &clientReader{Resize: func(w, h int) {
			if w != 9 || h != 9 {
				t.Errorf("step %d: told a window of %dx%d, want 9x9", step, w, h)
			}
			sizes++
		}}
		c.FromLocal.Store(true)
		c.ToLocal.Store(true)
		var got []byte
		for i := 0; i < len(all); i += step {
			out, err := c.Next(all[i:min(i+step, len(all))])
			if err != nil {
				t.Fatalf("step %d: Next at %d: %v", step, i, err)
			}
			got = append(got, out...)
		}
		if !bytes.Equal(got, all) {
			t.Errorf("step %d: passed %d bytes %x, want %d bytes %x", step, len(got), got, len(all), all)
		}
		if sizes != 1 {
			t.Errorf("step %d: told of %d window sizes, want 1", step, sizes)
		}
	}
}

func TestClientReaderWithoutClipboard(t *testing.T) {
	c := &clientReader{}
	out, err := c.Next(bytes.Join([][]byte{hello, encodings(7, encodingExtendedMouse, -1063131698), cut(6, "secret"), key('b')}, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{hello, encodings(7), key('b')}, nil)
	if !bytes.Equal(out, want) {
		t.Errorf("passed %x, want %x", out, want)
	}
}

// Each direction of the clipboard passes only when it is allowed, in both forms
// of the protocol.
func TestClientReaderClipboardDirections(t *testing.T) {
	caps, request, peek, notify, provide := cut(-4, "\x01\x00\x00\x01"), cut(-4, "\x02\x00\x00\x01"), cut(-4, "\x04\x00\x00\x00"), cut(-4, "\x08\x00\x00\x01"), cut(-8, "\x10\x00\x00\x01text")
	mixed, plain, short := cut(-4, "\x0a\x00\x00\x01"), cut(4, "text"), cut(-2, "xx")
	for _, tc := range []struct {
		from, to bool
		want     [][]byte
	}{
		{false, false, [][]byte{caps}},
		{true, false, [][]byte{caps, notify, provide, plain}},
		{false, true, [][]byte{caps, request, peek}},
		{true, true, [][]byte{caps, request, peek, notify, provide, plain}},
	} {
		c := &clientReader{}
		c.FromLocal.Store(tc.from)
		c.ToLocal.Store(tc.to)
		out, err := c.Next(bytes.Join([][]byte{hello, caps, request, peek, notify, provide, mixed, plain, short}, nil))
		if want := bytes.Join(append([][]byte{hello}, tc.want...), nil); err != nil || !bytes.Equal(out, want) {
			t.Errorf("from local %t, to local %t: passed %x, %v, want %x", tc.from, tc.to, out, err, want)
		}
	}
}

func TestClientReaderRefuses(t *testing.T) {
	for name, in := range map[string][]byte{
		"another version":       []byte("RFB 003.003\n"),
		"HTTP":                  []byte("GET / HTTP/1.1\r\n"),
		"VNC authentication":    []byte("RFB 003.008\n\x02"),
		"unknown message":       append(bytes.Clone(hello), 77),
		"QEMU audio":            append(bytes.Clone(hello), 255, 1, 0, 0),
		"too much clipboard":    append(bytes.Clone(hello), cut(maxCutText+1, "")...),
		"least negative length": append(bytes.Clone(hello), cut(-1<<31, "")...),
		"too many encodings":    append(bytes.Clone(hello), 2, 0, 0xff, 0xff),
	} {
		c := &clientReader{}
		if out, err := c.Next(in); !errors.Is(err, errRFB) {
			t.Errorf("%s: Next = %x, %v, want an error", name, out, err)
		}
	}
}

// Whatever a browser sends, however it is cut: no panic, nothing that was not
// sent, and the same decision for every way of cutting.
func FuzzClientReader(f *testing.F) {
	f.Add(append(bytes.Clone(hello), key('x')...), 3)
	f.Add(append(bytes.Clone(hello), cut(-9, "123456789")...), 1)
	f.Add(append(bytes.Clone(hello), encodings(1, 2, 3)...), 5)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		step = 1 + max(step, -step)%64
		if step < 1 {
			step = 1
		}
		whole, cutUp := &clientReader{}, &clientReader{}
		want, werr := whole.Next(in)
		var got []byte
		var gerr error
		for i := 0; i < len(in) && gerr == nil; i += step {
			var out []byte
			out, gerr = cutUp.Next(in[i:min(i+step, len(in))])
			got = append(got, out...)
		}
		if !bytes.Equal(got, want) || (gerr == nil) != (werr == nil) {
			t.Errorf("in pieces of %d: %x, %v; at once: %x, %v", step, got, gerr, want, werr)
		}
		if len(want) > len(in) {
			t.Errorf("passed %d bytes of %d", len(want), len(in))
		}
	})
}
