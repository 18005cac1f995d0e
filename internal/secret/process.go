package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ForbidCore makes this process unable to leave a core dump, and unreadable to
// other processes of its user (PR_SET_DUMPABLE 0). A process that holds key
// material calls it first.
func ForbidCore() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
