package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is every file operation the engine makes, so that tests can record them, cut
// them at any point and make them fail. Names are paths inside the volume's directory.
type FS interface {
	// Create makes a file that must not exist, readable and writable by its owner only.
	Create(name string) (File, error)
	// Open opens an existing file; writable says whether it will be written.
	Open(name string, writable bool) (File, error)
	// Remove unlinks a file. Open handles stay usable.
	Remove(name string) error
	// Reuse gives a file, which keeps its content, another name, which must be free, and opens it for writing. It fails when the file is shared.
	Reuse(name, as string) (File, error)
	// List returns the names of all files.
	List() ([]string, error)
	// SyncDir makes creations and removals so far durable.
	SyncDir() error
	// Lock takes the exclusive lock of the directory, or fails with ErrBusy. The lock
	// ends with the process at the latest.
	Lock() (unlock func(), err error)
	// LinkTo makes the immutable file name appear under the same name in the
	// directory dst of the same file system, sharing its bytes.
	LinkTo(name, dst string) error
}

// File is one open file.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes the file's data and length durable (fdatasync).
	Sync() error
	Truncate(size int64) error
	// Allocate reserves room for size bytes, so that later writes within do not run
	// out of space. Where the file system cannot, it only sets the length.
	Allocate(size int64) error
	Size() (int64, error)
	Close() error
}

// DirFS is the FS of a directory of the operating system.
func DirFS(dir string) FS { return dirFS{dir} }

type dirFS struct{ dir string }

func (d dirFS) path(name string) string { return filepath.Join(d.dir, name) }

func (d dirFS) Create(name string) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (d dirFS) Open(name string, writable bool) (File, error) {
	flag := os.O_RDONLY
	if writable {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(d.path(name), flag, 0)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (d dirFS) Remove(name string) error { return os.Remove(d.path(name)) }

// Reuse links before it unlinks: after a crash in between the file has both names, and nobody needs the old one.
func (d dirFS) Reuse(name, as string) (File, error) {
	var st unix.Stat_t
	if err := unix.Stat(d.path(name), &st); err != nil {
		return nil, err
	}
	if st.Nlink != 1 {
		return nil, fmt.Errorf("%s has %d names: %w", name, st.Nlink, errors.ErrUnsupported)
	}
	f, err := d.Open(name, true)
	if err != nil {
		return nil, err
	}
	if err = os.Link(d.path(name), d.path(as)); err == nil {
		if err = os.Remove(d.path(name)); err == nil {
			return f, nil
		}
		err = errors.Join(err, os.Remove(d.path(as)))
	}
	return nil, errors.Join(err, f.Close())
}

func (d dirFS) List() ([]string, error) {
	des, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(des))
	for _, de := range des {
		names = append(names, de.Name())
	}
	return names, nil
}

func (d dirFS) SyncDir() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d dirFS) Lock() (func(), error) {
	f, err := os.OpenFile(d.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", d.dir, ErrBusy)
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

func (d dirFS) LinkTo(name, dst string) error {
	return os.Link(d.path(name), filepath.Join(dst, name))
}

type osFile struct{ *os.File }

func (f *osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

func (f *osFile) Allocate(size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			return f.Truncate(size)
		}
		return err
	}
}

func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// isNoSpace tells a full disk or quota from other failures.
func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, ErrNoSpace)
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
