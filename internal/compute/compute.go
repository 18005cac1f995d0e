package compute

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Errors that callers branch on. Drivers wrap them with the machine and the cause.
var (
	ErrNotFound    = errors.New("no such machine")
	ErrExists      = errors.New("machine is already running")
	ErrInvalidSpec = errors.New("invalid machine specification")
	ErrNotRunning  = errors.New("machine is not running")
	ErrClosed      = errors.New("compute driver is closed")
)

// DiskRole says what a disk is to the guest. It is also the disk's serial number in the guest
// (/sys/block/vd*/serial), by which the image finds it whatever its order.
type DiskRole string

// The two disks of a desktop. A machine boots from its root disk.
const (
	RoleRoot DiskRole = "root"
	RoleUser DiskRole = "user"
)

// Disk is one disk of a machine, served as NBD export on a unix socket by some other process, and perhaps by
// vhost-user-blk too.
type Disk struct {
	Role     DiskRole `json:"role"`
	Socket   string   `json:"socket"` // absolute path of the NBD server's unix socket
	Export   string   `json:"export"` // NBD export name; may be empty
	ReadOnly bool     `json:"read_only,omitempty"`
	// Vhost is the absolute path of a vhost-user-blk server's unix socket, or empty. A driver that can takes it instead of NBD, unless told not to: the
	// server then gives the disk its serial number, and requests wait for as long as the server is away.
	Vhost string `json:"vhost,omitempty"`
}

// Seed is what the guest is told about itself and its user at power-on. See the package doc for the form it takes.
type Seed struct {
	UserName       string        `json:"user"` // the directory user; becomes the desktop's user with a fixed uid
	FullName       string        `json:"full_name,omitempty"`
	PasswordHash   *secret.Bytes `json:"-"`                         // crypt(5) form, or nil
	Hostname       string        `json:"hostname,omitempty"`        // default: the machine's ID
	TimeZone       string        `json:"time_zone,omitempty"`       // default Etc/UTC
	KeyboardLayout string        `json:"keyboard_layout,omitempty"` // default us
	Locale         string        `json:"locale,omitempty"`          // default C.UTF-8
}

// Network says what a machine reaches. The zero value is a network of its own with no way out: neither the host nor the
// world answers (QEMU user networking with restrict=on).
type Network struct {
	// Bridge is the name of a host bridge the administrator configured for desktops, or empty.
	Bridge string `json:"bridge,omitempty"`
}

// Display is the size of the screen in pixels. The zero value is 1280 x 800.
type Display struct {
	Width  int `json:"width,omitempty"`
	Height int `json:"height,omitempty"`
}

// Session is how a desktop should look and be typed on while somebody is connected; zero members stay as they are.
type Session struct {
	Width, Height  int    // at most this size, pixels
	KeyboardLayout string // XKB name of a layout: us, jp, de
}

var sessionLayoutPattern = regexp.MustCompile(`^[a-z]{2,8}$`)

// Lines are what the guest's agent is sent (package doc), "" when nothing is wished.
func (s Session) Lines() (string, error) {
	out := ""
	if s.Width != 0 || s.Height != 0 {
		if s.Width < 100 || s.Width > 9999 || s.Height < 100 || s.Height > 9999 {
			return "", fmt.Errorf("%w: screen of %dx%d, want 100 to 9999 pixels", ErrInvalidSpec, s.Width, s.Height)
		}
		out = fmt.Sprintf("resize %d %d\n", s.Width, s.Height)
	}
	if s.KeyboardLayout != "" {
		if !sessionLayoutPattern.MatchString(s.KeyboardLayout) {
			return "", fmt.Errorf("%w: keyboard layout %q must match %s", ErrInvalidSpec, s.KeyboardLayout, sessionLayoutPattern)
		}
		out += "keyboard " + s.KeyboardLayout + "\n"
	}
	return out, nil
}

// Spec is everything about a machine that must be known to start it.
type Spec struct {
	ID        string  `json:"id"` // unique on the host, e.g. ws-0123456789; also names its directory
	VCPUs     int     `json:"vcpus"`
	MemoryMiB int     `json:"memory_mib"`
	Disks     []Disk  `json:"disks"`
	Seed      Seed    `json:"seed"`
	Network   Network `json:"network"`
	Display   Display `json:"display"`
}

var (
	idPattern       = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	userPattern     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$`)
	hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	zonePattern     = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)
	layoutPattern   = regexp.MustCompile(`^[a-z0-9_,()-]{2,32}$`)
	localePattern   = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,32}$`)
	bridgePattern   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,15}$`)
	hashPattern     = regexp.MustCompile(`^[A-Za-z0-9./$=,!*_-]{1,256}$`)
	exportPattern   = regexp.MustCompile(`^[A-Za-z0-9._-]{0,128}$`)
)

// reservedUsers are names the image has for itself; a directory user of that name cannot be a desktop's user.
var reservedUsers = map[string]bool{"root": true, "daemon": true, "bin": true, "sys": true, "sync": true, "games": true, "man": true,
	"lp": true, "mail": true, "news": true, "uucp": true, "proxy": true, "www-data": true, "backup": true, "list": true, "irc": true,
	"_apt": true, "nobody": true, "messagebus": true, "systemd-network": true, "systemd-resolve": true, "systemd-timesync": true,
	"systemd-coredump": true, "sealdesk": true, "polkitd": true, "lightdm": true}

// WithDefaults returns s with every empty optional field set to its default.
func (s Spec) WithDefaults() Spec {
	if s.Seed.Hostname == "" {
		s.Seed.Hostname = s.ID
	}
	if s.Seed.TimeZone == "" {
		s.Seed.TimeZone = "Etc/UTC"
	}
	if s.Seed.KeyboardLayout == "" {
		s.Seed.KeyboardLayout = "us"
	}
	if s.Seed.Locale == "" {
		s.Seed.Locale = "C.UTF-8"
	}
	if s.Display.Width == 0 && s.Display.Height == 0 {
		s.Display = Display{Width: 1280, Height: 800}
	}
	return s
}

// Validate says why a Spec cannot be started; the error wraps ErrInvalidSpec. Defaults must already be filled in.
func (s Spec) Validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: machine %q: %s", ErrInvalidSpec, s.ID, fmt.Sprintf(format, a...))
	}
	switch {
	case !idPattern.MatchString(s.ID):
		return bad("ID must match %s", idPattern)
	case s.VCPUs < 1 || s.VCPUs > 64:
		return bad("%d vCPUs, want 1 to 64", s.VCPUs)
	case s.MemoryMiB < 64 || s.MemoryMiB > 1<<20:
		return bad("%d MiB of memory, want 64 to 1048576", s.MemoryMiB)
	case s.Display.Width < 640 || s.Display.Width > 4096 || s.Display.Height < 480 || s.Display.Height > 2160 || s.Display.Width%8 != 0:
		return bad("display %dx%d, want 640x480 to 4096x2160 with a width that is a multiple of 8", s.Display.Width, s.Display.Height)
	case !userPattern.MatchString(s.Seed.UserName):
		return bad("user name %q must match %s", s.Seed.UserName, userPattern)
	case reservedUsers[s.Seed.UserName]:
		return bad("user name %q is an account of the operating system in the desktop image; choose another name in the directory", s.Seed.UserName)
	case len(s.Seed.FullName) > 256 || strings.ContainsAny(s.Seed.FullName, ":,\"\\") || hasControl(s.Seed.FullName):
		return bad("full name %q must be at most 256 bytes without colon, comma, quote, backslash or control characters", s.Seed.FullName)
	case !hostnamePattern.MatchString(s.Seed.Hostname):
		return bad("host name %q must match %s", s.Seed.Hostname, hostnamePattern)
	case !zonePattern.MatchString(s.Seed.TimeZone):
		return bad("time zone %q must be an IANA name such as Europe/Berlin", s.Seed.TimeZone)
	case !layoutPattern.MatchString(s.Seed.KeyboardLayout):
		return bad("keyboard layout %q must be an XKB name such as us or de", s.Seed.KeyboardLayout)
	case !localePattern.MatchString(s.Seed.Locale):
		return bad("locale %q must be a name such as C.UTF-8", s.Seed.Locale)
	case s.Seed.PasswordHash.Len() > 0 && !hashPattern.Match(s.Seed.PasswordHash.Expose()):
		return bad("password hash is not in crypt(5) form")
	case s.Network.Bridge != "" && !bridgePattern.MatchString(s.Network.Bridge):
		return bad("bridge %q must match %s", s.Network.Bridge, bridgePattern)
	}
	seen := map[DiskRole]bool{}
	for _, d := range s.Disks {
		switch {
		case d.Role != RoleRoot && d.Role != RoleUser:
			return bad("disk role %q, want %q or %q", d.Role, RoleRoot, RoleUser)
		case seen[d.Role]:
			return bad("two disks with the role %q", d.Role)
		case !filepath.IsAbs(d.Socket) || hasControl(d.Socket):
			return bad("%s disk: socket %q must be an absolute path", d.Role, d.Socket)
		case d.Vhost != "" && (!filepath.IsAbs(d.Vhost) || hasControl(d.Vhost)):
			return bad("%s disk: vhost-user socket %q must be an absolute path", d.Role, d.Vhost)
		case !exportPattern.MatchString(d.Export):
			return bad("%s disk: export %q must match %s", d.Role, d.Export, exportPattern)
		}
		seen[d.Role] = true
	}
	if !seen[RoleRoot] {
		return bad("no disk with the role %q to boot from", RoleRoot)
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == 0xfffd })
}

// State is what a machine is doing.
type State string

// The states of a machine.
const (
	StateStarting State = "starting" // its process is there, its processors are not running yet
	StateRunning  State = "running"  // its processors run; Status.GuestReady tells whether the desktop is there
	StatePaused   State = "paused"   // by Pause
	StateIOError  State = "io-error" // paused by itself because a disk failed; goes on when the disk is back
	StateStopping State = "stopping" // asked to power down
	StatePanicked State = "panicked" // the guest's kernel gave up; only Reset, Kill or Stop help
	StateStopped  State = "stopped"  // no process; Status.Reason says why
)

// Alive reports whether a machine in state s has a process (and so holds its disks open).
func (s State) Alive() bool { return s != StateStopped && s != "" }

// Status is what is known about a machine.
type Status struct {
	ID            string
	State         State
	Reason        string // why it is stopped, paused or failed; for people
	Spec          Spec   // as started, without the password hash
	Dir           string // its runtime directory: sockets, serial.log
	PID           int    // of its process, 0 when stopped
	Accelerator   string // "tcg" or "kvm"
	StartedAt     time.Time
	GuestReady    bool // the guest said that its desktop is painted, since the last power-on or reset
	GuestReadyAt  time.Time
	GuestDetail   string // what the guest said with it
	MemoryRSSByte int64  // resident memory of its process, bytes
}

// BlockStatus is how a disk of a running machine does.
type BlockStatus struct {
	Role       DiskRole
	SizeBytes  int64
	ReadOnly   bool
	IOStatus   string // "ok", "failed" or "nospace"
	ReadBytes  int64
	WriteBytes int64
	ReadOps    int64
	WriteOps   int64
	FlushOps   int64
	Failed     int64 // operations that ended in an error
}

// EventKind says what happened.
type EventKind string

// The kinds of Event.
const (
	EventStarted     EventKind = "started"
	EventGuestReady  EventKind = "guest-ready"  // the desktop is painted, by the guest's own word
	EventGuestFailed EventKind = "guest-failed" // the guest says it cannot bring up the desktop; Detail says why
	EventReset       EventKind = "reset"        // the guest rebooted, or Reset was called
	EventShutdown    EventKind = "shutdown"     // the machine is powering off
	EventPanic       EventKind = "panic"
	EventBlockError  EventKind = "block-error" // a disk failed and the machine is paused; Disk and Detail say which and how
	EventPaused      EventKind = "paused"
	EventResumed     EventKind = "resumed"
	EventExited      EventKind = "exited" // the machine's process is gone; always the last event of a run
)

// Event is something that happened to a machine.
type Event struct {
	Machine string
	Kind    EventKind
	Time    time.Time
	Disk    DiskRole // for EventBlockError
	Detail  string
}

// Driver runs machines on this host. All methods may be called at the same time. A method that takes an ID answers ErrNotFound
// for a machine it does not know, except Stop, Kill and Remove: there the wish already holds, and they return nil.
type Driver interface {
	// Start powers a machine on. It returns when the machine's processors run, long before the desktop is painted. ErrExists
	// when a machine of that ID is alive; a stopped one is started anew. When it returns an error, no process is left.
	// The disks must be served before Start is called. Start does not keep spec.Seed.PasswordHash.
	Start(ctx context.Context, spec Spec) error

	// Stop asks the guest to power off, as by the power button, waits at most grace, and then takes the power away. When it
	// returns nil no process is left and the disks are closed. If ctx ends first the machine may go on stopping by itself.
	Stop(ctx context.Context, id string, grace time.Duration) error

	// Kill takes the power away. When it returns nil no process is left.
	Kill(ctx context.Context, id string) error

	// Reset presses the reset button: the guest starts again from its root disk, unflushed data is lost.
	Reset(ctx context.Context, id string) error

	// Pause stops the processors; Resume lets them run again, also after an I/O error.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error

	// Status says how a machine is. A machine that stopped stays known, with the reason, until Remove or Start.
	Status(ctx context.Context, id string) (Status, error)

	// List tells the Status of every machine known, sorted by ID.
	List(ctx context.Context) ([]Status, error)

	// Adopt looks for machines that an earlier Driver on the same directory left, running or stopped, and takes charge of them. It is called once
	// before anything else and returns what List then returns. A leftover that is not certainly the machine is never touched.
	Adopt(ctx context.Context) ([]Status, error)

	// Remove forgets a stopped machine and deletes its runtime directory; a machine that is alive is killed first.
	Remove(ctx context.Context, id string) error

	// Events delivers what happens from now on until ctx ends; then the channel is closed. A reader that is more than 256 events
	// behind loses the oldest.
	Events(ctx context.Context) <-chan Event

	// Screendump is the screen as a PNG file.
	Screendump(ctx context.Context, id string) ([]byte, error)

	// SendKeys presses the keys of each chord together, one chord after the other. TypeText types text on a US keyboard: printable
	// ASCII, newline and tab; anything else is refused before the first key.
	SendKeys(ctx context.Context, id string, chords ...Chord) error
	TypeText(ctx context.Context, id string, text string) error

	// Arrange asks the guest of a running machine to fit its session to who looks at it. It is a wish: the guest takes the nearest screen size it
	// has, and an image that knows no such wish ignores it. A wish the guest must not be sent is refused (ErrInvalidSpec).
	Arrange(ctx context.Context, id string, wish Session) error

	// VNCSocket is the path of the unix socket on which the running machine serves its screen by RFB (RFC 6143). Use Dial for it:
	// the path may be longer than a socket address holds.
	VNCSocket(ctx context.Context, id string) (string, error)

	// QueryBlock tells how the disks of a running machine do. Of a disk on vhost-user only its server knows sizes and counts.
	QueryBlock(ctx context.Context, id string) ([]BlockStatus, error)

	// Close lets go of all machines without stopping them. Every later call returns ErrClosed.
	Close() error
}
