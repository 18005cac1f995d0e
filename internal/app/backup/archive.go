// Package backup is the archive that holds a whole Sealdesk: every record of the
// store as of one moment, the audit log, and the root keys in their sealed form. It
// holds no plaintext key: what is secret in a record is wrapped under a root key.
//
// # Format, version 1
//
// All numbers are big-endian.
//
//	+----------------------+---------+---------+-----+---------+
//	| "sealdesk backup\n"  | version | entry   | …   | end     |
//	| 16 bytes             | 4 bytes |         |     | entry   |
//	+----------------------+---------+---------+-----+---------+
//
//	entry:
//	+------+-------------+----------+-------------+------+
//	| kind | name length | name     | body length | body |
//	| 1    | 2           |          | 8           |      |
//	+------+-------------+----------+-------------+------+
//
//	kind  name                                 body
//	'M'   empty                                the Manifest, JSON; the first entry
//	'R'   a record's key without /sealdesk/    the record as package store writes it
//	'F'   a file's path in the data directory  its bytes
//	'E'   empty                                SHA-256 of all bytes before this entry ‖ that hash,
//	                                           wrapped under the current root key (keyring, purpose
//	                                           "backup/digest", additional data "1"); nothing follows
//
// Records come in the order of their keys and each once. Paths have no empty, "." or
// ".." elements. The hash shows damage; its wrapped form shows, once the root key is
// open, that the archive is as the installation made it.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
)

// Version of the archives that Writer makes.
const Version = 1

const (
	magic = "sealdesk backup\n"

	kindManifest = 'M'
	kindRecord   = 'R'
	kindFile     = 'F'
	kindEnd      = 'E'

	maxManifest = 1 << 20
	maxRecord   = 4 << 20 // etcd takes 1.5 MiB
	maxEnd      = 4 << 10
)

// What the wrapped hash is wrapped with.
const (
	Purpose = "backup/digest"
	AAD     = "1"
)

// ErrDamaged: an archive that is not what was written, or not all of it.
var ErrDamaged = errors.New("the backup is damaged")

// Manifest says what an archive is.
type Manifest struct {
	Created  string // RFC 3339, UTC
	Account  string // the operator's
	Node     string // whose audit log it is
	Revision int64  // of the store
	// Roots are the root keys that the records need, by ID.
	Roots []Root
}

// Root is a root key as the manifest tells it.
type Root struct {
	ID         string
	Generation int
	Seal       string
	Included   bool // its sealed file is in the archive
}

// Writer writes an archive.
type Writer struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

// NewWriter begins an archive.
func NewWriter(w io.Writer, m *Manifest) (*Writer, error) {
	a := &Writer{w: w, hash: sha256.New()}
	js, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint32([]byte(magic), Version)
	if err := a.write(head); err != nil {
		return nil, err
	}
	return a, a.entry(kindManifest, "", int64(len(js)), bytes.NewReader(js))
}

func (a *Writer) write(b []byte) error {
	a.hash.Write(b)
	n, err := a.w.Write(b)
	a.size += int64(n)
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

func (a *Writer) entry(kind byte, name string, size int64, body io.Reader) error {
	if len(name) > 1<<16-1 {
		return fmt.Errorf("write the backup: a name of %d bytes is too long", len(name))
	}
	head := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(name)))
	head = binary.BigEndian.AppendUint64(append(head, name...), uint64(size))
	if err := a.write(head); err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(a.w, a.hash), io.LimitReader(body, size))
	a.size += n
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes, want %d", name, n, size)
	}
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

// Record adds a record.
func (a *Writer) Record(key string, value []byte) error {
	return a.entry(kindRecord, key, int64(len(value)), bytes.NewReader(value))
}

// File adds the first size bytes of a file.
func (a *Writer) File(name string, size int64, body io.Reader) error {
	return a.entry(kindFile, name, size, body)
}

// Close ends the archive; wrap wraps its hash.
func (a *Writer) Close(wrap func(digest []byte) ([]byte, error)) (size int64, err error) {
	digest := a.hash.Sum(nil)
	wrapped, err := wrap(digest)
	if err != nil {
		return 0, fmt.Errorf("wrap the hash of the backup: %w", err)
	}
	body := append(bytes.Clone(digest), wrapped...)
	err = a.entry(kindEnd, "", int64(len(body)), bytes.NewReader(body))
	return a.size, err
}

// Visitor is given what an archive holds, in its order. A nil function skips.
type Visitor struct {
	Manifest func(*Manifest) error
	Record   func(key string, value []byte) error
	// File must read all of body.
	File func(name string, size int64, body io.Reader) error
}

// End is what an archive ends with.
type End struct{ Digest, Wrapped []byte }

// Read reads an archive to its end and checks it on the way: what v is given before
// Read returns nil has not been checked yet. Read it once with an empty Visitor first.
func Read(r io.Reader, v Visitor) (*End, error) {
	rd := &reader{r: r, hash: sha256.New()}
	head, err := rd.take(len(magic) + 4)
	if err != nil || string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it does not begin as a Sealdesk backup does", ErrDamaged)
	}
	if n := binary.BigEndian.Uint32(head[len(magic):]); n != Version {
		return nil, fmt.Errorf("the backup has version %d, this program reads %d", n, Version)
	}
	last := ""
	for first := true; ; first = false {
		sum := rd.hash.Sum(nil)
		kind, name, size, err := rd.head()
		if err != nil {
			return nil, err
		}
		if first != (kind == kindManifest) {
			return nil, fmt.Errorf("%w: the manifest is not its first entry", ErrDamaged)
		}
		switch kind {
		case kindManifest:
			err = rd.manifest(size, v)
		case kindRecord:
			if name == "" || name <= last {
				return nil, fmt.Errorf("%w: records are out of order at %q", ErrDamaged, name)
			}
			last = name
			var value []byte
			if value, err = rd.body(size, maxRecord); err == nil && v.Record != nil {
				err = v.Record(name, value)
			}
		case kindFile:
			if !clean(name) {
				return nil, fmt.Errorf("%w: it holds a file %q", ErrDamaged, name)
			}
			err = rd.file(name, size, v)
		case kindEnd:
			body, err := rd.body(size, maxEnd)
			if err != nil {
				return nil, err
			}
			if len(body) <= sha256.Size || !bytes.Equal(body[:sha256.Size], sum) {
				return nil, fmt.Errorf("%w: its hash does not match", ErrDamaged)
			}
			if n, _ := io.ReadFull(r, make([]byte, 1)); n != 0 {
				return nil, fmt.Errorf("%w: something follows its end", ErrDamaged)
			}
			return &End{body[:sha256.Size], body[sha256.Size:]}, nil
		default:
			return nil, fmt.Errorf("%w: an entry of unknown kind %d", ErrDamaged, kind)
		}
		if err != nil {
			return nil, err
		}
	}
}

type reader struct {
	r    io.Reader
	hash hash.Hash
}

func (rd *reader) take(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(rd.r, b); err != nil {
		return nil, cut(err)
	}
	rd.hash.Write(b)
	return b, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrDamaged)
	}
	return fmt.Errorf("read the backup: %w", err)
}

func (rd *reader) head() (kind byte, name string, size int64, err error) {
	b, err := rd.take(3)
	if err != nil {
		return 0, "", 0, err
	}
	rest, err := rd.take(int(binary.BigEndian.Uint16(b[1:])) + 8)
	if err != nil {
		return 0, "", 0, err
	}
	n := len(rest) - 8
	length := binary.BigEndian.Uint64(rest[n:])
	if length > 1<<50 {
		return 0, "", 0, fmt.Errorf("%w: an entry claims %d bytes", ErrDamaged, length)
	}
	return b[0], string(rest[:n]), int64(length), nil
}

func (rd *reader) body(size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("%w: an entry claims %d bytes", ErrDamaged, size)
	}
	return rd.take(int(size))
}

func (rd *reader) manifest(size int64, v Visitor) error {
	b, err := rd.body(size, maxManifest)
	if err != nil {
		return err
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if v.Manifest == nil {
		return nil
	}
	return v.Manifest(m)
}

func (rd *reader) file(name string, size int64, v Visitor) error {
	body := &io.LimitedReader{R: io.TeeReader(rd.r, rd.hash), N: size}
	if v.File != nil {
		if err := v.File(name, size, body); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return cut(err)
	}
	if body.N != 0 {
		return cut(io.ErrUnexpectedEOF)
	}
	return nil
}

// clean tells a relative path that stays below where it is put.
func clean(name string) bool {
	return name != "" && path.Clean(name) == name && !path.IsAbs(name) && name != "." && name != ".." && !strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\x00\\")
}
