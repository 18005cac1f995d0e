package keyring

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// Config says where root keys lie and how a Ring opens them.
type Config struct {
	// Dir holds the root key files. Mode 0700.
	Dir string
	// Legacy is a root key file of the form of before, "" for none.
	Legacy string
	// Kind is the seal of a first root key, when there is none yet; default File.
	// An existing key says itself how it is sealed.
	Kind string
	// Secret is the passphrase, or the PIN of the token, nil when it is not known yet.
	// Open wipes it.
	Secret *secret.Bytes
	// Cost of a passphrase for a new seal; default DefaultCost.
	Cost Cost
	// Token opens the seal that is a PKCS #11 token: the one that stored parameters
	// describe, or with nil the configured one. A nil pin: as configured. Nil: none.
	Token func(parameters json.RawMessage, pin *secret.Bytes) (Seal, error)
	Clock clock.Clock
}

// ErrRotating: the rotation before has not ended.
var ErrRotating = errors.New("a rotation of the root key is under way: wait until the root key of before is forgotten")

// Ring is the Root of a server; see the package doc. Safe for concurrent use.
type Ring struct {
	cfg Config

	mu    sync.RWMutex
	files []stored    // lowest generation first; the last is current
	keys  map[ID]*Key // those that are open
	seal  Seal        // of the current key, nil while sealed
	why   string      // why it is sealed
	wake  chan struct{}
}

// Open reads the root keys, makes the first when there is none, and opens those that
// can be opened. A Ring that stays sealed is no error: see Sealed.
func Open(cfg Config) (*Ring, error) {
	defer cfg.Secret.Wipe()
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Cost == (Cost{}) {
		cfg.Cost = DefaultCost
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the root keys: %w", err)
	}
	r := &Ring{cfg: cfg, keys: map[ID]*Key{}, wake: make(chan struct{}, 1)}
	// What a killed write left behind is a key that was never used, and what a killed
	// shred did, one that is not needed any more.
	left, err := filepath.Glob(filepath.Join(cfg.Dir, ".*.key.*"))
	if cfg.Legacy != "" {
		left = append(left, filepath.Join(filepath.Dir(cfg.Legacy), "."+filepath.Base(cfg.Legacy)+".shred"))
	}
	for _, p := range left {
		err = errors.Join(err, shred(p))
	}
	if err != nil {
		return nil, fmt.Errorf("clear the directory of the root keys: %w", err)
	}
	if r.files, err = readDir(cfg.Dir, cfg.Legacy); err != nil {
		return nil, err
	}
	if len(r.files) == 0 {
		if err := r.first(); err != nil {
			return nil, fmt.Errorf("make the first root key: %w", err)
		}
		return r, nil
	}
	if err := r.Unseal(cfg.Secret); err != nil && !errors.Is(err, ErrSealed) {
		return nil, err
	}
	r.cfg.Secret = nil
	return r, nil
}

// NewSeal makes a seal of a kind for a new root key. It does not wipe the secret.
func (r *Ring) NewSeal(kind string, sec *secret.Bytes) (Seal, error) {
	switch kind {
	case "", File:
		return FileSeal{}, nil
	case Passphrase:
		if sec.Len() == 0 {
			return nil, errors.New("a root key sealed by a passphrase needs one: --root-secret-file")
		}
		return NewPassphrase(sec, r.cfg.Cost)
	case PKCS11:
		if r.cfg.Token == nil {
			return nil, errors.New("a root key sealed by a PKCS #11 token needs one: --root-pkcs11-module")
		}
		return r.cfg.Token(nil, sec)
	}
	return nil, fmt.Errorf("there is no root seal %q: want %s, %s or %s", kind, File, Passphrase, PKCS11)
}

func (r *Ring) first() error {
	seal, err := r.NewSeal(r.cfg.Kind, r.cfg.Secret)
	if err != nil {
		return err
	}
	return r.add(1, seal)
}

// add makes a new current key. mu is held, or r not shared yet.
func (r *Ring) add(generation int, seal Seal) error {
	raw := secret.Random(rootSize)
	defer raw.Wipe()
	k := newKey(append([]byte(nil), raw.Expose()...))
	f, err := sealKey(k, generation, r.cfg.Clock.Now().UTC().Format(time.RFC3339), seal)
	if err != nil {
		return err
	}
	path, err := f.write(r.cfg.Dir)
	if err != nil {
		return err
	}
	f.opened()
	r.files = append(r.files, stored{f, path})
	r.keys[k.id] = k
	r.seal = seal
	return nil
}

// Sealed is nil when every root key is open, else ErrSealed with the reason.
func (r *Ring) Sealed() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sealed()
}

func (r *Ring) sealed() error {
	if r.seal != nil && !slices.ContainsFunc(r.files, func(f stored) bool { return r.keys[f.id()] == nil }) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrSealed, r.why)
}

// Unseal opens what sec opens: a passphrase, or the PIN of the token; nil is enough
// for keys that need no secret. It returns nil when every key is open, ErrPassphrase
// for a wrong passphrase, and ErrSealed when a secret is needed and none was given.
// It does not wipe sec.
func (r *Ring) Unseal(sec *secret.Bytes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	seals := map[string]Seal{}
	defer func() {
		for _, s := range seals {
			if s != r.seal {
				s.Close()
			}
		}
	}()
	var errs []error
	for i, f := range r.files {
		last := i == len(r.files)-1
		if id := f.id(); r.keys[id] != nil && (!last || r.seal != nil) {
			continue
		}
		key := f.Seal + string(f.Parameters)
		s := seals[key]
		if s == nil {
			var err error
			if s, err = r.sealOf(f, sec); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f.path, err))
				continue
			}
			seals[key] = s
		}
		k, err := f.open(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.path, err))
			continue
		}
		f.opened()
		r.keys[k.id] = k
		if last {
			r.seal = s
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		r.why = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return err
}

// sealOf opens the seal of a stored key.
func (r *Ring) sealOf(f stored, sec *secret.Bytes) (Seal, error) {
	switch f.Seal {
	case File:
		return FileSeal{}, nil
	case Passphrase:
		if sec.Len() == 0 {
			return nil, fmt.Errorf("%w by a passphrase: give it with `sealdesk unseal`", ErrSealed)
		}
		return passphraseSeal(sec, f.Parameters)
	case PKCS11:
		if r.cfg.Token == nil {
			return nil, fmt.Errorf("%w by a PKCS #11 token: start with --root-pkcs11-module", ErrSealed)
		}
		s, err := r.cfg.Token(f.Parameters, sec)
		if err != nil {
			return nil, fmt.Errorf("%w by a PKCS #11 token, which does not open: %w", ErrSealed, err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("the root key has a seal %q, which this program does not know", f.Seal)
}

func (f stored) id() ID {
	b, _ := hex.DecodeString(f.ID) // ParseKeyFile saw to it
	return ID(b)
}

// Wrap seals plaintext under the current root key.
func (r *Ring) Wrap(purpose string, plaintext *secret.Bytes, aad []byte) ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.sealed(); err != nil {
		return nil, err
	}
	return r.current().Wrap(purpose, plaintext, aad)
}

func (r *Ring) current() *Key { return r.keys[r.files[len(r.files)-1].id()] }

// Unwrap opens what any of the root keys wrapped, or returns ErrUnwrap.
func (r *Ring) Unwrap(purpose string, wrapped, aad []byte) (*secret.Bytes, error) {
	id, ok := wrappedUnder(wrapped)
	if !ok {
		return nil, ErrUnwrap
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	k := r.keys[id]
	if k == nil {
		if err := r.sealed(); err != nil {
			return nil, err
		}
		return nil, ErrUnwrap
	}
	return k.Unwrap(purpose, wrapped, aad)
}

// Rotate makes a new current root key under seal (nil: the present one, else Rotate
// owns it). Keys of before come under the new seal too, so that the old passphrase or
// token is not needed any more once Rotate has returned. Run does the rest.
func (r *Ring) Rotate(seal Seal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.sealed(); err != nil {
		return err
	}
	if len(r.files) > 1 {
		return ErrRotating
	}
	if seal == nil {
		seal = r.seal
	}
	if old := r.files[0]; seal != r.seal {
		f, err := sealKey(r.keys[old.id()], old.Generation, old.Created, seal)
		if err != nil {
			return err
		}
		path, err := f.write(r.cfg.Dir)
		if err != nil {
			return err
		}
		if path != old.path {
			if err := shred(old.path); err != nil {
				return err
			}
		}
		f.opened()
		r.seal.Close()
		r.files[0], r.seal = stored{f, path}, seal
	}
	if err := r.add(r.files[0].Generation+1, seal); err != nil {
		return err
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// forget destroys an older key: its file is overwritten and removed.
func (r *Ring) forget(id ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, f := range r.files[:len(r.files)-1] {
		if f.id() != id {
			continue
		}
		if err := shred(f.path); err != nil {
			return fmt.Errorf("destroy root key %s: %w", id, err)
		}
		r.files = append(r.files[:i:i], r.files[i+1:]...)
		// A call that began before still has records of before in hand.
		time.AfterFunc(time.Minute, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.wipe(id)
		})
		return nil
	}
	return nil
}

// wipe removes a key from memory. mu is held.
func (r *Ring) wipe(id ID) {
	if k := r.keys[id]; k != nil {
		k.key.Wipe()
		delete(r.keys, id)
	}
}

// older are the keys that only unwrap; none while sealed.
func (r *Ring) older() []ID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.sealed() != nil {
		return nil
	}
	var ids []ID
	for _, f := range r.files[:len(r.files)-1] {
		ids = append(ids, f.id())
	}
	return ids
}

// KeyStatus describes a root key.
type KeyStatus struct {
	ID         string
	Generation int
	Seal       string
	Created    string
	Current    bool
	Open       bool
}

// Status lists the root keys, lowest generation first.
func (r *Ring) Status() []KeyStatus {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []KeyStatus
	for i, f := range r.files {
		out = append(out, KeyStatus{f.ID, f.Generation, f.KeyFile.Seal, f.Created, i == len(r.files)-1, r.keys[f.id()] != nil})
	}
	return out
}

// Files are the root key files that are sealed by more than their mode, by name: what
// may lie in a backup.
func (r *Ring) Files() (map[string][]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := map[string][]byte{}
	for _, f := range r.files {
		if f.KeyFile.Seal == File {
			continue
		}
		b, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("read a sealed root key: %w", err)
		}
		out[filepath.Base(f.path)] = b
	}
	return out, nil
}

// Close wipes every root key from memory.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.keys {
		r.wipe(id)
	}
	var err error
	if r.seal != nil {
		err = r.seal.Close()
	}
	r.seal, r.why = nil, "closed"
	return err
}
