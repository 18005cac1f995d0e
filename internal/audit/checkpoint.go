package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sealdesk/sealdesk/internal/durable"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// signingKey is a node's Ed25519 key. Key: node.
type signingKey struct {
	Seed   []byte `json:"seed"` // wrapped, purpose "audit/checkpoint", bound to the node
	Public []byte `json:"public"`
}

const (
	checkpointFile = "checkpoints.jsonl"
	keyFile        = "checkpoint-key.pem"
)

// checkpoint is a signed head; see the package doc.
type checkpointLine struct {
	Version   int    `json:"version"`
	Log       string `json:"log"`
	Seq       uint64 `json:"seq"`
	Hash      Hash   `json:"hash"`
	Time      string `json:"time"`
	Previous  Hash   `json:"previous"`
	Key       Hash   `json:"key"`
	Signature []byte `json:"signature"`
}

func (c *checkpointLine) message() []byte {
	return []byte("sealdesk audit checkpoint 1\n" + c.Log + "\n" + strconv.FormatUint(c.Seq, 10) + "\n" + c.Hash.String() + "\n" + c.Time + "\n" + c.Previous.String() + "\n")
}

func (c *checkpointLine) encode() []byte {
	b := append([]byte(`{"version":1,"log":`), appendString(nil, c.Log)...)
	b = strconv.AppendUint(append(b, `,"seq":`...), c.Seq, 10)
	b = append(append(b, `,"hash":"`...), c.Hash.String()...)
	b = appendString(append(b, `","time":`...), c.Time)
	b = append(append(b, `,"previous":"`...), c.Previous.String()...)
	b = append(append(b, `","key":"`...), c.Key.String()...)
	b = append(append(b, `","signature":"`...), base64.StdEncoding.EncodeToString(c.Signature)...)
	return append(b, lineEnd...)
}

func parseCheckpoint(b []byte) (*checkpointLine, error) {
	var c checkpointLine
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("not a checkpoint: %w", err)
	}
	if c.Version != 1 {
		return nil, fmt.Errorf("checkpoint of version %d, this program reads 1", c.Version)
	}
	if _, err := time.Parse(time.RFC3339, c.Time); err != nil {
		return nil, fmt.Errorf("not a checkpoint: %w", err)
	}
	if !bytes.Equal(c.encode(), b) {
		return nil, errors.New("not a checkpoint: bytes that do not belong there")
	}
	return &c, nil
}

func (c *checkpointLine) verify(pub ed25519.PublicKey) error {
	if c.Key != fingerprint(pub) {
		return fmt.Errorf("signed by key %s, not by %s", c.Key, fingerprint(pub))
	}
	if !ed25519.Verify(pub, c.message(), c.Signature) {
		return errors.New("its signature is wrong")
	}
	return nil
}

// fingerprint is the SHA-256 of the public key's PKIX form.
func fingerprint(pub ed25519.PublicKey) Hash {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic("audit: an Ed25519 key that does not encode: " + err.Error())
	}
	return sha256.Sum256(der)
}

// ParsePublicKey reads a checkpoint key in PEM form.
func ParsePublicKey(b []byte) (ed25519.PublicKey, error) {
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, errors.New("audit: the key is not in PEM form")
	}
	k, err := x509.ParsePKIXPublicKey(p.Bytes)
	if err != nil {
		return nil, fmt.Errorf("audit: read the checkpoint key: %w", err)
	}
	pub, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("audit: the checkpoint key is a %T, want Ed25519", k)
	}
	return pub, nil
}

// PublicKey is the key that checkpoints are verified with. Known after Start.
func (l *Log) PublicKey() ed25519.PublicKey {
	pub, _ := l.key.Public().(ed25519.PublicKey)
	return pub
}

const keyPurpose = "audit/checkpoint"

func keyAAD(node string) []byte { return []byte("audit/key/" + node) }

// Rewrap wraps the signing keys of all nodes anew (keyring.Holder).
func (l *Log) Rewrap(ctx context.Context, stale func([]byte) bool, rewrap func(string, []byte, []byte) ([]byte, error)) error {
	return l.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		var nodes []string
		l.keys.Scan(tx, "", "", func(node string, k *signingKey) bool {
			if stale(k.Seed) {
				nodes = append(nodes, node)
			}
			return true
		})
		for _, node := range nodes {
			k := l.keys.Edit(tx, node)
			var err error
			if k.Seed, err = rewrap(keyPurpose, k.Seed, keyAAD(node)); err != nil {
				return fmt.Errorf("the key that signs audit checkpoints of node %s: %w", node, err)
			}
			if err := l.keys.Put(tx, node, k); err != nil {
				return err
			}
		}
		return nil
	})
}

// loadKey reads the node's signing key, or makes one.
func (l *Log) loadKey(ctx context.Context) error {
	aad := keyAAD(l.cfg.Node)
	var row *signingKey
	err := l.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if row = l.keys.Get(tx, l.cfg.Node); row != nil {
			return nil
		}
		pub, priv, err := ed25519.GenerateKey(nil)
		if err != nil {
			return err
		}
		seed := secret.New(priv.Seed())
		defer seed.Wipe()
		wrapped, err := l.cfg.Root.Wrap(keyPurpose, seed, aad)
		if err != nil {
			return err
		}
		row = &signingKey{Seed: wrapped, Public: pub}
		return l.keys.Put(tx, l.cfg.Node, row)
	})
	if err != nil {
		return fmt.Errorf("make the key that signs audit checkpoints: %w", err)
	}
	seed, err := l.cfg.Root.Unwrap(keyPurpose, row.Seed, aad)
	if err != nil {
		return fmt.Errorf("open the key that signs audit checkpoints: %w", err)
	}
	defer seed.Wipe()
	if seed.Len() != ed25519.SeedSize {
		return fmt.Errorf("the key that signs audit checkpoints has %d bytes, want %d", seed.Len(), ed25519.SeedSize)
	}
	l.key = ed25519.NewKeyFromSeed(seed.Expose())
	der, err := x509.MarshalPKIXPublicKey(l.PublicKey())
	if err != nil {
		return fmt.Errorf("encode the checkpoint key: %w", err)
	}
	path := filepath.Join(l.cfg.Dir, keyFile)
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return durable.WriteFile(path, text, 0o644)
}

// openCheckpoints finds the last checkpoint; one that was torn is cut off.
func (l *Log) openCheckpoints() error {
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, checkpointFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the checkpoints: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("read the checkpoints: %w", err)
	}
	from := max(0, size-8192)
	b := make([]byte, size-from)
	if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the checkpoints: %w", err)
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	if torn := len(b) - end; torn > 0 {
		if err := f.Truncate(size - int64(torn)); err != nil {
			return fmt.Errorf("cut a torn checkpoint off: %w", err)
		}
	}
	b = b[:end]
	if len(b) == 0 {
		return nil
	}
	last := b[bytes.LastIndexByte(b[:len(b)-1], '\n')+1:]
	c, err := parseCheckpoint(last)
	if err != nil {
		return fmt.Errorf("%w: the last checkpoint: %w", ErrTampered, err)
	}
	l.lastCP = sha256.Sum256(last[:len(last)-1])
	if c.Log == l.id {
		l.cpSeq = c.Seq
	}
	return nil
}

// checkpoint signs the head and pins it, if there is anything new.
func (l *Log) checkpoint(ctx context.Context) error {
	head, err := l.sync()
	if err != nil {
		return err
	}
	l.runMu.Lock()
	if head.Seq > l.cpSeq {
		err = l.sign(head)
	}
	l.runMu.Unlock()
	if err != nil {
		return err
	}
	return l.pin(ctx, head)
}

// sign appends a checkpoint for head. runMu is held.
func (l *Log) sign(head Head) error {
	c := checkpointLine{Version: 1, Log: head.Log, Seq: head.Seq, Hash: head.Hash, Time: l.cfg.Clock.Now().UTC().Format(time.RFC3339), Previous: l.lastCP, Key: fingerprint(l.PublicKey())}
	c.Signature = ed25519.Sign(l.key, c.message())
	b := c.encode()
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, checkpointFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.Write(b)
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("write a checkpoint: %w", err)
	}
	l.lastCP, l.cpSeq = sha256.Sum256(b[:len(b)-1]), head.Seq
	return nil
}
