package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/store"
)

// TestMain turns the test binary into a process to be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SEALDESK_AUDIT_VICTIM"); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

// victim records calls as fast as it can and says which ones were answered.
func victim(dir string) {
	fatal := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{DataDir: dir, Unsynced: true})
	fatal(err)
	cfg := config(&testing.B{}, dir, s, clock.System)
	cfg.SegmentBytes = 50000
	if os.Getenv("SEALDESK_AUDIT_WRITTEN") != "" {
		cfg.Sync = audit.Written
	}
	l, err := audit.Open(cfg)
	fatal(err)
	fatal(s.Start(ctx))
	fatal(l.Start(ctx))
	go l.Run(ctx)
	var mu sync.Mutex
	for g := range 6 {
		go func() {
			for {
				r := record(1)
				r.EventID = ids.UUID()
				var err error
				if g%2 == 0 {
					err = l.Append(ctx, r)
				} else {
					err = s.Update(ctx, func(tx *store.Tx) error { return l.Outbox(tx, r) })
				}
				fatal(err)
				mu.Lock()
				fmt.Println(r.EventID)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// kill -9 at any moment loses no record that was answered, and doubles none.
func TestKill(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	answered := map[string]bool{}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "SEALDESK_AUDIT_VICTIM="+dir)
		if round%2 == 1 {
			cmd.Env = append(cmd.Env, "SEALDESK_AUDIT_WRITTEN=1")
		}
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(out)
		n := 0
		for {
			l, err := in.ReadString('\n')
			if err != nil {
				break
			}
			answered[strings.TrimSpace(l)] = true
			if n++; n == 200+137*round {
				time.Sleep(time.Duration(round) * time.Millisecond)
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if n < 200 {
			t.Fatalf("round %d: the process died by itself after %d answers", round, n)
		}
	}
	w := open(t, dir, true, nil)
	if err := w.log.Settled(context.Background()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, id := range w.ids() {
		seen[id]++
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("event %s is in the log %d times", id, n)
		}
	}
	for id := range answered {
		if seen[id] == 0 {
			t.Errorf("event %s was answered and is not in the log", id)
		}
	}
	if r := w.verify(); !r.OK() {
		t.Errorf("after the kills Verify finds %v", r.Problems)
	}
	t.Logf("%d kills, %d answered, %d in the log", rounds, len(answered), len(seen))
	if _, err := os.Stat(filepath.Join(dir, "audit")); err != nil {
		t.Fatal(err)
	}
}
