package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNeverPrinted(t *testing.T) {
	s := New([]byte("hunter2hunter2"))
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", s)
	js, err := json.Marshal(map[string]any{"k": s})
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s %x %q %d %v", s, s, s, s, s, s, s, struct{ S *Bytes }{s}) + log.String() + string(js)
	for _, leak := range []string{"hunter2", "68756e", "104", "aHVudGVy"} {
		if strings.Contains(out, leak) {
			t.Errorf("printed form %q contains %q", out, leak)
		}
	}
}

func TestWipe(t *testing.T) {
	src := []byte{1, 2, 3}
	s := New(src)
	if src[0] != 0 || src[2] != 0 {
		t.Errorf("New left the source readable: %v", src)
	}
	inner := s.Expose()
	s.Wipe()
	s.Wipe()
	if inner[0] != 0 || inner[2] != 0 {
		t.Errorf("Wipe left %v", inner)
	}
	defer func() {
		if recover() == nil {
			t.Error("Expose after Wipe did not panic")
		}
	}()
	s.Expose()
}

func TestEqual(t *testing.T) {
	a, b, c := New([]byte{1, 2}), New([]byte{1, 2}), New([]byte{1, 3})
	if !a.Equal(b) || a.Equal(c) {
		t.Errorf("Equal: a=b %v, a=c %v; want true, false", a.Equal(b), a.Equal(c))
	}
	d := a.Clone()
	a.Wipe()
	if !d.Equal(b) {
		t.Error("Clone shares memory with its source")
	}
}
