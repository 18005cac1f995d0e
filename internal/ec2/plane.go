package ec2

import (
	"context"
	"errors"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Plane is the data plane: the process that alone holds plaintext data keys of
// attached volumes, seals and serves them. A Plane may die and come back at
// any time, serving nothing; its methods are safe for concurrent use. Keys stay
// owned by the caller, who wipes them when the call has returned.
type Plane interface {
	// Create makes a volume's place on disk, sealed under the key: all zeros, or with the
	// content of an image. It returns the volume's first anchor (nil when the plane has none).
	// block.ErrExists when something is there already.
	Create(ctx context.Context, v NewVolume) (anchor []byte, err error)
	// Attach opens a volume and serves it on a socket. Once it returns nil the socket
	// accepts connections. Attaching what is attached in the same way already is no error.
	// It fails with block.ErrKey, block.ErrRollback (older than the anchor), block.ErrCorrupt.
	Attach(ctx context.Context, a Attach) (anchor []byte, err error)
	// Detach flushes and closes a volume, stops serving it, wipes its key, and returns
	// its last anchor. ErrNotServed when it was not attached.
	Detach(ctx context.Context, volumeID string) (anchor []byte, err error)
	// Served lists the volumes attached now.
	Served(ctx context.Context) ([]Served, error)
	// Destroy removes what Create has made, or part of it. Destroying nothing is no error.
	Destroy(ctx context.Context, volumeID, dir string) error
}

// Grower is a Plane that can make volumes larger.
type Grower interface {
	// Grow makes a volume larger. It is no error when the volume has that size already.
	Grow(ctx context.Context, g Growth) (anchor []byte, err error)
}

// Snapshotter is a Plane that can keep a volume's state of one moment.
type Snapshotter interface {
	// Snapshot keeps the state of a volume as of now, sealed under the volume's key.
	Snapshot(ctx context.Context, s Snapshot) (Kept, error)
	// SnapshotSet keeps the state of several attached volumes, all of one moment.
	SnapshotSet(ctx context.Context, set []Snapshot) ([]Kept, error)
	// Restore makes a volume from a snapshot, in the manner of Create.
	Restore(ctx context.Context, r Restore) (anchor []byte, err error)
}

// Growth is what Grower.Grow makes larger.
type Growth struct {
	VolumeID, Dir string
	Size          int64         // bytes
	Key           *secret.Bytes // nil when the volume is attached
	Anchor        []byte        // of a volume that is not attached
	Image         string
}

// NewVolume is what Plane.Create makes.
type NewVolume struct {
	VolumeID string
	Dir      string // absolute; made by Create
	Size     int64  // bytes
	Key      *secret.Bytes
	// Image is the absolute path of a raw image to begin with, "" for zeros.
	Image string
}

// Attach is what Plane.Attach serves.
type Attach struct {
	VolumeID string
	Dir      string
	Socket   string // absolute path of the NBD unix socket
	// VhostSocket is the absolute path of a vhost-user-blk socket that serves the volume too, or "". Serial
	// is the serial number that a guest sees there.
	VhostSocket, Serial string
	Key                 *secret.Bytes
	ReadOnly            bool
	// Anchor is the newest anchor that was recorded of the volume; the plane refuses
	// a volume that is older.
	Anchor []byte
	// Image is the image that the volume was made with, as long as it may still read from it.
	Image string
}

// Served is a volume that the plane serves.
type Served struct {
	VolumeID string
	Socket   string
	Anchor   []byte // newest
	// Failed says why the volume stopped working while attached, "" when it works.
	Failed string
	// ImageBytes is how much of its image a volume has yet to take over, 0 when it
	// needs the image no more; ImageTotal is the size of the image.
	ImageBytes, ImageTotal int64
}

// Snapshot is what Snapshotter.Snapshot keeps.
type Snapshot struct {
	SnapshotID, Dir     string
	VolumeID, VolumeDir string
	Key                 *secret.Bytes // nil when the volume is attached
	Anchor              []byte        // of a volume that is not attached
	Image               string
}

// Kept is what a snapshot came to.
type Kept struct {
	Bytes  int64
	Anchor []byte // of the volume afterwards, nil when it has not moved
	Pin    []byte // anchor of the snapshot itself
}

// Restore is what Snapshotter.Restore makes a volume from.
type Restore struct {
	NewVolume
	SnapshotID, SnapshotDir string
	SnapshotKey             *secret.Bytes
	SnapshotAnchor          []byte
	// Scratch: the volume will only be attached read-only, on this host, as long as the snapshot is there.
	Scratch bool
}

// ErrNotServed is returned by Plane.Detach for a volume that is not attached.
var ErrNotServed = errors.New("volume is not attached to the data plane")
