package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/secret"
)

func TestSeedFile(t *testing.T) {
	s := Spec{ID: "ws-1", Seed: Seed{UserName: "alice", FullName: "Älice O'Neil", PasswordHash: secret.New([]byte("$6$a.b/c$d"))}}.WithDefaults()
	f := SeedFile(s)
	var got map[string]any
	if err := json.Unmarshal(f.Expose(), &got); err != nil {
		t.Fatalf("seed %q: %v", f.Expose(), err)
	}
	want := map[string]any{"version": 1.0, "machine": "ws-1", "user": "alice", "full_name": "Älice O'Neil", "password_hash": "$6$a.b/c$d", "hostname": "ws-1",
		"time_zone": "Etc/UTC", "keyboard_layout": "us", "locale": "C.UTF-8", "width": 1280.0, "height": 800.0}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("seed[%q] = %v, want %v", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("seed has %d members, want %d: %v", len(got), len(want), got)
	}
	if lines := strings.Count(string(f.Expose()), "\n"); lines != len(want)+2 {
		t.Errorf("seed has %d lines, want %d: one a member, for shells", lines, len(want)+2)
	}
	js, _ := json.Marshal(s)
	if strings.Contains(string(js), "$6$") || strings.Contains(string(js), "secret") {
		t.Errorf("a Spec in JSON holds the password hash: %s", js)
	}
}

func TestTextChords(t *testing.T) {
	const all = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\n\t"
	chords, err := TextChords(all)
	if err != nil || len(chords) != len(all) {
		t.Fatalf("TextChords(all) = %d chords, %v; want %d", len(chords), err, len(all))
	}
	if err := ValidateChords(chords); err != nil {
		t.Error(err)
	}
	seen := map[string]rune{}
	for i, c := range chords {
		var k []string
		for _, x := range c {
			k = append(k, string(x))
		}
		s := strings.Join(k, "-")
		if other, twice := seen[s]; twice {
			t.Errorf("%q and %q are typed by the same keys %s", other, all[i], s)
		}
		seen[s] = rune(all[i])
	}
	for _, bad := range []string{"é", "\x00", "a\r", "日本"} {
		if _, err := TextChords(bad); err == nil {
			t.Errorf("TextChords(%q) = nil, want an error", bad)
		}
	}
}

func encode(t *testing.T, w, h int, at func(x, y int) color.Color) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.Set(x, y, at(x, y))
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPainted(t *testing.T) {
	text := func(x, y int) color.Color {
		if y%16 < 10 && x%9 < 4 && y < 300 {
			return color.Gray{170}
		}
		return color.Black
	}
	gradient := func(x, y int) color.Color { return color.RGBA{uint8(x / 8), uint8(y / 4), 160, 255} }
	for _, c := range []struct {
		name string
		png  []byte
		want bool
	}{
		{"no picture", []byte("GIF89a"), false},
		{"text mode", encode(t, 720, 400, text), false},
		{"graphics console", encode(t, 1280, 800, text), false},
		{"black", encode(t, 1280, 800, func(int, int) color.Color { return color.Black }), false},
		{"grey", encode(t, 1280, 800, func(int, int) color.Color { return color.Gray{90} }), false},
		{"wallpaper", encode(t, 1280, 800, gradient), true},
		{"terminal over wallpaper", encode(t, 1280, 800, func(x, y int) color.Color {
			if x < 700 && y < 500 {
				return text(x, y)
			}
			return gradient(x, y)
		}), true},
	} {
		if got, why := Painted(c.png); got != c.want {
			t.Errorf("Painted(%s) = %v (%s), want %v", c.name, got, why, c.want)
		}
	}
}

func TestBroadcaster(t *testing.T) {
	b := NewBroadcaster()
	ctx, cancel := context.WithCancel(context.Background())
	slow, quick := b.Subscribe(ctx), b.Subscribe(context.Background())
	for i := range 3 * eventBacklog {
		b.Send(Event{Machine: "m", Detail: strconv.Itoa(i)})
		if got := (<-quick).Detail; got != strconv.Itoa(i) {
			t.Fatalf("event %d arrives as %s", i, got)
		}
	}
	if first := <-slow; len(slow) != eventBacklog-1 || first.Detail != strconv.Itoa(2*eventBacklog) {
		t.Errorf("slow reader begins at %s with %d more, want the newest %d", first.Detail, len(slow), eventBacklog)
	}
	cancel()
	for end := time.Now().Add(5 * time.Second); ; {
		select {
		case _, ok := <-slow:
			if ok {
				continue
			}
		case <-time.After(time.Until(end)):
			t.Fatal("channel is not closed when its context ends")
		}
		break
	}
	b.Close()
	b.Close()
	b.Send(Event{})
	if _, ok := <-quick; ok {
		t.Error("channel is open after Close")
	}
	if _, ok := <-b.Subscribe(context.Background()); ok {
		t.Error("Subscribe after Close gives an open channel")
	}
}

func TestDialLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	l, err := net.Listen("unix", "s") // relative, so short enough to listen on
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(context.Background(), filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := Dial(context.Background(), filepath.Join(dir, "none")); err == nil {
		t.Error("Dial of nothing = nil, want an error")
	}
}
