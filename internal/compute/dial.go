package compute

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Dial connects to the unix socket at path, of any length: a socket address holds only 107 bytes of path (unix(7)), so a longer one is
// reached through its directory's descriptor.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) < 104 {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the directory of socket %s: %w", path, err)
	}
	defer dir.Close()
	c, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("connect to socket %s: %w", path, err)
	}
	return c, nil
}
