package ec2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

// VolumedPlane is the data plane over volumed's control socket. It is a Plane, a
// Grower and a Snapshotter.
type VolumedPlane struct {
	Client *volumed.Client
	// Ensure, when not nil, starts volumed if it does not run. It is called before
	// whatever needs it.
	Ensure func(ctx context.Context) error
}

var (
	_ Plane       = (*VolumedPlane)(nil)
	_ Grower      = (*VolumedPlane)(nil)
	_ Snapshotter = (*VolumedPlane)(nil)
)

func (p *VolumedPlane) ensure(ctx context.Context) error {
	if p.Ensure == nil {
		return nil
	}
	return p.Ensure(ctx)
}

// Create makes a volume's place on disk.
func (p *VolumedPlane) Create(ctx context.Context, v NewVolume) ([]byte, error) {
	if err := p.ensure(ctx); err != nil {
		return nil, err
	}
	if v.Image != "" {
		if err := ensureSums(ctx, v.Image); err != nil {
			return nil, fmt.Errorf("hash image %s: %w", v.Image, err)
		}
	}
	a, err := p.Client.Create(ctx, volumed.CreateRequest{VolumeID: v.VolumeID, Dir: v.Dir, SizeBytes: v.Size, BaseImage: v.Image, Key: v.Key})
	return text(a), err
}

// ensureSums makes the list of chunk sums beside the image, once for all volumes, and
// again when the image is newer.
func ensureSums(ctx context.Context, image string) error {
	img, err := os.Stat(image)
	if err != nil {
		return err
	}
	if sums, err := os.Stat(image + ".sums"); err == nil && !sums.ModTime().Before(img.ModTime()) {
		return nil
	}
	return block.WriteSums(ctx, image)
}

// text is an anchor as records keep it.
func text(a block.Anchor) []byte {
	if a.IsZero() {
		return nil
	}
	return []byte(a.String())
}

// Attach opens a volume and serves it.
func (p *VolumedPlane) Attach(ctx context.Context, a Attach) ([]byte, error) {
	if err := p.ensure(ctx); err != nil {
		return nil, err
	}
	anchor, err := block.ParseAnchor(string(a.Anchor))
	if err != nil {
		return nil, err
	}
	st, err := p.Client.Attach(ctx, volumed.AttachRequest{VolumeID: a.VolumeID, Dir: a.Dir, Socket: a.Socket, VhostSocket: a.VhostSocket, Serial: a.Serial, ReadOnly: a.ReadOnly, Anchor: anchor, BaseImage: a.Image, Key: a.Key})
	return text(st.Anchor), err
}

// Detach closes a volume; its key is wiped whatever happens.
func (p *VolumedPlane) Detach(ctx context.Context, volumeID string) ([]byte, error) {
	if p.absent(ctx) {
		return nil, ErrNotServed
	}
	a, err := p.Client.Detach(ctx, volumeID)
	if errors.Is(err, volumed.ErrNotAttached) {
		return nil, ErrNotServed
	}
	if err != nil {
		// What could not be flushed was never acknowledged as flushed; the volume is
		// closed all the same, and the next attach replays its log.
		// But what is not in the object store is not where the next host looks for it.
		if _, gerr := p.Client.Get(ctx, volumeID); errors.Is(gerr, volumed.ErrNotAttached) && !errors.Is(err, block.ErrStoreBehind) {
			return nil, nil
		}
		return nil, err
	}
	return text(a), nil
}

// absent reports that no volumed runs: then nothing is served and no key is held.
func (p *VolumedPlane) absent(ctx context.Context) bool {
	_, err := p.Client.Ping(ctx)
	return err != nil && (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED))
}

// Served lists what is attached.
func (p *VolumedPlane) Served(ctx context.Context) ([]Served, error) {
	l, err := p.Client.List(ctx)
	if err != nil {
		if p.absent(ctx) {
			return nil, nil
		}
		return nil, err
	}
	out := make([]Served, 0, len(l))
	for _, st := range l {
		out = append(out, Served{VolumeID: st.VolumeID, Socket: st.Socket, Anchor: text(st.Anchor), Failed: st.Failed,
			ImageBytes: imageBytes(st.Stats), ImageTotal: st.Stats.BaseBytes})
	}
	return out, nil
}

// imageBytes is never 0 as long as the volume needs its image to be opened.
func imageBytes(st block.Stats) int64 {
	if st.BaseBytes == 0 {
		return 0
	}
	return max(1, st.BaseBytes-st.HydratedBytes)
}

// Destroy removes a volume's or snapshot's directory.
func (p *VolumedPlane) Destroy(ctx context.Context, volumeID, dir string) error {
	if err := p.ensure(ctx); err != nil {
		return err
	}
	return p.Client.Destroy(ctx, volumeID, dir)
}

// opened runs f while the volume is open in volumed: as it is when it is attached,
// otherwise for the time of the call, without an NBD socket.
func (p *VolumedPlane) opened(ctx context.Context, a Attach, f func() error) (anchor []byte, err error) {
	if a.Key == nil {
		return nil, f()
	}
	if _, err := p.Attach(ctx, a); err != nil {
		return nil, err
	}
	err = f()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	anchor, derr := p.Detach(end, a.VolumeID)
	return anchor, errors.Join(err, derr)
}

// Grow makes a volume larger.
func (p *VolumedPlane) Grow(ctx context.Context, g Growth) (anchor []byte, err error) {
	var grown block.Anchor
	anchor, err = p.opened(ctx, Attach{VolumeID: g.VolumeID, Dir: g.Dir, Key: g.Key, Anchor: g.Anchor, Image: g.Image}, func() error {
		grown, err = p.Client.Grow(ctx, g.VolumeID, g.Size)
		return err
	})
	if anchor == nil {
		anchor = text(grown)
	}
	return anchor, err
}

// SnapshotSet keeps the state of attached volumes.
func (p *VolumedPlane) SnapshotSet(ctx context.Context, set []Snapshot) ([]Kept, error) {
	var rs []volumed.SnapshotRequest
	for _, s := range set {
		rs = append(rs, volumed.SnapshotRequest{VolumeID: s.VolumeID, SnapshotID: s.SnapshotID, Dir: s.Dir})
	}
	pins, err := p.Client.SnapshotSet(ctx, rs)
	if err != nil {
		return nil, err
	}
	ks := make([]Kept, len(set))
	for i, s := range set {
		st, err := p.Client.Get(ctx, s.VolumeID)
		if err != nil {
			return nil, err
		}
		ks[i] = Kept{Bytes: st.Stats.LiveBytes, Pin: text(pins[i])}
	}
	return ks, nil
}

// Snapshot keeps the state of a volume; its segments are shared, not copied.
func (p *VolumedPlane) Snapshot(ctx context.Context, s Snapshot) (Kept, error) {
	var k Kept
	anchor, err := p.opened(ctx, Attach{VolumeID: s.VolumeID, Dir: s.VolumeDir, Key: s.Key, Anchor: s.Anchor, Image: s.Image}, func() error {
		pin, err := p.Client.Snapshot(ctx, volumed.SnapshotRequest{VolumeID: s.VolumeID, SnapshotID: s.SnapshotID, Dir: s.Dir})
		if err != nil {
			return err
		}
		k.Pin = text(pin)
		st, err := p.Client.Get(ctx, s.VolumeID)
		k.Bytes = st.Stats.LiveBytes
		return err
	})
	k.Anchor = anchor
	return k, err
}

// Restore makes a volume that begins as the snapshot.
func (p *VolumedPlane) Restore(ctx context.Context, r Restore) ([]byte, error) {
	if err := p.ensure(ctx); err != nil {
		return nil, err
	}
	pin, err := block.ParseAnchor(string(r.SnapshotAnchor))
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		a, err := p.Client.Clone(ctx, volumed.CloneRequest{From: r.SnapshotDir, FromID: r.SnapshotID, Scratch: r.Scratch, Dir: r.Dir, VolumeID: r.VolumeID, SizeBytes: r.Size, SourceAnchor: pin, SourceKey: r.SnapshotKey, Key: r.Key})
		if err == nil || !errors.Is(err, block.ErrBusy) || try == 50 {
			return text(a), err
		}
		// Another volume is being made of the same snapshot.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
