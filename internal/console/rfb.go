package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

// A reader of what a VNC client sends (RFC 6143, and the extensions QEMU and
// noVNC know). The relay passes on whole messages only, of known types, so that
// nothing reaches the VNC server that it was not made for, and no clipboard passes
// that the directory does not allow.
//
//	12 bytes  ProtocolVersion, "RFB 003.008\n"
//	 1 byte   security type: None
//	 1 byte   ClientInit
//	then messages: 1 byte of type, and
//	  0 SetPixelFormat            19 bytes
//	  2 SetEncodings              1 + u16 count, count × s32
//	  3 FramebufferUpdateRequest   9 bytes
//	  4 KeyEvent                   7 bytes
//	  5 PointerEvent               5 bytes
//	  6 ClientCutText              3 + s32 length, |length| bytes (negative: extended clipboard)
//	150 EnableContinuousUpdates    9 bytes
//	248 ClientFence                3 + u32 flags + u8 length, length bytes
//	251 SetDesktopSize             1 + u16 width + u16 height + u8 count + 1, count × 16
//	255 QEMU: u8 subtype; 0 ExtendedKeyEvent 10 bytes
type clientReader struct {
	buf   []byte
	state int // 0 version, 1 security, 2 init, 3 messages
	// FromLocal lets text be copied from the user's device to the desktop, ToLocal
	// back. Both may change at any time.
	FromLocal, ToLocal atomic.Bool
	told               atomic.Bool // the page knows them
	// Resize is told what size the window has, when it says so.
	Resize func(width, height int)
}

const (
	maxCutText   = 1 << 20 // bytes
	maxEncodings = 256
	// encodingExtendedMouse would make PointerEvent longer; it is not let through.
	encodingExtendedMouse = -316
	// encodingExtendedClipboard lets the VNC server announce the desktop's clipboard;
	// QEMU's announces it in no other way.
	encodingExtendedClipboard = 0xC0A1E5CE
)

// Actions of an extended clipboard message (rfbproto, "Extended Clipboard
// Pseudo-Encoding"), in the first four bytes after its length.
const (
	clipCaps    = 1 << 24
	clipRequest = 1 << 25 // asks for the other side's text
	clipPeek    = 1 << 26
	clipNotify  = 1 << 27 // announces one's own text
	clipProvide = 1 << 28
)

var errRFB = errors.New("the browser does not speak RFB")

// Next takes what arrived and returns the bytes to pass on. An error ends the
// connection.
func (c *clientReader) Next(in []byte) (out []byte, err error) {
	c.buf = append(c.buf, in...)
	for len(c.buf) > 0 {
		n, pass, err := c.message()
		if err != nil {
			return out, err
		}
		if n == 0 {
			break // the rest has not arrived
		}
		out = append(out, pass...)
		c.buf = c.buf[n:]
	}
	if len(c.buf) == 0 {
		c.buf = nil
	}
	return out, nil
}

// message looks at the first message: its length, 0 when it is not whole yet,
// and what is passed on of it.
func (c *clientReader) message() (n int, pass []byte, err error) {
	b := c.buf
	whole := func(n int) (int, []byte, error) {
		if len(b) < n {
			return 0, nil, nil
		}
		return n, b[:n], nil
	}
	switch c.state {
	case 0:
		if n, pass, _ := whole(12); n == 0 {
			return 0, nil, nil
		} else if v := string(pass); v != "RFB 003.008\n" && v != "RFB 003.007\n" {
			return 0, nil, fmt.Errorf("%w: version %q", errRFB, v)
		}
		c.state = 1
		return 12, b[:12], nil
	case 1:
		if b[0] != 1 {
			return 0, nil, fmt.Errorf("%w: security type %d", errRFB, b[0])
		}
		c.state = 2
		return 1, b[:1], nil
	case 2:
		c.state = 3
		return 1, []byte{1}, nil // shared: a second connection must not cut the first behind our back
	}
	switch b[0] {
	case 0:
		return whole(20)
	case 2:
		if len(b) < 4 {
			return 0, nil, nil
		}
		count := int(binary.BigEndian.Uint16(b[2:]))
		if count > maxEncodings {
			return 0, nil, fmt.Errorf("%w: %d encodings", errRFB, count)
		}
		n, msg, _ := whole(4 + 4*count)
		if n == 0 {
			return 0, nil, nil
		}
		return n, c.encodings(msg), nil
	case 3, 150:
		return whole(10)
	case 4:
		return whole(8)
	case 5:
		return whole(6)
	case 6:
		if len(b) < 8 {
			return 0, nil, nil
		}
		length := int64(int32(binary.BigEndian.Uint32(b[4:])))
		if length < 0 {
			length = -length
		}
		if length > maxCutText {
			return 0, nil, fmt.Errorf("%w: %d bytes of clipboard, at most %d", errRFB, length, maxCutText)
		}
		n, pass, err = whole(8 + int(length))
		if n > 0 && !c.cutTextAllowed(pass) {
			pass = nil
		}
		return n, pass, err
	case 248:
		if len(b) < 9 {
			return 0, nil, nil
		}
		if b[8] > 64 {
			return 0, nil, fmt.Errorf("%w: a fence of %d bytes", errRFB, b[8])
		}
		return whole(9 + int(b[8]))
	case 251:
		if len(b) < 8 {
			return 0, nil, nil
		}
		n, pass, err = whole(8 + 16*int(b[6]))
		if n > 0 && c.Resize != nil {
			c.Resize(int(binary.BigEndian.Uint16(b[2:])), int(binary.BigEndian.Uint16(b[4:])))
		}
		return n, pass, err
	case 255:
		if len(b) < 2 {
			return 0, nil, nil
		}
		if b[1] != 0 {
			return 0, nil, fmt.Errorf("%w: QEMU message %d", errRFB, b[1])
		}
		return whole(12)
	}
	return 0, nil, fmt.Errorf("%w: message type %d", errRFB, b[0])
}

// cutTextAllowed tells whether a whole cut text message may pass. Without the
// extension it is text for the desktop. With it, text goes to the device only as
// the answer to the browser's request, and to the desktop only after its notice.
func (c *clientReader) cutTextAllowed(msg []byte) bool {
	if int32(binary.BigEndian.Uint32(msg[4:])) >= 0 {
		return c.FromLocal.Load()
	}
	if len(msg) < 12 {
		return false
	}
	switch action := binary.BigEndian.Uint32(msg[8:]) &^ 0xFFFF; {
	case action&clipCaps != 0:
		return true
	case action == clipRequest || action == clipPeek:
		return c.ToLocal.Load()
	case action == clipNotify || action == clipProvide:
		return c.FromLocal.Load()
	}
	return false
}

// encodings leaves out what would change the messages that follow.
func (c *clientReader) encodings(msg []byte) []byte {
	out := append([]byte(nil), msg[:4]...)
	for i := 4; i < len(msg); i += 4 {
		e := int32(binary.BigEndian.Uint32(msg[i:]))
		if e == encodingExtendedMouse || uint32(e) == encodingExtendedClipboard && !c.FromLocal.Load() && !c.ToLocal.Load() {
			continue
		}
		out = append(out, msg[i:i+4]...)
	}
	binary.BigEndian.PutUint16(out[2:], uint16((len(out)-4)/4))
	return out
}
