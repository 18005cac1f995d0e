// Package objstore has the object stores that volumes can live in (block.ObjectStore): an S3-compatible service,
// and a directory, for instance of a file system that several hosts mount.
//
// Both pass blocktest.ObjectStore. The S3 service must honour If-None-Match: * on PutObject (AWS S3 and Ceph RGW
// do); OpenS3 tries it, because a service that ignores it would let two hosts write one volume.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/sealdesk/sealdesk/internal/block"
)

// Open opens a place for volumes and snapshots, s3://… (see OpenS3) or dir:/PATH.
func Open(ctx context.Context, place string) (block.Place, error) {
	if path, ok := strings.CutPrefix(place, "dir:"); ok {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("object store %q: the path must be absolute", place)
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("object store: %w", err)
		}
		return func(id string) (block.ObjectStore, error) { return Dir(filepath.Join(path, id)), nil }, nil
	}
	s, err := OpenS3(ctx, place)
	if err != nil {
		return nil, err
	}
	return func(id string) (block.ObjectStore, error) { return s.At(id), nil }, nil
}

// Dir keeps objects as files of a directory, which is there as long as it holds something; the one above must exist. Its file system must have hard links.
type Dir string

var _ block.ObjectStore = Dir("")

const tempPrefix = ".put-"

func checkName(name string) error {
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("object name %q", name)
	}
	return nil
}

// Put implements block.ObjectStore. The file is complete and durable before it gets its name.
func (d Dir) Put(_ context.Context, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	f, err := d.temp()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), filepath.Join(string(d), name)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %w", name, block.ErrObjectExists)
		}
		return err
	}
	return block.DirFS(string(d)).SyncDir()
}

// temp makes a file, and the directory when it is not there: another host's Delete may have removed it.
func (d Dir) temp() (*os.File, error) {
	for tries := 0; ; tries++ {
		f, err := os.CreateTemp(string(d), tempPrefix)
		if !errors.Is(err, fs.ErrNotExist) || tries == 10 {
			return f, err
		}
		if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := block.DirFS(filepath.Dir(string(d))).SyncDir(); err != nil {
			return nil, err
		}
	}
}

// Get implements block.ObjectStore.
func (d Dir) Get(_ context.Context, name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(string(d), name))
}

// List implements block.ObjectStore.
func (d Dir) List(_ context.Context, prefix string) ([]string, error) {
	es, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range es {
		if strings.HasPrefix(e.Name(), prefix) && e.Name()[0] != '.' {
			out = append(out, e.Name())
		}
	}
	sort.Strings(out)
	return out, nil
}

// Delete implements block.ObjectStore.
func (d Dir) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(string(d), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(string(d)) // fails as long as it holds something
	return nil
}
