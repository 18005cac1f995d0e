package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/app/backup"
	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Files of a restore in the data directory.
const (
	restoring    = "RESTORING"     // there while a restore is under way
	restoredFile = "restored.json" // until the first start has checked it
)

// backup writes an archive into DataDir/backups. The state is of one moment; the audit
// log is at least as long as the state knows it to be.
func (a *App) backup(ctx context.Context, withRoots bool) (out *CreateBackupOutput, err error) {
	name := "sealdesk-" + a.cfg.Clock.Now().UTC().Format("20060102T150405Z") + "-" + ids.Hex("", 8)
	path := a.backupPath(name)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of backups: %w", err)
	}
	// One backup is made at a time: what is there is of a server that was killed.
	parts, _ := filepath.Glob(filepath.Join(dir, "*.part"))
	for _, p := range parts {
		os.Remove(p)
	}
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a backup: %w", err)
	}
	defer func() {
		f.Close()
		os.Remove(path + ".part")
	}()
	buf := bufio.NewWriterSize(f, 1<<20)
	size, included, err := a.archive(ctx, buf, withRoots)
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+".part", path)
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("make a backup: %w", err)
	}
	return &CreateBackupOutput{Name: &name, Path: &path, Bytes: &size, RootKeysIncluded: &included}, nil
}

func (a *App) archive(ctx context.Context, w io.Writer, withRoots bool) (size int64, included bool, err error) {
	fail := func(err error) (int64, bool, error) { return 0, false, err }
	// The records are read into memory first, to be of one revision and short of any compaction.
	var records []store.Record
	revision, err := a.store.Each(ctx, func(r store.Record) error {
		records = append(records, r)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	// After the records: the log must reach the head that they remember.
	logFiles, err := a.log.Files()
	if err != nil {
		return fail(err)
	}
	roots := map[string][]byte{}
	if withRoots {
		if roots, err = a.ring.Files(); err != nil {
			return fail(err)
		}
	}
	node, err := a.node()
	if err != nil {
		return fail(err)
	}
	m := &backup.Manifest{Created: a.cfg.Clock.Now().UTC().Format(time.RFC3339), Account: a.root.account, Node: node, Revision: revision}
	for _, k := range a.ring.Status() {
		_, ok := roots[keyring.FileName(k.Generation)]
		m.Roots = append(m.Roots, backup.Root{ID: k.ID, Generation: k.Generation, Seal: k.Seal, Included: ok})
	}
	b, err := backup.NewWriter(w, m)
	if err != nil {
		return fail(err)
	}
	for _, r := range records {
		if err := b.Record(r.Key, r.Value); err != nil {
			return fail(err)
		}
	}
	if err := b.File("node", int64(len(node)), strings.NewReader(node)); err != nil {
		return fail(err)
	}
	for name, raw := range roots {
		if err := b.File("root/"+name, int64(len(raw)), bytes.NewReader(raw)); err != nil {
			return fail(err)
		}
	}
	for _, f := range logFiles {
		if err := addFile(b, a.cfg.DataDir, "audit/"+f.Name, f.Size); err != nil {
			return fail(err)
		}
	}
	err = filepath.WalkDir(filepath.Join(a.cfg.DataDir, "trails"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		name, err := filepath.Rel(a.cfg.DataDir, path)
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		return addFile(b, a.cfg.DataDir, filepath.ToSlash(name), st.Size())
	})
	if err != nil {
		return fail(err)
	}
	size, err = b.Close(func(digest []byte) ([]byte, error) {
		return a.ring.Wrap(backup.Purpose, secret.New(bytes.Clone(digest)), []byte(backup.AAD))
	})
	return size, len(roots) > 0, err
}

func addFile(b *backup.Writer, dir, name string, size int64) error {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer f.Close()
	return b.File(name, size, f)
}

// restoredInfo is what the first start after a restore checks and records.
type restoredInfo struct {
	Created  string
	Revision int64
	Digest   []byte
	Wrapped  []byte
}

// Restore puts a backup into an empty data directory, or into one that holds nothing
// but root keys (root/, root.key), and an embedded etcd. rootKeys is a directory to
// take root key files from, "" for none. It may be killed at any line: no server starts
// on the directory until a restore into it has ended, and the next one begins anew.
func Restore(ctx context.Context, dataDir, archive, rootKeys string) (*backup.Manifest, error) {
	entries, err := os.ReadDir(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(dataDir, restoring))
	interrupted := err == nil
	var left []string
	for _, e := range entries {
		switch e.Name() {
		case "root", "root.key", "lost+found", restoring:
			continue
		}
		if !interrupted && !strings.HasPrefix(e.Name(), "."+restoring+".") { // the mark, when it was about to be made
			return nil, fmt.Errorf("%s is not empty (it holds %s): a backup is restored into an empty directory", dataDir, e.Name())
		}
		left = append(left, e.Name())
	}
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	read := func(v backup.Visitor) (*backup.End, error) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		return backup.Read(bufio.NewReaderSize(f, 1<<20), v)
	}
	// The whole archive is checked before anything is written.
	var m *backup.Manifest
	end, err := read(backup.Visitor{Manifest: func(got *backup.Manifest) error { m = got; return nil }})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", archive, err)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(filepath.Join(dataDir, restoring), []byte(m.Created+"\n"), 0o600); err != nil {
		return nil, err
	}
	for _, name := range left { // of the restore that was interrupted
		if err := os.RemoveAll(filepath.Join(dataDir, name)); err != nil {
			return nil, err
		}
	}
	if rootKeys != "" {
		err = copyRoots(rootKeys, dataDir)
	}
	if err == nil {
		err = haveRoots(m, dataDir)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(filepath.Join(dataDir, restoring)))
	}
	if err := fill(ctx, dataDir, read); err != nil {
		return nil, fmt.Errorf("restore %s: %w", archive, err)
	}
	js, err := json.Marshal(restoredInfo{m.Created, m.Revision, end.Digest, end.Wrapped})
	if err == nil {
		err = durable.WriteFile(filepath.Join(dataDir, restoredFile), js, 0o600)
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(dataDir, "root-credentials"), fmt.Appendf(nil, "# Restored from a backup: the root access keys are those of before.\n# account = %s\n", m.Account), 0o600)
	}
	if err == nil {
		err = os.Remove(filepath.Join(dataDir, restoring))
	}
	if err == nil {
		err = durable.SyncDir(dataDir)
	}
	return m, err
}

// fill writes the records into a new store and the files into the data directory.
func fill(ctx context.Context, dataDir string, read func(backup.Visitor) (*backup.End, error)) error {
	st, err := store.Open(ctx, store.Config{DataDir: dataDir})
	if err != nil {
		return err
	}
	defer st.Close()
	stop := errors.New("stop")
	var records iter.Seq2[store.Record, error] = func(yield func(store.Record, error) bool) {
		_, err := read(backup.Visitor{Record: func(key string, value []byte) error {
			if !yield(store.Record{Key: key, Value: value}, nil) {
				return stop
			}
			return nil
		}})
		if err != nil && !errors.Is(err, stop) {
			yield(store.Record{}, err)
		}
	}
	if err := st.Fill(ctx, records); err != nil {
		return err
	}
	var dirs []string
	_, err = read(backup.Visitor{File: func(name string, size int64, body io.Reader) error {
		top, _, _ := strings.Cut(name, "/")
		if name != "node" && !slices.Contains([]string{"root", "audit", "trails"}, top) {
			return fmt.Errorf("%w: it holds a file %q", backup.ErrDamaged, name)
		}
		path := filepath.Join(dataDir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		dirs = append(dirs, filepath.Dir(path))
		if _, err := os.Stat(path); err == nil && top == "root" {
			return nil // it was brought along
		}
		out, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer out.Close()
		if _, err := io.Copy(out, body); err != nil {
			return err
		}
		if err := out.Sync(); err != nil {
			return err
		}
		return os.Rename(path+".part", path)
	}})
	for _, d := range slices.Compact(dirs) {
		err = errors.Join(err, durable.SyncDir(d))
	}
	return err
}

// copyRoots brings root key files along.
func copyRoots(from, dataDir string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.key"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no root key file (*.key) in %s", from)
	}
	if err := os.MkdirAll(filepath.Join(dataDir, "root"), 0o700); err != nil {
		return err
	}
	for _, p := range files {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		to := filepath.Join(dataDir, "root", filepath.Base(p))
		if filepath.Base(p) == "root.key" {
			to = filepath.Join(dataDir, "root.key")
		}
		err = durable.WriteFile(to, b, 0o600)
		secret.Zero(b)
		if err != nil {
			return err
		}
	}
	return nil
}

// haveRoots refuses a restore whose records nothing could open.
func haveRoots(m *backup.Manifest, dataDir string) error {
	have, err := keyring.List(filepath.Join(dataDir, "root"), filepath.Join(dataDir, "root.key"))
	if err != nil {
		return err
	}
	for _, k := range m.Roots {
		if !k.Included && !slices.Contains(have, k.ID) {
			return fmt.Errorf("the backup needs root key %s (generation %d, seal %s), which is not in it: give the directory that holds its file with --root-keys", k.ID, k.Generation, k.Seal)
		}
	}
	return nil
}

// restored checks, at the first start after a restore, that the archive was made by
// this installation, and puts the restore on the record.
func (a *App) restored(ctx context.Context) error {
	path := filepath.Join(a.cfg.DataDir, restoredFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var info restoredInfo
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	digest, err := a.ring.Unwrap(backup.Purpose, info.Wrapped, []byte(backup.AAD))
	if err != nil {
		return fmt.Errorf("the backup that was restored here was not made under this root key, or was changed: %w", err)
	}
	defer digest.Wipe()
	if !bytes.Equal(digest.Expose(), info.Digest) {
		return errors.New("the backup that was restored here is not as it was made: its hash is not the one that was wrapped with it")
	}
	if err := a.log.Append(ctx, a.event("RestoreBackup", map[string]any{"created": info.Created, "revision": info.Revision, "sha256": hex.EncodeToString(info.Digest)})); err != nil {
		return err
	}
	return os.Remove(path)
}
