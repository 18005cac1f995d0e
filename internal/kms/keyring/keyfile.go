package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/secret"
)

const (
	fileFormat  = "sealdesk root key"
	fileVersion = 1
	maxFile     = 64 << 10
)

// KeyFile is a root key as it lies in a file; see the package doc.
type KeyFile struct {
	Format     string          `json:"format"`
	Version    int             `json:"version"`
	Generation int             `json:"generation"`
	ID         string          `json:"id"`
	Created    string          `json:"created"`
	Seal       string          `json:"seal"`
	Parameters json.RawMessage `json:"parameters"`
	Sealed     []byte          `json:"sealed"`
	Check      string          `json:"check"`
}

// head is what the sealed key is bound to.
func (f *KeyFile) head() []byte {
	return fmt.Appendf(nil, "%s %d\n%d\n%s\n%s\n%s\n%s\n", fileFormat, fileVersion, f.Generation, f.ID, f.Created, f.Seal, f.Parameters)
}

func (f *KeyFile) check() string {
	h := sha256.New()
	h.Write(f.head())
	return hex.EncodeToString(sumSecret(h, f.Sealed)[:8])
}

// ParseKeyFile reads a root key file and checks that it is whole; it opens nothing.
func ParseKeyFile(b []byte) (*KeyFile, error) {
	f := new(KeyFile)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the object", ErrDamaged)
	}
	if f.Format != fileFormat {
		return nil, fmt.Errorf("%w: it is no Sealdesk root key", ErrDamaged)
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("the root key file has version %d, this program reads %d", f.Version, fileVersion)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, f.Parameters); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	f.Parameters = compact.Bytes()
	if f.check() != f.Check {
		return nil, fmt.Errorf("%w: its check does not match", ErrDamaged)
	}
	if id, err := hex.DecodeString(f.ID); err != nil || len(id) != idSize || f.Generation < 0 {
		return nil, fmt.Errorf("%w: its ID or generation is none", ErrDamaged)
	}
	return f, nil
}

// sealKey makes the file of k under a seal.
func sealKey(k *Key, generation int, created string, seal Seal) (*KeyFile, error) {
	f := &KeyFile{Format: fileFormat, Version: fileVersion, Generation: generation, ID: k.id.String(), Created: created, Seal: seal.Kind(), Parameters: seal.Parameters()}
	var err error
	if f.Sealed, err = seal.Seal(k.key, f.head()); err != nil {
		return nil, fmt.Errorf("seal root key %s: %w", f.ID, err)
	}
	f.Check = f.check()
	return f, nil
}

// open opens f with the seal that made it.
func (f *KeyFile) open(seal Seal) (*Key, error) {
	raw, err := seal.Open(f.Sealed, f.head())
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	if raw.Len() != rootSize || rootID(raw.Expose()).String() != f.ID {
		return nil, fmt.Errorf("%w: the key in it is not the one it names", ErrDamaged)
	}
	return newKey(bytes.Clone(raw.Expose())), nil
}

// opened wipes what lies in f in the clear.
func (f *KeyFile) opened() {
	if f.Seal == File {
		secret.Zero(f.Sealed)
	}
}

// FileName is the name of a root key's file.
func FileName(generation int) string { return fmt.Sprintf("%08d.key", generation) }

// write puts f into dir, in place of an older form of it, whose bytes are overwritten.
func (f *KeyFile) write(dir string) (string, error) {
	// The encoder keeps what it was given in buffers of its own: it gets zeros for
	// the key, which takes their place in the text.
	form := *f
	form.Sealed = make([]byte, len(f.Sealed))
	text, err := json.MarshalIndent(form, "", "  ")
	if err != nil {
		return "", err
	}
	text = append(text, '\n')
	defer secret.Zero(text)
	place := bytes.Index(text, []byte(base64.StdEncoding.EncodeToString(form.Sealed)))
	base64.StdEncoding.Encode(text[place:], f.Sealed)
	path := filepath.Join(dir, FileName(f.Generation))
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		defer old.Close()
	}
	if err := durable.WriteFile(path, text, 0o600); err != nil {
		return "", err
	}
	if old != nil {
		return path, overwrite(old)
	}
	return path, nil
}

// overwrite puts zeros where the file's bytes are. A file system that writes
// elsewhere (copy on write, a log) or a disk that remaps keeps the old bytes until it
// uses the place again: see docs/kms.md.
func overwrite(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, st.Size()), 0); err != nil {
		return fmt.Errorf("overwrite %s: %w", f.Name(), err)
	}
	return f.Sync()
}

// shred overwrites and removes a file. It is renamed first, to a name that Open shreds
// too, so that a root key that was overwritten and not removed is never taken for one.
func shred(path string) error {
	if dir, base := filepath.Split(path); !strings.HasPrefix(base, ".") {
		gone := filepath.Join(dir, "."+base+".shred")
		if err := os.Rename(path, gone); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
		path = gone
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := overwrite(f); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// readFile reads one root key file, refusing one that others may read.
func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the root key: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the root key %s may be read by others (mode %04o): run chmod 600 on it", path, fi.Mode().Perm())
	}
	if fi.Size() > maxFile {
		return nil, fmt.Errorf("%s: %w: %d bytes are too many", path, ErrDamaged, fi.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the root key: %w", err)
	}
	return b, nil
}

// List names the root keys in dir, and legacy when it is there, without opening one.
func List(dir, legacy string) ([]string, error) {
	files, err := readDir(dir, legacy)
	var ids []string
	for _, f := range files {
		ids = append(ids, f.ID)
	}
	return ids, err
}

// stored is a key file and where it lies.
type stored struct {
	*KeyFile
	path string
}

// readDir reads the root key files in dir and, when legacy exists, that one as
// generation 0; lowest generation first.
func readDir(dir, legacy string) ([]stored, error) {
	var all []stored
	if legacy != "" {
		if _, err := os.Stat(legacy); err == nil {
			k, err := OpenFile(legacy)
			if err != nil {
				return nil, err
			}
			f, err := sealKey(k, 0, time.Unix(0, 0).UTC().Format(time.RFC3339), FileSeal{})
			k.key.Wipe()
			if err != nil {
				return nil, err
			}
			all = append(all, stored{f, legacy})
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the root keys: %w", err)
	}
	for _, e := range entries { // in order of name, so of generation
		number, ok := strings.CutSuffix(e.Name(), ".key")
		if !ok || len(number) != 8 {
			continue
		}
		path := filepath.Join(dir, e.Name())
		b, err := readFile(path)
		if err != nil {
			return nil, err
		}
		f, err := ParseKeyFile(b)
		secret.Zero(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if n, err := strconv.Atoi(number); err != nil || n != f.Generation {
			return nil, fmt.Errorf("%s: %w: it holds generation %d", path, ErrDamaged, f.Generation)
		}
		if f.Generation == 0 && len(all) > 0 {
			// A root key of the old form was sealed anew, and the old file not removed yet.
			if all[0].ID != f.ID {
				return nil, fmt.Errorf("%s and %s hold different keys of generation 0: move the one away that is not in use", legacy, path)
			}
			if err := shred(all[0].path); err != nil {
				return nil, err
			}
			all = all[:0]
		}
		all = append(all, stored{f, path})
	}
	return all, nil
}
