package directory

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Cost of a hash: see the package doc.
const (
	hashMemory = 19456 // KiB
	hashTime   = 2
	hashLanes  = 1
	saltSize   = 16
	hashSize   = 32
)

// Errors of Authenticate.
var (
	// ErrCredentials: no such directory or user, a wrong password, or none set. One
	// error for all, so that nobody learns which users there are.
	ErrCredentials = errors.New("directory: the user name or the password is incorrect")
	// ErrDisabled: the password is right and the user disabled.
	ErrDisabled = errors.New("directory: the user is disabled")
	// ErrLocked: too many wrong passwords; try again later.
	ErrLocked = errors.New("directory: too many wrong passwords for this user; try again later")
)

// hash makes the PHC text of a password.
func (s *Service) hash(password string) []byte {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt)
	sum := s.derive(password, salt, hashMemory, hashTime, hashLanes)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Appendf(nil, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashTime, hashLanes, b64(salt), b64(sum))
}

func (s *Service) derive(password string, salt []byte, memory, time uint32, lanes uint8) []byte {
	s.hashing <- struct{}{}
	defer func() { <-s.hashing }()
	return argon2.IDKey([]byte(password), salt, time, memory, lanes, hashSize)
}

// matches compares a password with its PHC text.
func (s *Service) matches(text []byte, password string) (bool, error) {
	parts := strings.Split(string(text), "$")
	var version int
	var memory, time uint32
	var lanes uint8
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("stored password has an unknown form")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, fmt.Errorf("stored password has Argon2 version %q, this program knows %d", parts[2], argon2.Version)
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &lanes); err != nil || time == 0 || lanes == 0 || memory > 1<<21 {
		return false, fmt.Errorf("stored password has parameters %q", parts[3])
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("stored password: salt: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("stored password: hash: %w", err)
	}
	return subtle.ConstantTimeCompare(s.derive(password, salt, memory, time, lanes), want) == 1, nil
}

const purpose = "directory/password"

// Wrapped are the values that the service keeps under the root key.
func (s *Service) Wrapped() []keyring.Holder {
	return []keyring.Holder{
		keyring.Holds(s.cfg.Store, s.passwords, func(key string, p *password) []keyring.Field {
			return []keyring.Field{{Purpose: purpose, AAD: []byte(key), Value: &p.Wrapped}}
		}),
		keyring.Holds(s.cfg.Store, s.snapshotParts, func(_ string, p *snapshotPart) []keyring.Field { return p.wrapped() }),
		keyring.Holds(s.cfg.Store, s.radiuses, func(key string, r *radius) []keyring.Field {
			return []keyring.Field{{Purpose: radiusPurpose, AAD: []byte(key), Value: &r.Secret}}
		}),
	}
}

// setPassword stores the hash of a user's password.
func (s *Service) setPassword(tx *store.Tx, key, text string) error {
	h := secret.New(s.hash(text))
	defer h.Wipe()
	wrapped, err := s.cfg.Root.Wrap(purpose, h, []byte(key))
	if err != nil {
		return fmt.Errorf("wrap the password hash of %s: %w", key, err)
	}
	return s.passwords.Put(tx, key, &password{Wrapped: wrapped, Set: s.cfg.Clock.Now()})
}

// Authenticate checks a user's password. userName may be the sAMAccountName, with
// or without DOMAIN\ before it, or the user principal name (name@domain). It takes
// tens of milliseconds whatever the answer. For the user portal.
func (s *Service) Authenticate(ctx context.Context, directoryID, userName, text string) (User, error) {
	var found User
	var key string
	var enabled bool
	var hashed []byte
	tx := s.cfg.Store.Snapshot()
	if keys := s.byID.Keys(directoryID, "", 1); len(keys) == 1 {
		if d := s.directories.Get(tx, keys[0]); d != nil && available(d) == nil {
			if name, ok := d.localName(userName); ok {
				key = objectKey(d, name)
				if o, p := s.objects.Get(tx, key), s.passwords.Get(tx, key); o != nil && o.Kind == user && p != nil {
					h, err := s.cfg.Root.Unwrap(purpose, p.Wrapped, []byte(key))
					if err != nil {
						return User{}, fmt.Errorf("open the password hash of %s: %w", key, err)
					}
					hashed = append(hashed, h.Expose()...)
					h.Wipe()
					defer secret.Zero(hashed)
					found, enabled = d.user(o), o.Enabled
				}
			}
		}
	}
	now := s.cfg.Clock.Now()
	if key == "" || hashed == nil {
		// Take as long as for a user who exists.
		s.derive(text, make([]byte, saltSize), hashMemory, hashTime, hashLanes)
		return User{}, ErrCredentials
	}
	if !s.guesses.allowed(key, now) {
		return User{}, ErrLocked
	}
	if err := ctx.Err(); err != nil {
		return User{}, err
	}
	ok, err := s.matches(hashed, text)
	switch {
	case err != nil:
		return User{}, fmt.Errorf("check the password of %s: %w", key, err)
	case !ok:
		s.guesses.wrong(key, now)
		return User{}, ErrCredentials
	case !enabled:
		return User{}, ErrDisabled
	}
	s.guesses.forget(key)
	return found, nil
}

// localName is the sAMAccountName in a name that people type.
func (d *directory) localName(s string) (string, bool) {
	if domain, name, ok := strings.Cut(s, `\`); ok {
		return name, name != "" && (strings.EqualFold(domain, d.ShortName) || strings.EqualFold(domain, d.Name))
	}
	if name, domain, ok := strings.Cut(s, "@"); ok {
		return name, name != "" && strings.EqualFold(domain, d.Name)
	}
	return s, s != ""
}

// guesses slows down who guesses passwords: after maxGuesses wrong ones the user
// is locked for lockTime. It is kept in memory, by each node for itself.
type guesses struct {
	mu sync.Mutex
	m  map[string]*guess
}

type guess struct {
	wrong int
	last  time.Time
}

const (
	maxGuesses  = 10
	lockTime    = 5 * time.Minute
	maxWatched  = 100000
	forgetAfter = 30 * time.Minute
)

func (g *guesses) allowed(key string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.m[key]
	return e == nil || e.wrong < maxGuesses || now.Sub(e.last) >= lockTime
}

func (g *guesses) wrong(key string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.m[key]
	if e == nil || now.Sub(e.last) >= forgetAfter || e.wrong >= maxGuesses && now.Sub(e.last) >= lockTime {
		if len(g.m) >= maxWatched {
			for k, o := range g.m {
				if now.Sub(o.last) >= lockTime {
					delete(g.m, k)
				}
			}
		}
		e = &guess{}
		g.m[key] = e
	}
	e.wrong++
	e.last = now
}

func (g *guesses) forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, key)
}
