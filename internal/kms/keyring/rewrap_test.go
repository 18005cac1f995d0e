package keyring_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

type holding struct {
	Text string
	W    []byte
}

const records = 600

// installation is a store and a ring as a server has them.
type installation struct {
	st   *store.Store
	ring *keyring.Ring
	tab  *store.Table[holding]
}

func start(dir string) (*installation, error) {
	ring, err := keyring.Open(keyring.Config{Dir: filepath.Join(dir, "root")})
	if err != nil {
		return nil, err
	}
	st, err := store.Open(context.Background(), store.Config{DataDir: dir, EraseDelay: time.Hour})
	if err != nil {
		return nil, err
	}
	tab := store.Define[holding](st, "test/holding", 1)
	return &installation{st, ring, tab}, st.Start(context.Background())
}

func (in *installation) put(key string) error {
	return in.st.Update(context.Background(), func(tx *store.Tx) error {
		w, err := in.ring.Wrap("test", secret.New([]byte("text of "+key)), []byte(key))
		if err != nil {
			return err
		}
		return in.tab.Put(tx, key, &holding{"text of " + key, w})
	})
}

func (in *installation) run(ctx context.Context, destroyed func([]string)) {
	in.ring.Run(ctx, in.st, []keyring.Holder{keyring.Holds(in.st, in.tab, func(key string, h *holding) []keyring.Field {
		return []keyring.Field{{Purpose: "test", AAD: []byte(key), Value: &h.W}}
	})}, slog.New(slog.DiscardHandler), destroyed)
}

// check tells how many records there are, and the first that does not open.
func (in *installation) check() (n int, err error) {
	in.tab.Scan(in.st.Snapshot(), "", "", func(key string, h *holding) bool {
		n++
		b, e := in.ring.Unwrap("test", h.W, []byte(key))
		if e == nil && string(b.Expose()) != h.Text {
			e = errors.New("it opens to something else")
		}
		if e != nil {
			err = fmt.Errorf("%s: %w", key, e)
		}
		return err == nil
	})
	return n, err
}

// TestMain: the process that is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("KEYRING_TEST_VICTIM")
	if dir == "" {
		os.Exit(m.Run())
	}
	in, err := start(dir)
	if err == nil && len(in.ring.Status()) == 1 {
		err = in.ring.Rotate(nil)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	go in.run(context.Background(), func([]string) {})
	for i := 0; ; i++ { // the installation goes on working meanwhile
		if err := in.put(fmt.Sprintf("live%d", i%50)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// Killed at any moment, again and again, a rotation loses nothing and ends.
func TestRotationSurvivesKills(t *testing.T) {
	dir := t.TempDir()
	in, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := in.put(fmt.Sprintf("r%04d", i)); err != nil {
			t.Fatal(err)
		}
	}
	stop := func() {
		in.st.Close()
		in.ring.Close()
	}
	stop()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	interrupted := 0
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "KEYRING_TEST_VICTIM="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if line != "ready\n" {
			t.Fatalf("the victim said %q, %v", line, err)
		}
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if in, err = start(dir); err != nil {
			t.Fatal(err)
		}
		n, err := in.check()
		if err != nil || n < records {
			t.Fatalf("after a kill: %d records, %v; want at least %d that open", n, err, records)
		}
		if len(in.ring.Status()) > 1 {
			interrupted++
		}
		stop()
	}
	t.Logf("%d of %d rotations were interrupted", interrupted, rounds)
	if interrupted == 0 && !testing.Short() {
		t.Error("no kill hit a rotation: this test proves nothing")
	}
	if in, err = start(dir); err != nil {
		t.Fatal(err)
	}
	defer stop()
	if len(in.ring.Status()) == 1 {
		if err := in.ring.Rotate(nil); err != nil {
			t.Fatal(err)
		}
	}
	old := in.ring.Status()[0].ID
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var gone []string
	in.run(ctx, func(ids []string) {
		gone = ids
		cancel()
	})
	if len(gone) != 1 || gone[0] != old {
		t.Fatalf("destroyed %v, want %s", gone, old)
	}
	if n, err := in.check(); err != nil || n < records {
		t.Errorf("at the end: %d records, %v", n, err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "root", "*")); len(files) != 1 {
		t.Errorf("root key files at the end: %v, want one", files)
	}
}

// A value that nobody declares keeps the old root key alive.
func TestUndeclaredValueKeepsTheOldKey(t *testing.T) {
	dir := t.TempDir()
	in, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer in.st.Close()
	if err := in.put("k"); err != nil {
		t.Fatal(err)
	}
	if err := in.ring.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	in.ring.Run(ctx, in.st, nil, slog.New(slog.DiscardHandler), func(ids []string) { t.Errorf("destroyed %v", ids) })
	if _, err := in.check(); err != nil || len(in.ring.Status()) != 2 {
		t.Errorf("the record: %v, root keys %+v; want it to open, two keys", err, in.ring.Status())
	}
	if err := in.put("k"); err != nil { // and nothing stands in the way of work
		t.Errorf("a put while the rotation cannot end: %v", err)
	}
}
