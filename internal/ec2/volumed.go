package ec2

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/block/volumed"
)

// Volumed is the data plane over volumed's control socket.
func Volumed(client *volumed.Client) Plane { return &volumedPlane{client} }

type volumedPlane struct{ c *volumed.Client }

func (p *volumedPlane) Create(ctx context.Context, v NewVolume) ([]byte, error) {
	if v.Image != "" {
		// The list of chunk sums lies beside the image, made once for all volumes.
		if _, err := os.Stat(v.Image + ".sums"); errors.Is(err, os.ErrNotExist) {
			if err := block.WriteSums(ctx, v.Image); err != nil {
				return nil, fmt.Errorf("hash image %s: %w", v.Image, err)
			}
		}
	}
	a, err := p.c.Create(ctx, volumed.CreateRequest{VolumeID: v.VolumeID, Dir: v.Dir, SizeBytes: v.Size, BaseImage: v.Image, Key: v.Key})
	if err != nil {
		return nil, err
	}
	return a.MarshalText()
}

func (p *volumedPlane) Attach(ctx context.Context, a Attach) ([]byte, error) {
	r := volumed.AttachRequest{VolumeID: a.VolumeID, Dir: a.Dir, Socket: a.Socket, ReadOnly: a.ReadOnly, BaseImage: a.Image, Key: a.Key}
	if err := r.Anchor.UnmarshalText(a.Anchor); err != nil {
		return nil, err
	}
	st, err := p.c.Attach(ctx, r)
	if err != nil {
		return nil, err
	}
	return st.Anchor.MarshalText()
}

func (p *volumedPlane) Detach(ctx context.Context, volumeID string) ([]byte, error) {
	a, err := p.c.Detach(ctx, volumeID)
	if errors.Is(err, volumed.ErrNotAttached) {
		return nil, ErrNotServed
	}
	if err != nil {
		// The key is wiped and the volume closed all the same: what could not be
		// flushed was never acknowledged as flushed, and the next attach replays the log.
		if _, gerr := p.c.Get(ctx, volumeID); errors.Is(gerr, volumed.ErrNotAttached) {
			return nil, nil
		}
		return nil, err
	}
	return a.MarshalText()
}

func (p *volumedPlane) Served(ctx context.Context) ([]Served, error) {
	l, err := p.c.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Served, 0, len(l))
	for _, st := range l {
		a, err := st.Anchor.MarshalText()
		if err != nil {
			return nil, err
		}
		out = append(out, Served{VolumeID: st.VolumeID, Socket: st.Socket, Anchor: a, Failed: st.Failed,
			ImageBytes: imageBytes(st.Stats), ImageTotal: st.Stats.BaseBytes})
	}
	return out, nil
}

func (p *volumedPlane) Destroy(ctx context.Context, volumeID, dir string) error {
	return p.c.Destroy(ctx, volumeID, dir)
}

// imageBytes is never 0 as long as the volume needs its image to be opened.
func imageBytes(st block.Stats) int64 {
	if st.BaseBytes == 0 {
		return 0
	}
	return max(1, st.BaseBytes-st.HydratedBytes)
}
