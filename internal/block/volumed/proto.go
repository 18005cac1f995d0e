package volumed

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/secret"
)

const (
	protoVersion = 1
	frameHeader  = 16
	maxBody      = 1 << 20
	maxSecret    = 4 << 10

	msgPing     = 1
	msgList     = 2
	msgCreate   = 3
	msgAttach   = 4
	msgDetach   = 5
	msgImport   = 6
	msgDestroy  = 7
	msgWatch    = 8
	msgFlush    = 9
	msgSnapshot = 10
	msgClone    = 11
	msgGrow     = 12
	// msgSnapshotSet: a list of SnapshotRequest of different volumes, one moment.
	msgSnapshotSet = 13

	msgOK    = 0x8000
	msgError = 0x8001
	msgEvent = 0x8002
)

var frameMagic = [4]byte{'S', 'D', 'V', 'C'}

type frame struct {
	version, typ uint16
	body         []byte
	secret       *secret.Bytes // nil when there is none
}

var errFrame = errors.New("malformed control frame")

// readFrame reads one frame without any buffering of its own, so that no copy of a
// secret stays behind.
func readFrame(r io.Reader) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	f := frame{version: binary.BigEndian.Uint16(h[4:]), typ: binary.BigEndian.Uint16(h[6:])}
	nb, ns := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
	if [4]byte(h[:4]) != frameMagic {
		return frame{}, fmt.Errorf("%w: magic %q", errFrame, h[:4])
	}
	if nb > maxBody || ns > maxSecret {
		return frame{}, fmt.Errorf("%w: body of %d bytes, secret of %d", errFrame, nb, ns)
	}
	f.body = make([]byte, nb)
	if _, err := io.ReadFull(r, f.body); err != nil {
		return frame{}, noEOF(err)
	}
	if ns > 0 {
		b := make([]byte, ns)
		if _, err := io.ReadFull(r, b); err != nil {
			secret.Zero(b)
			return frame{}, noEOF(err)
		}
		f.secret = secret.New(b)
	}
	return f, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeFrame writes one frame and wipes its copy of the key. The caller's key is left alone.
func writeFrame(w io.Writer, typ uint16, body any, key *secret.Bytes) error {
	j, err := json.Marshal(body)
	if err != nil {
		return err
	}
	b := make([]byte, frameHeader, frameHeader+len(j)+key.Len())
	copy(b, frameMagic[:])
	binary.BigEndian.PutUint16(b[4:], protoVersion)
	binary.BigEndian.PutUint16(b[6:], typ)
	binary.BigEndian.PutUint32(b[8:], uint32(len(j)))
	binary.BigEndian.PutUint32(b[12:], uint32(key.Len()))
	b = append(b, j...)
	if key.Len() > 0 {
		b = append(b, key.Expose()...)
		defer secret.Zero(b)
	}
	_, err = w.Write(b)
	return err
}

// CreateRequest makes an empty volume, or one that reads through an image.
type CreateRequest struct {
	VolumeID  string
	Dir       string
	SizeBytes int64
	// BaseImage is a raw image with its chunk list beside it (see block.WriteSums). The volume is usable at
	// once and hydrated while it is attached.
	BaseImage string `json:",omitempty"`
	// Key is the plaintext data key; it stays the caller's.
	Key *secret.Bytes `json:"-"`
}

// AttachRequest opens a volume and serves it.
type AttachRequest struct {
	VolumeID string
	Dir      string
	// Socket is the path of the NBD unix socket (mode 0600; at most 107 bytes). Empty: open
	// without serving, for Import.
	Socket string
	// VhostSocket, when not empty, is the path of a vhost-user-blk socket that serves the volume too (mode 0600). A
	// guest that uses it sees the disk with the serial number Serial.
	VhostSocket string `json:",omitempty"`
	Serial      string `json:",omitempty"`
	ReadOnly    bool
	Anchor      block.Anchor  // pinned by the owner; zero: no check
	BaseImage   string        `json:",omitempty"`
	Key         *secret.Bytes `json:"-"`
}

// ImportRequest copies a raw image into an attached, still empty volume.
type ImportRequest struct {
	VolumeID string
	Image    string
}

// SnapshotRequest freezes an attached volume's present state in a directory of its own; where volumes live in an object store, there,
// under its ID. What still reads through an image is hydrated first.
type SnapshotRequest struct {
	VolumeID   string
	SnapshotID string
	Dir        string
}

// CloneRequest makes a volume of a snapshot, or of a volume that was detached in order.
type CloneRequest struct {
	From         string // directory of the source
	FromID       string `json:",omitempty"` // its ID, for what is in an object store
	Dir          string
	VolumeID     string
	SizeBytes    int64         // 0: as the source
	SourceAnchor block.Anchor  // pinned by the owner; zero: no check
	SourceKey    *secret.Bytes `json:"-"`
	// Key seals what the new volume writes; nil: the source's key, as EBS does within a lineage.
	Key *secret.Bytes `json:"-"`
	// Scratch: the new volume will only be attached read-only, and here, as long as its source is there.
	Scratch bool `json:",omitempty"`
	// SourceLen is the part of the frame's secret that is SourceKey; set by the client.
	SourceLen int
}

type growRequest struct {
	VolumeID  string
	SizeBytes int64
}

type nameRequest struct {
	VolumeID string
	Dir      string `json:",omitempty"`
}

// Status is what is known of an attached volume.
type Status struct {
	VolumeID string
	Dir      string
	Socket   string
	// VhostSocket is the vhost-user-blk socket, or empty.
	VhostSocket string `json:",omitempty"`
	ReadOnly    bool
	SizeBytes   int64
	Anchor      block.Anchor
	Attached    time.Time
	// Connections of NBD clients and of a vhost-user front end at present.
	Connections int
	// Failed says why the volume stopped; empty while it works.
	Failed string `json:",omitempty"`
	Stats  block.Stats
}

// Info describes the daemon.
type Info struct {
	Version      int // of the protocol
	PID          int
	Started      time.Time
	MemoryLocked bool
}

// Event is sent to watchers: the anchor of a volume moved, it was attached or
// detached, or it stopped working. A watcher first gets one event for each attached volume.
type Event struct {
	VolumeID string
	Kind     string // "attached", "anchor", "failed", "hydrated", "detached"
	Anchor   block.Anchor
	Message  string `json:",omitempty"`
}

// Progress is reported by Import.
type Progress struct{ Done, Total int64 }

type errorBody struct {
	Code    string
	Message string
}

// Errors of the daemon itself.
var (
	// ErrNotAttached: no such volume is attached here.
	ErrNotAttached = errors.New("volume is not attached to this host")
	// ErrAttached: the volume is attached already, in another way.
	ErrAttached = errors.New("volume is already attached")
	// ErrRequest: the request makes no sense.
	ErrRequest = errors.New("invalid request to volumed")
)

// codes name the errors that callers branch on, in the order they are looked for.
var codes = []struct {
	code string
	err  error
}{
	{"rollback", block.ErrRollback},
	{"key", block.ErrKey},
	{"corrupt", block.ErrCorrupt},
	{"store-behind", block.ErrStoreBehind},
	{"no-space", block.ErrNoSpace},
	{"failed", block.ErrFailed},
	{"busy", block.ErrBusy},
	{"exists", block.ErrExists},
	{"range", block.ErrRange},
	{"read-only", block.ErrReadOnly},
	{"closed", block.ErrClosed},
	{"not-attached", ErrNotAttached},
	{"attached", ErrAttached},
	{"request", ErrRequest},
}

func encodeError(err error) errorBody {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return errorBody{c.code, err.Error()}
		}
	}
	return errorBody{"internal", err.Error()}
}

// remoteError carries the daemon's text and Is the error it was there.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

func decodeError(b errorBody) error {
	for _, c := range codes {
		if c.code == b.Code {
			return &remoteError{b.Message, c.err}
		}
	}
	return &remoteError{b.Message, nil}
}
