package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func archive(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, &Manifest{Created: "2026-11-26T00:00:00Z", Account: "111122223333", Roots: []Root{{ID: "0011223344556677", Generation: 1, Seal: "file"}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := w.Record(fmt.Sprint("kms/key/", i), []byte{1, '{', '}'}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.File("audit/segment-1.jsonl", 5, strings.NewReader("hello, and more")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(func(d []byte) ([]byte, error) { return append([]byte("wrapped"), d...), nil }); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	var got []string
	end, err := Read(bytes.NewReader(archive(t)), Visitor{
		Manifest: func(m *Manifest) error { got = append(got, m.Account); return nil },
		Record:   func(key string, value []byte) error { got = append(got, key+string(value[1:])); return nil },
		File: func(name string, size int64, body io.Reader) error {
			b, err := io.ReadAll(body)
			got = append(got, name+"="+string(b))
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "111122223333 kms/key/0{} kms/key/1{} kms/key/2{} audit/segment-1.jsonl=hello"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("read %s, want %s", s, want)
	}
	if !bytes.Equal(end.Wrapped, append([]byte("wrapped"), end.Digest...)) {
		t.Errorf("the wrapped hash is %x", end.Wrapped)
	}
}

// Every archive that was cut, or in which a byte was changed, is refused.
func TestDamage(t *testing.T) {
	good := archive(t)
	for n := range good {
		if _, err := Read(bytes.NewReader(good[:n]), Visitor{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d of %d bytes: Read = %v, want ErrDamaged", n, len(good), err)
		}
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(good), 0)), Visitor{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte appended: Read = %v, want ErrDamaged", err)
	}
	wrapped := len(good) - 32 - len("wrapped") // behind the hash: whether it opens is for the root key to say
	for i := range wrapped {
		bad := bytes.Clone(good)
		bad[i] ^= 0x41
		if _, err := Read(bytes.NewReader(bad), Visitor{}); err == nil {
			t.Fatalf("byte %d of %d changed: it was accepted", i, len(good))
		}
	}
}

func TestPaths(t *testing.T) {
	for name, want := range map[string]bool{"audit/x": true, "x": true, "": false, ".": false, "..": false, "../x": false, "a/../b": false, "/etc/passwd": false, "a//b": false, "a/": false, "a\x00": false, "...": true, "a\\b": false} {
		if clean(name) != want {
			t.Errorf("clean(%q) = %t, want %t", name, !want, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	good := archive(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := ""
		_, _ = Read(bytes.NewReader(b), Visitor{
			Record: func(key string, value []byte) error {
				if key <= last {
					t.Errorf("record %q after %q", key, last)
				}
				last = key
				return nil
			},
			File: func(name string, size int64, body io.Reader) error {
				if !clean(name) || size < 0 {
					t.Errorf("file %q of %d bytes", name, size)
				}
				return nil
			},
		})
	})
}
