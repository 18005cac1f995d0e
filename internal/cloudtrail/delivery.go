package cloudtrail

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/store"
)

// delivery is how far a trail's log files have come. Key: that of the trail.
type delivery struct {
	Log  string `json:"log"`  // the audit log's ID
	Done uint64 `json:"done"` // records up to this one are delivered
	// Intent is a round that was begun: done again, byte for byte, after a crash.
	Intent *round `json:"intent,omitempty"`

	Tried     time.Time `json:"tried,omitzero"`
	Delivered time.Time `json:"delivered,omitzero"`
	Error     string    `json:"error,omitempty"`

	DigestFrom  time.Time         `json:"digestFrom,omitzero"` // where the next digests begin
	Files       []logFile         `json:"files,omitempty"`     // delivered and in no digest yet
	Chains      map[string]*chain `json:"chains,omitempty"`    // by region
	Digested    time.Time         `json:"digested,omitzero"`
	DigestError string            `json:"digestError,omitempty"`
}

// round is the records after From up to To, delivered at At.
type round struct {
	From uint64    `json:"from"`
	To   uint64    `json:"to"`
	At   time.Time `json:"at"`
	// The trail as it was.
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix,omitempty"`
}

// logFile is a delivered file as a digest names it.
type logFile struct {
	Region string    `json:"region"`
	Bucket string    `json:"bucket"`
	Object string    `json:"object"`
	Hash   string    `json:"hash"` // SHA-256 of the uncompressed contents
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
	At     time.Time `json:"at"` // delivered
}

const (
	recordsAtOnce = 20000 // bounds a round's memory
	fileBytes     = 20 << 20
)

// Run delivers log files and digests until ctx ends. It may be killed at any line.
func (s *Service) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.cfg.Clock.After(s.cfg.DeliverEvery):
			s.Deliver(ctx)
		}
	}
}

// Deliver brings every trail up to date now.
func (s *Service) Deliver(ctx context.Context) {
	s.cfg.Store.Lead(ctx, "cloudtrail", func(ctx context.Context) {
		var keys []string
		s.trails.Scan(s.cfg.Store.Snapshot(), "", "", func(k string, t *trail) bool {
			if t.Log != "" {
				keys = append(keys, k)
			}
			return true
		})
		for _, k := range keys {
			if err := s.deliver(ctx, k); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Warn("trail not delivered", "trail", k, "err", err)
			}
		}
	})
}

// deliver brings one trail up to date.
func (s *Service) deliver(ctx context.Context, key string) error {
	now := s.cfg.Clock.Now().UTC()
	if err := s.cfg.Log.Settled(ctx); err != nil {
		return err
	}
	for {
		more, err := s.round(ctx, key, now)
		if err != nil {
			return errors.Join(err, s.note(ctx, key, func(d *delivery) { d.Tried, d.Error = now, err.Error() }))
		}
		if !more {
			break
		}
	}
	if err := s.digests(ctx, key, now); err != nil {
		return errors.Join(err, s.note(ctx, key, func(d *delivery) { d.DigestError = err.Error() }))
	}
	return nil
}

// note changes a trail's delivery, unless the trail was deleted.
func (s *Service) note(ctx context.Context, key string, f func(d *delivery)) error {
	return s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if s.trails.Get(tx, key) == nil {
			return nil
		}
		d := s.deliveries.Edit(tx, key)
		if d == nil {
			d = &delivery{}
		}
		f(d)
		return s.deliveries.Put(tx, key, d)
	})
}

// round delivers some records: what is to be done is stored first, so that after
// a crash the same files are written again under the same names.
func (s *Service) round(ctx context.Context, key string, now time.Time) (more bool, err error) {
	var t *trail
	var d *delivery
	err = s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		t, d = s.trails.Get(tx, key), nil
		if t == nil {
			return nil
		}
		if d = s.deliveries.Edit(tx, key); d == nil {
			d = &delivery{}
		}
		changed := d.Log != t.Log || d.DigestFrom.IsZero()
		if d.Log != t.Log { // logging has just begun, or the audit log is another
			d.Log, d.Done, d.Intent = t.Log, t.From, nil
		}
		d.Done = max(d.Done, t.From)
		if d.DigestFrom.IsZero() {
			d.DigestFrom = t.Started.Truncate(time.Second)
		}
		if d.Intent != nil {
			return nil
		}
		head := s.cfg.Log.Head()
		if head.Log != d.Log {
			return fmt.Errorf("trail follows audit log %s, which is not here: stop and start its logging", d.Log)
		}
		to := min(head.Seq, d.Done+recordsAtOnce)
		if t.Until != 0 {
			to = min(to, t.Until)
		}
		if to <= d.Done {
			stored := d
			d = nil
			if !changed {
				return nil
			}
			return s.deliveries.Put(tx, key, stored)
		}
		d.Intent = &round{From: d.Done, To: to, At: now, Bucket: t.Bucket, Prefix: t.Prefix}
		return s.deliveries.Put(tx, key, d)
	})
	if err != nil || d == nil {
		return false, err
	}
	r := *d.Intent
	files, err := s.writeFiles(ctx, t, &r)
	if err != nil {
		return false, err
	}
	err = s.note(ctx, key, func(d *delivery) {
		if d.Intent == nil || *d.Intent != r {
			return
		}
		d.Intent, d.Done, d.Tried, d.Error = nil, r.To, r.At, ""
		if len(files) > 0 {
			d.Delivered = r.At
			if t.Validation {
				d.Files = append(d.Files, files...)
			}
		}
	})
	return err == nil, err
}

// part is a log file being made.
type part struct {
	text           bytes.Buffer
	oldest, newest time.Time
}

// writeFiles writes the log files of a round, one or more for each region.
func (s *Service) writeFiles(ctx context.Context, t *trail, r *round) ([]logFile, error) {
	root := filepath.Join(s.cfg.Dir, r.Bucket)
	if _, err := os.Stat(root); err != nil {
		return nil, fmt.Errorf("NoSuchBucket: the bucket %s is not there: %w", r.Bucket, err)
	}
	parts := map[string]*part{}
	var files []logFile
	var failure error
	finish := func(region string) {
		p := parts[region]
		delete(parts, region)
		p.text.WriteString("]}")
		f, err := s.writeFile(t, r, region, len(files), p)
		if err != nil {
			failure = err
			return
		}
		files = append(files, f)
	}
	err := s.cfg.Log.Read(ctx, r.From+1, func(seq uint64, raw []byte) bool {
		if seq > r.To {
			return false
		}
		var e struct {
			Account  string    `json:"recipientAccountId"`
			Region   string    `json:"awsRegion"`
			Source   string    `json:"eventSource"`
			ReadOnly bool      `json:"readOnly"`
			Time     time.Time `json:"eventTime"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			failure = fmt.Errorf("read record %d: %w", seq, err)
			return false
		}
		if !t.chooses(e.Account, e.Region, e.Source, e.ReadOnly) {
			return true
		}
		p := parts[e.Region]
		if p == nil {
			p = &part{oldest: e.Time, newest: e.Time}
			p.text.WriteString(`{"Records":[`)
			parts[e.Region] = p
		} else {
			p.text.WriteByte(',')
		}
		p.text.Write(raw)
		if e.Time.Before(p.oldest) {
			p.oldest = e.Time
		}
		if e.Time.After(p.newest) {
			p.newest = e.Time
		}
		if p.text.Len() >= fileBytes {
			finish(e.Region)
		}
		return failure == nil
	})
	for _, region := range slices.Sorted(maps.Keys(parts)) {
		if err == nil && failure == nil {
			finish(region)
		}
	}
	return files, errors.Join(err, failure)
}

// writeFile writes one log file. Its name depends on the round and nothing else.
func (s *Service) writeFile(t *trail, r *round, region string, n int, p *part) (logFile, error) {
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", t.arn(), r.From, r.To, n))
	unique := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:10])
	object := objectPrefix(r.Prefix, t.Account, "CloudTrail", region, r.At) + fmt.Sprintf("%s_CloudTrail_%s_%s_%s.json.gz", t.Account, region, r.At.Format("20060102T1504Z"), unique)
	if err := s.put(r.Bucket, object, p.text.Bytes(), nil); err != nil {
		return logFile{}, err
	}
	sum := sha256.Sum256(p.text.Bytes())
	return logFile{Region: region, Bucket: r.Bucket, Object: object, Hash: hex.EncodeToString(sum[:]), Oldest: p.oldest, Newest: p.newest, At: r.At}, nil
}

func objectPrefix(prefix, account, kind, region string, at time.Time) string {
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}
	return prefix + "AWSLogs/" + account + "/" + kind + "/" + region + "/" + at.Format("2006/01/02") + "/"
}

// put writes an object, compressed, with its metadata first.
func (s *Service) put(bucket, object string, text []byte, metadata map[string]string) error {
	path := filepath.Join(s.cfg.Dir, bucket, filepath.FromSlash(object))
	if err := makeDirs(filepath.Join(s.cfg.Dir, bucket), filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", object, err)
	}
	if metadata != nil {
		js, err := json.Marshal(metadata)
		if err != nil {
			return fmt.Errorf("write %s: %w", object, err)
		}
		if err := durable.WriteFile(path+".metadata", append(js, '\n'), 0o640); err != nil {
			return err
		}
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write(text)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("compress %s: %w", object, err)
	}
	return durable.WriteFile(path, z.Bytes(), 0o640)
}

// makeDirs makes the directories from root (which must be there) down to dir, durably.
func makeDirs(root, dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == root {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(root, parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return durable.SyncDir(parent)
}
