package cloudtrail

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// chain is the last digest of a region.
type chain struct {
	Bucket    string `json:"bucket"`
	Object    string `json:"object"`
	Hash      string `json:"hash"`
	Signature string `json:"signature"`
}

// digest is a digest file. Source: CloudTrail User Guide, "CloudTrail digest file structure".
type digest struct {
	AWSAccountID                string       `json:"awsAccountId"`
	DigestStartTime             string       `json:"digestStartTime"`
	DigestEndTime               string       `json:"digestEndTime"`
	DigestS3Bucket              string       `json:"digestS3Bucket"`
	DigestS3Object              string       `json:"digestS3Object"`
	DigestPublicKeyFingerprint  string       `json:"digestPublicKeyFingerprint"`
	DigestSignatureAlgorithm    string       `json:"digestSignatureAlgorithm"`
	NewestEventTime             *string      `json:"newestEventTime"`
	OldestEventTime             *string      `json:"oldestEventTime"`
	PreviousDigestS3Bucket      *string      `json:"previousDigestS3Bucket"`
	PreviousDigestS3Object      *string      `json:"previousDigestS3Object"`
	PreviousDigestHashValue     *string      `json:"previousDigestHashValue"`
	PreviousDigestHashAlgorithm *string      `json:"previousDigestHashAlgorithm"`
	PreviousDigestSignature     *string      `json:"previousDigestSignature"`
	LogFiles                    []digestFile `json:"logFiles"`
}

type digestFile struct {
	S3Bucket        string `json:"s3Bucket"`
	S3Object        string `json:"s3Object"`
	HashValue       string `json:"hashValue"`
	HashAlgorithm   string `json:"hashAlgorithm"`
	NewestEventTime string `json:"newestEventTime"`
	OldestEventTime string `json:"oldestEventTime"`
}

const (
	stamp              = "2006-01-02T15:04:05Z"
	signatureHeader    = "x-amz-meta-signature"
	signatureAlgorithm = "SHA256withRSA"
)

// toSign is what the signature of a digest covers.
func toSign(end, bucket, object string, text []byte, previous *string) []byte {
	sum := sha256.Sum256(text)
	before := "null"
	if previous != nil {
		before = *previous
	}
	return fmt.Appendf(nil, "%s\n%s/%s\n%s\n%s", end, bucket, object, hex.EncodeToString(sum[:]), before)
}

// digests writes the digests that are due: for each region of the trail one for
// every full DigestEvery since the last, so that each file is in exactly one.
// After a crash the same digests are written again: all that goes into one is in
// the store, and PKCS #1 v1.5 signatures are deterministic.
func (s *Service) digests(ctx context.Context, key string, now time.Time) error {
	for {
		tx := s.cfg.Store.Snapshot()
		t, d := s.trails.Get(tx, key), s.deliveries.Get(tx, key)
		if t == nil || d == nil || !t.Validation || d.DigestFrom.IsZero() {
			return nil
		}
		end := d.DigestFrom.Add(s.cfg.DigestEvery)
		if end.After(now) {
			return nil
		}
		regions := map[string][]logFile{t.Region: nil}
		for region := range d.Chains {
			regions[region] = nil
		}
		n := 0 // files are in the order of their delivery
		for ; n < len(d.Files) && d.Files[n].At.Before(end); n++ {
			f := d.Files[n]
			regions[f.Region] = append(regions[f.Region], f)
		}
		chains := map[string]*chain{}
		for region, files := range regions {
			c, err := s.writeDigest(ctx, t, region, d.DigestFrom, end, files, d.Chains[region])
			if err != nil {
				return fmt.Errorf("digest of %s: %w", region, err)
			}
			chains[region] = c
		}
		from := d.DigestFrom
		err := s.note(ctx, key, func(d *delivery) {
			if !d.DigestFrom.Equal(from) {
				return
			}
			d.DigestFrom, d.Digested, d.DigestError, d.Chains, d.Files = end, now, "", chains, d.Files[n:]
		})
		if err != nil {
			return err
		}
	}
}

func (s *Service) writeDigest(ctx context.Context, t *trail, region string, start, end time.Time, files []logFile, before *chain) (*chain, error) {
	key, fingerprint, err := s.signer(ctx, region, end)
	if err != nil {
		return nil, err
	}
	object := objectPrefix(t.Prefix, t.Account, "CloudTrail-Digest", region, end) + fmt.Sprintf("%s_CloudTrail-Digest_%s_%s_%s_%s.json.gz", t.Account, region, t.Name, t.Region, end.Format("20060102T150405Z"))
	d := digest{AWSAccountID: t.Account, DigestStartTime: start.Format(stamp), DigestEndTime: end.Format(stamp), DigestS3Bucket: t.Bucket, DigestS3Object: object,
		DigestPublicKeyFingerprint: fingerprint, DigestSignatureAlgorithm: signatureAlgorithm, LogFiles: []digestFile{}}
	if before != nil {
		d.PreviousDigestS3Bucket, d.PreviousDigestS3Object, d.PreviousDigestHashValue, d.PreviousDigestHashAlgorithm, d.PreviousDigestSignature =
			&before.Bucket, &before.Object, &before.Hash, ptr("SHA-256"), &before.Signature
	}
	var oldest, newest time.Time
	for _, f := range files {
		d.LogFiles = append(d.LogFiles, digestFile{S3Bucket: f.Bucket, S3Object: f.Object, HashValue: f.Hash, HashAlgorithm: "SHA-256",
			NewestEventTime: f.Newest.UTC().Format(stamp), OldestEventTime: f.Oldest.UTC().Format(stamp)})
		if oldest.IsZero() || f.Oldest.Before(oldest) {
			oldest = f.Oldest
		}
		if f.Newest.After(newest) {
			newest = f.Newest
		}
	}
	if len(files) > 0 {
		d.OldestEventTime, d.NewestEventTime = ptr(oldest.UTC().Format(stamp)), ptr(newest.UTC().Format(stamp))
	}
	text, err := json.Marshal(&d)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(toSign(d.DigestEndTime, t.Bucket, object, text, d.PreviousDigestSignature))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	c := &chain{Bucket: t.Bucket, Object: object, Signature: hex.EncodeToString(signature)}
	hash := sha256.Sum256(text)
	c.Hash = hex.EncodeToString(hash[:])
	return c, s.put(t.Bucket, object, text, map[string]string{signatureHeader: c.Signature, "x-amz-meta-signature-algorithm": signatureAlgorithm})
}

// Validation is what ValidateLogs found.
type Validation struct {
	Digests, LogFiles int
	// Problems in words, each beginning with the object it is about.
	Problems []string
}

// OK reports whether nothing is wrong.
func (v *Validation) OK() bool { return len(v.Problems) == 0 }

func (v *Validation) problem(object, format string, args ...any) {
	v.Problems = append(v.Problems, object+": "+fmt.Sprintf(format, args...))
}

// ValidateLogs checks the digests of a trail in one region, and the log files they
// name, as the CLI's validate-logs does: from the newest digest back, each by its
// signature and by what the one after says of it. dir holds the buckets; keys are
// public keys by fingerprint (PKCS #1, DER), as ListPublicKeys gives them. Digests
// that end before start are not looked at.
func ValidateLogs(dir, bucket, prefix, account, region, homeRegion, trail string, start time.Time, keys map[string][]byte) (*Validation, error) {
	v := &Validation{}
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}
	base := filepath.Join(dir, bucket)
	tree := filepath.Join(base, filepath.FromSlash(prefix+"AWSLogs/"+account+"/CloudTrail-Digest/"+region))
	middle := fmt.Sprintf("%s_CloudTrail-Digest_%s_%s_%s_", account, region, trail, homeRegion)
	var objects []string
	err := filepath.WalkDir(tree, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(e.Name(), middle) || !strings.HasSuffix(e.Name(), ".json.gz") {
			return err
		}
		rel, err := filepath.Rel(base, path)
		objects = append(objects, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for digests: %w", err)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(objects)))
	var next *digest
	for _, object := range objects {
		text, err := readObject(base, object)
		if err != nil {
			v.problem(object, "%v", err)
			next = nil
			continue
		}
		var d digest
		if err := json.Unmarshal(text, &d); err != nil {
			v.problem(object, "not a digest: %v", err)
			next = nil
			continue
		}
		end, err := time.Parse(stamp, d.DigestEndTime)
		if err == nil && end.Before(start) {
			break
		}
		v.Digests++
		if d.DigestS3Object != object || d.DigestS3Bucket != bucket {
			v.problem(object, "says that it is %s/%s: it was moved", d.DigestS3Bucket, d.DigestS3Object)
		}
		if err := verifyDigest(base, object, text, &d, keys); err != nil {
			v.problem(object, "%v", err)
		}
		if next != nil {
			sum := sha256.Sum256(text)
			switch {
			case next.PreviousDigestS3Object == nil || *next.PreviousDigestS3Object != object:
				missing := "none"
				if next.PreviousDigestS3Object != nil {
					missing = *next.PreviousDigestS3Object
				}
				v.problem(object, "is not the digest before %s, which names %s: one was removed or added", next.DigestS3Object, missing)
			case next.PreviousDigestHashValue == nil || *next.PreviousDigestHashValue != hex.EncodeToString(sum[:]):
				v.problem(object, "does not have the hash that the digest after it names")
			}
		}
		for _, f := range d.LogFiles {
			v.LogFiles++
			text, err := readObject(filepath.Join(dir, f.S3Bucket), f.S3Object)
			sum := sha256.Sum256(text)
			switch {
			case err != nil:
				v.problem(f.S3Object, "%v", err)
			case hex.EncodeToString(sum[:]) != f.HashValue:
				v.problem(f.S3Object, "does not have the hash that its digest names: it was changed")
			}
		}
		next = &d
	}
	if next != nil && next.PreviousDigestS3Object != nil {
		if from, err := time.Parse(stamp, next.DigestStartTime); err == nil && !from.Before(start) {
			v.problem(*next.PreviousDigestS3Object, "the digest before %s is missing", next.DigestS3Object)
		}
	}
	return v, nil
}

func verifyDigest(base, object string, text []byte, d *digest, keys map[string][]byte) error {
	js, err := os.ReadFile(filepath.Join(base, filepath.FromSlash(object)) + ".metadata")
	if err != nil {
		return fmt.Errorf("its metadata is missing: %w", err)
	}
	var metadata map[string]string
	if err := json.Unmarshal(js, &metadata); err != nil {
		return fmt.Errorf("its metadata is not readable: %w", err)
	}
	signature, err := hex.DecodeString(metadata[signatureHeader])
	if err != nil {
		return fmt.Errorf("its signature is not readable: %w", err)
	}
	der := keys[d.DigestPublicKeyFingerprint]
	if der == nil {
		return fmt.Errorf("signed by key %s, which is not known", d.DigestPublicKeyFingerprint)
	}
	pub, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return fmt.Errorf("key %s: %w", d.DigestPublicKeyFingerprint, err)
	}
	sum := sha256.Sum256(toSign(d.DigestEndTime, d.DigestS3Bucket, object, text, d.PreviousDigestSignature))
	if rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], signature) != nil {
		return errors.New("its signature is wrong: it was changed")
	}
	return nil
}

const maxObject = 1 << 30

// readObject reads an object, uncompressed.
func readObject(base, object string) ([]byte, error) {
	if !filepath.IsLocal(filepath.FromSlash(object)) {
		return nil, fmt.Errorf("%q is no name of an object", object)
	}
	b, err := os.ReadFile(filepath.Join(base, filepath.FromSlash(object)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("it is missing")
	}
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("it is not compressed as it should be: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(z, maxObject))
	if err != nil {
		return nil, fmt.Errorf("it is not compressed as it should be: %w", err)
	}
	return text, nil
}
