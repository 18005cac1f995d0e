package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage is the longest line taken from a monitor, bytes. The longest real ones are a few tens of KiB.
const maxMessage = 1 << 20

// message is one line from QEMU (QEMU docs/interop/qmp-spec): a greeting, a return, an error or an event.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
	ID     *uint64         `json:"id"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Time   struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// qmpError is QEMU's answer to a command it refuses.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return "QEMU: " + e.Desc }

var errMonitorClosed = errors.New("the connection to QEMU's monitor ended")

// parseMessage reads one line. It is exactly one of the four kinds, or an error.
func parseMessage(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("parse monitor message %.80q: %w", line, err)
	}
	kinds := 0
	for _, is := range []bool{m.QMP != nil, m.Return != nil, m.Error != nil, m.Event != ""} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return message{}, fmt.Errorf("monitor message %.80q is not one of greeting, return, error, event", line)
	}
	return m, nil
}

// when is the time QEMU gave an event.
func (m message) when() time.Time {
	if m.Time.Seconds <= 0 || m.Time.Seconds > 1<<40 {
		return time.Now().UTC()
	}
	return time.Unix(m.Time.Seconds, m.Time.Microseconds*1000).UTC()
}

// monitor is a QMP connection. Its methods may be called at the same time.
type monitor struct {
	conn *net.UnixConn

	write sync.Mutex
	mu    sync.Mutex
	next  uint64
	wait  map[uint64]chan message
	err   error
	done  chan struct{}
}

// newMonitor negotiates capabilities on conn and then delivers events to onEvent, one after the other, until the connection ends.
func newMonitor(ctx context.Context, conn net.Conn, onEvent func(message)) (*monitor, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("monitor connection is %T, want a unix socket", conn)
	}
	m := &monitor{conn: uc, wait: map[uint64]chan message{}, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	r := bufio.NewReaderSize(conn, 64<<10)
	line, err := readLine(r)
	if err != nil {
		stop()
		return nil, fmt.Errorf("read QEMU's greeting: %w", err)
	}
	if g, err := parseMessage(line); err != nil || g.QMP == nil {
		stop()
		return nil, fmt.Errorf("QEMU's greeting is %.80q", line)
	}
	if !stop() {
		return nil, fmt.Errorf("negotiate with QEMU: %w", ctx.Err())
	}
	go m.read(r, onEvent)
	if _, err := m.do(ctx, "qmp_capabilities", nil); err != nil {
		m.close()
		return nil, fmt.Errorf("negotiate with QEMU: %w", err)
	}
	return m, nil
}

// readLine reads a line of at most maxMessage bytes.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxMessage {
			return nil, fmt.Errorf("a monitor message is longer than %d bytes", maxMessage)
		}
		if err == nil {
			return bytes.TrimSpace(line), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

func (m *monitor) read(r *bufio.Reader, onEvent func(message)) {
	var err error
	for {
		var line []byte
		if line, err = readLine(r); err != nil {
			break
		}
		if len(line) == 0 {
			continue
		}
		var msg message
		if msg, err = parseMessage(line); err != nil {
			break
		}
		switch {
		case msg.Event != "":
			onEvent(msg)
		case msg.ID != nil:
			m.mu.Lock()
			c := m.wait[*msg.ID]
			delete(m.wait, *msg.ID)
			m.mu.Unlock()
			if c != nil {
				c <- msg
			}
		}
	}
	if err == io.EOF {
		err = nil
	}
	m.mu.Lock()
	m.err = errMonitorClosed
	if err != nil {
		m.err = fmt.Errorf("%w: %v", errMonitorClosed, err)
	}
	m.mu.Unlock()
	m.conn.Close()
	close(m.done)
}

// do runs a command and returns what QEMU returned. fds are passed along with it (SCM_RIGHTS).
func (m *monitor) do(ctx context.Context, command string, args any, fds ...int) (json.RawMessage, error) {
	c := make(chan message, 1)
	m.mu.Lock()
	m.next++
	id := m.next
	m.wait[id] = c
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.wait, id)
		m.mu.Unlock()
	}()
	req := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id}
	line, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", command, err)
	}
	line = append(line, '\n')
	m.write.Lock()
	_ = m.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if len(fds) > 0 {
		_, _, err = m.conn.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
	} else {
		_, err = m.conn.Write(line)
	}
	m.write.Unlock()
	if err != nil {
		return nil, fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	select {
	case msg := <-c:
		if msg.Error != nil {
			return nil, fmt.Errorf("%s: %w", command, msg.Error)
		}
		return msg.Return, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for QEMU's answer to %s: %w", command, ctx.Err())
	case <-m.done:
		m.mu.Lock()
		defer m.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", command, m.err)
	}
}

// query runs a command and decodes its return into out.
func (m *monitor) query(ctx context.Context, command string, out any) error {
	raw, err := m.do(ctx, command, nil)
	if err != nil {
		return err
	}
	if err := decode(raw, out); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

func decode(raw json.RawMessage, out any) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode QEMU's answer %.80q: %w", raw, err)
	}
	return nil
}

func (m *monitor) close() { m.conn.Close() }
