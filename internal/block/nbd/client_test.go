package nbd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/sealdesk/sealdesk/internal/block"
)

func TestClient(t *testing.T) {
	sock, _ := export(t, 64<<20)
	if _, err := Dial(context.Background(), sock, "no such export"); err == nil {
		t.Error("Dial of an unknown export succeeded")
	}
	c, err := Dial(context.Background(), sock, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Size() != 64<<20 {
		t.Errorf("Size = %d, want 64 MiB", c.Size())
	}
	want := make([]byte, 9<<20)
	_, _ = rand.Read(want)
	if _, err := c.WriteAt(want, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteZeroes(2<<20, 1<<20, false); err != nil {
		t.Fatal(err)
	}
	clear(want[1<<20 : 2<<20])
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAt: %v, equal %v; want what was written", err, bytes.Equal(got, want))
	}
	ext, err := c.BlockStatus(0, 16<<20, 16)
	if err != nil || len(ext) < 5 || !ext[0].Hole || ext[0].Len != 1<<20 || ext[1].Hole || !ext[2].Hole {
		t.Errorf("BlockStatus = %+v, %v; want hole, data, hole, data, hole", ext, err)
	}
	// A refused request leaves the connection usable.
	if _, err := c.ReadAt(got[:4096], 64<<20); !errors.Is(err, block.ErrRange) {
		t.Errorf("ReadAt behind the end: %v, want ErrRange", err)
	}
	if _, err := c.ReadAt(got[:4096], 1<<20); err != nil {
		t.Errorf("ReadAt after a refusal: %v", err)
	}
}
