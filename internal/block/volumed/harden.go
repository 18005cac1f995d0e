package volumed

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Harden makes this process unable to leave a core dump and unreadable to other
// processes of its user, and locks its memory where the limits allow it. It reports whether
// memory is locked; keys are locked one by one otherwise.
func Harden() (locked bool, err error) {
	if err := secret.ForbidCore(); err != nil {
		return false, err
	}
	// Without an unlimited RLIMIT_MEMLOCK, MCL_FUTURE would make the heap fail to grow.
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited) != nil {
		var l unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) != nil || l.Cur != unix.RLIM_INFINITY {
			return false, nil
		}
	}
	return unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) == nil, nil
}

// checkPeer refuses a peer of another user.
func checkPeer(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("control connection is no unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("peer is of user %d, not %d", cred.Uid, os.Geteuid())
	}
	return nil
}

// listen makes a unix socket of mode 0600, in place of a stale one.
func listen(path string) (*net.UnixListener, error) {
	if len(path) > 107 {
		return nil, fmt.Errorf("%w: socket path %q is longer than 107 bytes", ErrRequest, path)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%w: %s exists and is no socket", ErrRequest, path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The umask is of the whole process; a private directory entry is made by binding
	// under another name first, so that the socket is never open to others.
	tmp := path + ".new"
	if len(tmp) > 107 {
		tmp = path
	}
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil && tmp != path {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(tmp)
		return nil, err
	}
	return l, nil
}
