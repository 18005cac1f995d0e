//go:build cgo

package pkcs11

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// module is a loaded shared library. A process initialises a library once
// (C_Initialize), so all tokens of one path share it; it stays loaded, and is
// finalised when its last token closes.
type module struct {
	path string
	ctx  *pkcs11.Ctx

	// mu makes login and logout one at a time, and guards what follows.
	mu     sync.Mutex
	tokens int              // open Tokens
	logins map[uint]*logged // by slot
}

// logged is the process's login to one slot.
type logged struct {
	tokens int
	// pin is HMAC-SHA256(pinSalt, PIN): to check the PIN of another Open.
	pin [sha256.Size]byte
	// keeper is a session that keeps the login alive.
	keeper pkcs11.SessionHandle
}

var (
	modulesMu sync.Mutex
	modules   = map[string]*module{}
	pinSalt   = func() []byte { b := make([]byte, 32); _, _ = rand.Read(b); return b }()
)

// library loads a module, or returns the one that is loaded.
func library(path string) (*module, error) {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	if m := modules[path]; m != nil {
		return m, nil
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("%w: %s is not there or is no PKCS #11 library", ErrModule, path)
	}
	m := &module{path: path, ctx: ctx, logins: map[uint]*logged{}}
	modules[path] = m
	return m, nil
}

// login finds a token and logs in as its user. It returns the slot.
func (m *module) login(label string, pin *secret.Bytes) (uint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tokens == 0 {
		if err := m.ctx.Initialize(); err != nil && !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			return 0, fmt.Errorf("%w: %s: %w", ErrModule, m.path, err)
		}
	}
	slot, err := m.loginSlot(label, pin)
	if err != nil {
		if m.tokens == 0 {
			_ = m.ctx.Finalize()
		}
		return 0, err
	}
	m.tokens++
	return slot, nil
}

func (m *module) loginSlot(label string, pin *secret.Bytes) (uint, error) {
	slot, err := m.slot(label)
	if err != nil {
		return 0, err
	}
	h := hmac.New(sha256.New, pinSalt)
	h.Write(pin.Expose())
	sum := [sha256.Size]byte(h.Sum(nil))
	if l := m.logins[slot]; l != nil {
		if !hmac.Equal(l.pin[:], sum[:]) {
			return 0, ErrPIN
		}
		if _, err := m.ctx.GetSessionInfo(l.keeper); err == nil {
			l.tokens++
			return slot, nil
		}
		// The token lost the session, and the login with it: log in again.
	}
	keeper, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return 0, fmt.Errorf("open a session: %w", translate(err))
	}
	if err := m.ctx.Login(keeper, pkcs11.CKU_USER, string(pin.Expose())); err != nil && !is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		_ = m.ctx.CloseSession(keeper)
		return 0, translate(err)
	}
	if l := m.logins[slot]; l != nil {
		l.keeper = keeper
		l.tokens++
		return slot, nil
	}
	m.logins[slot] = &logged{tokens: 1, pin: sum, keeper: keeper}
	return slot, nil
}

// slot finds the token by its label.
func (m *module) slot(label string) (uint, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("list the slots: %w", translate(err))
	}
	for _, s := range slots {
		info, err := m.ctx.GetTokenInfo(s)
		if err != nil || strings.TrimRight(info.Label, " \x00") != label {
			continue
		}
		switch {
		case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
			return 0, ErrPINLocked
		case info.Flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
			return 0, ErrNoUser
		}
		return s, nil
	}
	return 0, ErrNoToken
}

// info describes the token in a slot as far as it tells.
func (m *module) info(slot uint) Info {
	i, err := m.ctx.GetTokenInfo(slot)
	if err != nil {
		return Info{}
	}
	trim := func(s string) string { return strings.TrimRight(s, " \x00") }
	return Info{Manufacturer: trim(i.ManufacturerID), Model: trim(i.Model), Serial: trim(i.SerialNumber)}
}

// again logs in anew after the token lost its sessions.
func (m *module) again(slot uint, pin *secret.Bytes) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.logins[slot]
	if l == nil {
		return ErrClosed
	}
	if _, err := m.ctx.GetSessionInfo(l.keeper); err == nil {
		return nil // somebody else did
	}
	keeper, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return translate(err)
	}
	if err := m.ctx.Login(keeper, pkcs11.CKU_USER, string(pin.Expose())); err != nil && !is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		_ = m.ctx.CloseSession(keeper)
		return translate(err)
	}
	l.keeper = keeper
	return nil
}

// logout gives back a login.
func (m *module) logout(slot uint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.logins[slot]; l != nil {
		if l.tokens--; l.tokens == 0 {
			_ = m.ctx.Logout(l.keeper)
			_ = m.ctx.CloseSession(l.keeper)
			delete(m.logins, slot)
		}
	}
	if m.tokens--; m.tokens == 0 {
		_ = m.ctx.Finalize()
	}
}

func is(err error, codes ...uint) bool {
	var e pkcs11.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if uint(e) == c {
			return true
		}
	}
	return false
}

// stale tells that a session or object handle is no longer one.
func stale(err error) bool {
	return is(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID,
		pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_OPERATION_ACTIVE)
}

// translate gives a return value the error of this package that it means.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED):
		return fmt.Errorf("%w (%w)", ErrPIN, err)
	case is(err, pkcs11.CKR_PIN_LOCKED):
		return fmt.Errorf("%w (%w)", ErrPINLocked, err)
	case is(err, pkcs11.CKR_USER_PIN_NOT_INITIALIZED):
		return fmt.Errorf("%w (%w)", ErrNoUser, err)
	case is(err, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE):
		return fmt.Errorf("%w (%w)", ErrCiphertext, err)
	case stale(err), is(err, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		pkcs11.CKR_SLOT_ID_INVALID):
		return fmt.Errorf("%w (%w)", ErrTokenGone, err)
	}
	return err
}
