package block

import (
	"errors"
	"fmt"
)

// BlockSize is the unit of sealing: every block is 4 KiB of plaintext, 4 KiB of
// ciphertext, and a tag kept elsewhere (in the map and in the group descriptor).
const BlockSize = 4096

// Device is a block device. All methods may be called concurrently.
// Offsets and lengths are in bytes and may be unaligned; multiples of BlockSize
// are fastest, anything else costs a read-modify-write of the edge blocks.
type Device interface {
	// Size is the capacity in bytes.
	Size() int64
	// ReadAt fills p. Blocks never written read as zeros. A block that does not
	// authenticate yields an error that Is ErrCorrupt, and no data.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt returns once the data survives the death of this process (it is in the
	// host's page cache). Only Flush makes it survive the death of the host.
	WriteAt(p []byte, off int64) (int, error)
	// Flush returns once every write that was acknowledged before the call is durable.
	Flush() error
	// Discard drops the content of the range; whole blocks inside it read as zeros
	// afterwards and their space is given back. Edges that cover a part of a block are left alone.
	Discard(off, n int64) error
	// WriteZeroes makes the whole range read as zeros. With noHole it keeps the range
	// allocated (zero blocks are sealed and written like any other).
	WriteZeroes(off, n int64, noHole bool) error
	// BlockStatus describes the range as at most max extents, in order and without
	// gaps, starting at off. It may describe less than was asked, never nothing.
	BlockStatus(off, n int64, max int) ([]Extent, error)
	// Close flushes and releases the device.
	Close() error
}

// Batcher is implemented by devices that can take several writes before they reach
// the file in one system call. A write that was buffered may be acknowledged to
// its client only after Push returned nil.
type Batcher interface {
	// WriteBuffered takes the write into the open group. Reads see it at once.
	WriteBuffered(p []byte, off int64) error
	// Push hands all buffered writes to the host's page cache.
	Push() error
}

// Extent is a part of a device of one kind.
type Extent struct {
	Off, Len int64
	// Hole: not allocated, reads as zeros.
	Hole bool
}

// Errors a caller branches on.
var (
	// ErrCorrupt: stored bytes do not authenticate, or do not belong where they were
	// found. They are never returned as data.
	ErrCorrupt = errors.New("volume data is corrupt or was tampered with")
	// ErrRollback: the volume is older than the anchor pinned by its owner. It Is ErrCorrupt too.
	ErrRollback = fmt.Errorf("volume is older than its pinned anchor: %w", ErrCorrupt)
	// ErrKey: the data key does not open the volume.
	ErrKey = errors.New("the data key does not open this volume")
	// ErrNoSpace: the host has no room. Nothing acknowledged is lost; retry after making room.
	ErrNoSpace = errors.New("no space left for the volume on the host")
	// ErrFailed: an earlier write or sync failed in a way that leaves the state of the
	// medium unknown. Every later call fails until the volume is opened again.
	ErrFailed = errors.New("volume stopped after an I/O failure")
	// ErrClosed: the volume was closed.
	ErrClosed = errors.New("volume is closed")
	// ErrBusy: another process (or this one) has the volume open.
	ErrBusy = errors.New("volume is already open")
	// ErrRange: the request lies outside of the device.
	ErrRange = errors.New("request is outside of the device")
	// ErrReadOnly: a write to a device opened read-only.
	ErrReadOnly = errors.New("volume is attached read-only")
	// ErrExists: Create found a volume in the directory.
	ErrExists = errors.New("a volume already exists there")
)

// CorruptError says what did not authenticate. It Is ErrCorrupt.
type CorruptError struct {
	Volume string // volume ID
	What   string // structure, with its place
	Err    error  // cause; nil when authentication failed
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("volume %s: %s: %v", e.Volume, e.What, ErrCorrupt)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap yields the cause.
func (e *CorruptError) Unwrap() error { return e.Err }
