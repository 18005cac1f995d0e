package fake_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/compute/computetest"
	"github.com/sealdesk/sealdesk/internal/compute/fake"
	"github.com/sealdesk/sealdesk/internal/secret"
)

type world struct{ h *fake.Host }

func (w world) New(*testing.T) compute.Driver { return fake.New(w.h) }

func (w world) Spec(_ *testing.T, id string) compute.Spec {
	return compute.Spec{ID: id, VCPUs: 1, MemoryMiB: 64, Seed: compute.Seed{UserName: "alice", PasswordHash: secret.New([]byte("$6$x$y"))},
		Disks: []compute.Disk{{Role: compute.RoleRoot, Socket: "/r"}, {Role: compute.RoleUser, Socket: "/u"}}}
}

func (w world) LoseDisk(t *testing.T, id string, role compute.DiskRole) {
	must(t, w.h.LoseDisk(id, role))
}
func (w world) RestoreDisk(t *testing.T, id string, role compute.DiskRole) {
	must(t, w.h.RestoreDisk(id, role))
}
func (w world) Crash(t *testing.T, id string) { must(t, w.h.Crash(id)) }
func (w world) Alive(*testing.T) []string     { return w.h.Alive() }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	computetest.Run(t, func(*testing.T) computetest.World { return world{fake.NewHost(fake.Options{})} })
}

func TestFaults(t *testing.T) {
	ctx := context.Background()
	h := fake.NewHost(fake.Options{})
	d := fake.New(h)
	boom := errors.New("boom")
	spec := world{h}.Spec(t, "ws-a")

	h.Fail(fake.OpStart, "", fake.Before, boom)
	if err := d.Start(ctx, spec); !errors.Is(err, boom) || len(h.Alive()) != 0 {
		t.Errorf("Start with a fault before = %v, alive %v; want boom and nothing alive", err, h.Alive())
	}
	h.Fail(fake.OpStart, "ws-a", fake.After, boom)
	if err := d.Start(ctx, spec); !errors.Is(err, boom) || len(h.Alive()) != 1 {
		t.Errorf("Start with a fault after = %v, alive %v; want boom and ws-a alive", err, h.Alive())
	}
	h.Fail(fake.OpStop, "ws-other", fake.Before, boom)
	if err := d.Stop(ctx, "ws-a", 0); err != nil || len(h.Alive()) != 0 {
		t.Errorf("Stop with a fault for another = %v, alive %v; want none", err, h.Alive())
	}
}

func TestGuest(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h := fake.NewHost(fake.Options{ManualBoot: true})
	d := fake.New(h)
	events := d.Events(ctx)
	must(t, d.Start(ctx, world{h}.Spec(t, "ws-a")))
	if seed := h.Seed("ws-a"); !strings.Contains(seed, `"user": "alice"`) || !strings.Contains(seed, `"password_hash": "$6$x$y"`) {
		t.Errorf("seed = %s, want user and hash", seed)
	}
	dark, _ := d.Screendump(ctx, "ws-a")
	if ok, why := compute.Painted(dark); ok {
		t.Errorf("Painted before boot = true (%s), want false", why)
	}
	must(t, h.GuestReady("ws-a"))
	bright, _ := d.Screendump(ctx, "ws-a")
	if ok, why := compute.Painted(bright); !ok {
		t.Errorf("Painted after boot = false (%s), want true", why)
	}
	must(t, h.GuestReboot("ws-a"))
	if st, _ := d.Status(ctx, "ws-a"); st.GuestReady {
		t.Errorf("GuestReady after a reboot = true, want false")
	}
	must(t, h.GuestPanic("ws-a"))
	must(t, h.GuestPowerOff("ws-a"))
	var kinds []compute.EventKind
	for len(kinds) < 6 {
		select {
		case ev := <-events:
			kinds = append(kinds, ev.Kind)
		case <-time.After(5 * time.Second):
			t.Fatalf("events %v, want six", kinds)
		}
	}
	want := "[started guest-ready reset panic shutdown exited]"
	if got := sprint(kinds); got != want {
		t.Errorf("events = %s, want %s", got, want)
	}
}

func sprint(kinds []compute.EventKind) string {
	var s []string
	for _, k := range kinds {
		s = append(s, string(k))
	}
	return "[" + strings.Join(s, " ") + "]"
}
