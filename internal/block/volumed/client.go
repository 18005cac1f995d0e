package volumed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sealdesk/sealdesk/internal/block"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Client speaks to a daemon. It keeps no connection and may be used concurrently.
type Client struct {
	// Socket is the daemon's control socket.
	Socket string
}

// call sends one request. Events go to onEvent.
func (c *Client) call(ctx context.Context, typ uint16, body any, key *secret.Bytes, onEvent func([]byte) error, out any) error {
	conn, err := c.dial(ctx, typ)
	if err != nil {
		return fmt.Errorf("volumed: %w", err)
	}
	defer conn.Close()
	if err := checkPeer(conn); err != nil {
		return fmt.Errorf("volumed: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fail := func(err error) error {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("volumed: %w", err)
	}
	if err := writeFrame(conn, typ, body, key); err != nil {
		return fail(err)
	}
	for {
		f, err := readFrame(conn)
		if err != nil {
			return fail(noEOF(err))
		}
		switch f.typ {
		case msgOK:
			if out == nil {
				return nil
			}
			return json.Unmarshal(f.body, out)
		case msgError:
			var e errorBody
			if err := json.Unmarshal(f.body, &e); err != nil {
				return fail(err)
			}
			return decodeError(e)
		case msgEvent:
			if onEvent != nil {
				if err := onEvent(f.body); err != nil {
					return err
				}
			}
		default:
			return fail(fmt.Errorf("%w: type %#x", errFrame, f.typ))
		}
	}
}

// startTime is how long a daemon may take to listen, after its start or its restart.
const startTime = 5 * time.Second

// dial connects. What a user asked for waits for a daemon that is about to start; who only looks is told at once.
func (c *Client) dial(ctx context.Context, typ uint16) (net.Conn, error) {
	var d net.Dialer
	for start := time.Now(); ; {
		conn, err := d.DialContext(ctx, "unix", c.Socket)
		starting := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
		if err == nil || !starting || typ == msgPing || typ == msgList || time.Since(start) > startTime {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ping asks who serves.
func (c *Client) Ping(ctx context.Context) (Info, error) {
	var i Info
	err := c.call(ctx, msgPing, struct{}{}, nil, nil, &i)
	return i, err
}

// List tells what is attached, with counters.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var l []Status
	err := c.call(ctx, msgList, struct{}{}, nil, nil, &l)
	return l, err
}

// Get is List for one volume; ErrNotAttached when it is not attached.
func (c *Client) Get(ctx context.Context, volumeID string) (Status, error) {
	l, err := c.List(ctx)
	if err != nil {
		return Status{}, err
	}
	for _, s := range l {
		if s.VolumeID == volumeID {
			return s, nil
		}
	}
	return Status{}, fmt.Errorf("%s: %w", volumeID, ErrNotAttached)
}

// Create makes a volume and returns its first anchor.
func (c *Client) Create(ctx context.Context, r CreateRequest) (block.Anchor, error) {
	var a block.Anchor
	err := c.call(ctx, msgCreate, r, r.Key, nil, &a)
	return a, err
}

// Attach opens a volume and serves it over NBD. Pin the anchor in the reply. Asking
// again for what is attached in the same way answers with its status.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (Status, error) {
	var s Status
	err := c.call(ctx, msgAttach, r, r.Key, nil, &s)
	return s, err
}

// Detach ends the NBD server, flushes and closes the volume and wipes its key. It
// returns the final anchor: pin it, then even a cut of the last byte is noticed.
func (c *Client) Detach(ctx context.Context, volumeID string) (block.Anchor, error) {
	var a block.Anchor
	err := c.call(ctx, msgDetach, nameRequest{VolumeID: volumeID}, nil, nil, &a)
	return a, err
}

// Flush makes everything a guest was answered durable.
func (c *Client) Flush(ctx context.Context, volumeID string) (block.Anchor, error) {
	var a block.Anchor
	err := c.call(ctx, msgFlush, nameRequest{VolumeID: volumeID}, nil, nil, &a)
	return a, err
}

// Import copies a raw image into an attached volume that is still empty. progress may be nil.
func (c *Client) Import(ctx context.Context, r ImportRequest, progress func(Progress)) (block.Anchor, error) {
	var a block.Anchor
	err := c.call(ctx, msgImport, r, nil, func(b []byte) error {
		var p Progress
		if err := json.Unmarshal(b, &p); err != nil {
			return err
		}
		if progress != nil {
			progress(p)
		}
		return nil
	}, &a)
	return a, err
}

// Snapshot freezes an attached volume's present state in a directory of its own. It
// shares the volume's segments (one file system) and key; remove it with Destroy.
func (c *Client) Snapshot(ctx context.Context, r SnapshotRequest) (block.Anchor, error) {
	var a block.Anchor
	err := c.call(ctx, msgSnapshot, r, nil, nil, &a)
	return a, err
}

// SnapshotSet freezes several attached volumes at one moment; see block.SnapshotSet.
func (c *Client) SnapshotSet(ctx context.Context, rs []SnapshotRequest) ([]block.Anchor, error) {
	var as []block.Anchor
	err := c.call(ctx, msgSnapshotSet, rs, nil, nil, &as)
	return as, err
}

// Clone makes a volume that begins as a snapshot or a detached volume.
func (c *Client) Clone(ctx context.Context, r CloneRequest) (block.Anchor, error) {
	var a block.Anchor
	keys := append([]byte(nil), r.SourceKey.Expose()...)
	r.SourceLen = len(keys)
	if r.Key != nil {
		all := append(make([]byte, 0, len(keys)+r.Key.Len()), keys...)
		secret.Zero(keys)
		keys = append(all, r.Key.Expose()...)
	}
	both := secret.New(keys)
	defer both.Wipe()
	err := c.call(ctx, msgClone, r, both, nil, &a)
	return a, err
}

// Grow makes an attached volume larger.
func (c *Client) Grow(ctx context.Context, volumeID string, sizeBytes int64) (block.Anchor, error) {
	var a block.Anchor
	err := c.call(ctx, msgGrow, growRequest{volumeID, sizeBytes}, nil, nil, &a)
	return a, err
}

// Destroy removes the directory of a volume that is not attached. It needs no key. A
// directory that is gone already is no error.
func (c *Client) Destroy(ctx context.Context, volumeID, dir string) error {
	return c.call(ctx, msgDestroy, nameRequest{VolumeID: volumeID, Dir: dir}, nil, nil, nil)
}

// Watch calls fn for each event until ctx ends, fn fails or the daemon goes away. It
// begins with one "attached" event for each volume, so nothing is missed by calling it again.
func (c *Client) Watch(ctx context.Context, fn func(Event) error) error {
	return c.call(ctx, msgWatch, struct{}{}, nil, func(b []byte) error {
		var e Event
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		return fn(e)
	}, nil)
}

// Start runs a daemon as a process in a session of its own, so that it outlives the
// caller, and waits until it answers. argv is the command ("sealdesk", "volumed",
// "--socket", …); its output goes to log. When a daemon answers on the socket already,
// that one is taken.
func Start(ctx context.Context, argv []string, socket string, log *os.File) (Info, error) {
	c := &Client{Socket: socket}
	if i, err := c.Ping(ctx); err == nil {
		return i, nil
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOTRACEBACK=none"}
	for _, name := range []string{"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_CA_BUNDLE", "HOME"} {
		if v, ok := os.LookupEnv(name); ok { // where the object store's credentials are; never the credentials themselves
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Info{}, fmt.Errorf("start volumed: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		i, err := c.Ping(ctx)
		if err == nil {
			return i, nil
		}
		select {
		case err := <-ended:
			if i, perr := c.Ping(ctx); perr == nil {
				return i, nil // another one was faster
			}
			return Info{}, fmt.Errorf("volumed ended at once: %w", errors.Join(err, errors.New("see its log")))
		case <-ctx.Done():
			return Info{}, fmt.Errorf("volumed does not answer: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
