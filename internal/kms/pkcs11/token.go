//go:build cgo

package pkcs11

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Token is a token that the process is logged in to. Keys are named by their
// label (CKA_LABEL), which must be theirs alone among the token's secret keys.
type Token struct {
	mod  *module
	slot uint
	pin  *secret.Bytes
	info Info

	// free holds a place for each session that may be open; nil: open one first.
	free chan *session
	// handles remembers the object handle of a label.
	handles sync.Map // string → pkcs11.ObjectHandle

	mu     sync.Mutex // guards closed and the count of users
	closed bool
	users  sync.WaitGroup
}

type session struct{ h pkcs11.SessionHandle }

// Open loads the module, finds the token and logs in with the user's PIN. The
// PIN stays the caller's.
func Open(ctx context.Context, cfg Config, pin *secret.Bytes) (*Token, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Sessions <= 0 {
		cfg.Sessions = 8
	}
	type opened struct {
		t   *Token
		err error
	}
	own := pin.Clone()
	done := make(chan opened, 1)
	go func() {
		m, err := library(cfg.Module)
		var slot uint
		if err == nil {
			slot, err = m.login(cfg.Token, own)
		}
		if err != nil {
			own.Wipe()
			done <- opened{err: err}
			return
		}
		t := &Token{mod: m, slot: slot, pin: own, info: m.info(slot), free: make(chan *session, cfg.Sessions)}
		for range cfg.Sessions {
			t.free <- nil
		}
		done <- opened{t: t}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, fmt.Errorf("open the PKCS #11 token %q: %w", cfg.Token, o.err)
		}
		return o.t, nil
	case <-ctx.Done():
		go func() { // the login may still come
			if o := <-done; o.t != nil {
				o.t.Close()
			}
		}()
		return nil, fmt.Errorf("open the PKCS #11 token %q: %w: %w", cfg.Token, ErrTokenGone, ctx.Err())
	}
}

// Close lets the operations that run end, closes the sessions and logs out. It
// does not wait for a token that hangs.
func (t *Token) Close() {
	t.mu.Lock()
	closed := t.closed
	t.closed = true
	t.mu.Unlock()
	if closed {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.users.Wait()
		for range cap(t.free) {
			if s := <-t.free; s != nil {
				_ = t.mod.ctx.CloseSession(s.h)
			}
		}
		t.mod.logout(t.slot)
		t.pin.Wipe()
	}()
	select {
	case <-done:
	case <-time.After(closeGrace):
	}
}

const closeGrace = 2 * time.Second

// do runs f with a session, once more when the token had lost the first one. f
// may outlive ctx: then drop gets its result, and the session returns to the pool
// when the token answers. held is wiped when f has ended.
func do[T any](ctx context.Context, t *Token, drop func(T), f func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (T, error), held ...*secret.Bytes) (T, error) {
	var zero T
	wipe := func() {
		for _, h := range held {
			h.Wipe()
		}
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		wipe()
		return zero, ErrClosed
	}
	t.users.Add(1)
	t.mu.Unlock()
	var s *session
	select {
	case s = <-t.free:
	case <-ctx.Done():
		t.users.Done()
		wipe()
		return zero, fmt.Errorf("%w: %w", ErrTokenGone, ctx.Err())
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	var mu sync.Mutex
	abandoned := false
	go func() {
		defer t.users.Done()
		defer wipe()
		v, err := attempt(t, &s, f)
		if err != nil && stale(err) {
			t.handles.Clear()
			if s != nil {
				_ = t.mod.ctx.CloseSession(s.h)
				s = nil
			}
			if err = t.mod.again(t.slot, t.pin); err == nil {
				v, err = attempt(t, &s, f)
			}
		}
		t.free <- s
		mu.Lock()
		defer mu.Unlock()
		if abandoned && err == nil && drop != nil {
			drop(v)
			return
		}
		done <- result{v, translate(err)}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		select {
		case r := <-done:
			return r.v, r.err
		default:
		}
		abandoned = true
		return zero, fmt.Errorf("%w: %w", ErrTokenGone, ctx.Err())
	}
}

func attempt[T any](t *Token, s **session, f func(ctx *pkcs11.Ctx, s pkcs11.SessionHandle) (T, error)) (T, error) {
	if *s == nil {
		h, err := t.mod.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			var zero T
			return zero, err
		}
		*s = &session{h}
	}
	return f(t.mod.ctx, (*s).h)
}

// Info describes the token.
func (t *Token) Info() Info { return t.info }

// Ping asks the token for a sign of life that needs the login.
func (t *Token) Ping(ctx context.Context) error {
	_, err := do(ctx, t, nil, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (struct{}, error) {
		info, err := p.GetSessionInfo(s)
		if err == nil && info.State != pkcs11.CKS_RW_USER_FUNCTIONS {
			err = pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
		}
		return struct{}{}, err
	})
	return err
}

// Random returns n bytes from the token's random source.
func (t *Token) Random(ctx context.Context, n int) (*secret.Bytes, error) {
	r, err := do(ctx, t, (*secret.Bytes).Wipe, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (*secret.Bytes, error) {
		b, err := p.GenerateRandom(s, n)
		if err != nil {
			return nil, err
		}
		return secret.New(b), nil
	})
	if err != nil {
		return nil, fmt.Errorf("random bytes from the token: %w", err)
	}
	return r, nil
}

// secretKey is the template that finds a key.
func secretKey(label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
}

func find(p *pkcs11.Ctx, s pkcs11.SessionHandle, label string) (pkcs11.ObjectHandle, error) {
	if err := p.FindObjectsInit(s, secretKey(label)); err != nil {
		return 0, err
	}
	hs, _, err := p.FindObjects(s, 2)
	if end := p.FindObjectsFinal(s); err == nil {
		err = end
	}
	switch {
	case err != nil:
		return 0, err
	case len(hs) == 0:
		return 0, ErrNoKey
	case len(hs) > 1:
		return 0, ErrManyKeys
	}
	return hs[0], nil
}

// handle is find with memory.
func (t *Token) handle(p *pkcs11.Ctx, s pkcs11.SessionHandle, label string) (pkcs11.ObjectHandle, error) {
	if h, ok := t.handles.Load(label); ok {
		return h.(pkcs11.ObjectHandle), nil
	}
	h, err := find(p, s, label)
	if err == nil {
		t.handles.Store(label, h)
	}
	return h, err
}

// Generate makes an AES key of 128, 192 or 256 bits in the token that can
// encrypt and decrypt there and not leave it. ErrKeyExists: the label is taken.
func (t *Token) Generate(ctx context.Context, label string, bits int) error {
	_, err := do(ctx, t, nil, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (struct{}, error) {
		switch _, err := find(p, s, label); err {
		case ErrNoKey:
		case nil, ErrManyKeys:
			return struct{}{}, ErrKeyExists
		default:
			return struct{}{}, err
		}
		a := append(secretKey(label),
			pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, bits/8),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
			pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
			pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
			pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false))
		_, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, a)
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("generate the key %q in the token: %w", label, err)
	}
	return nil
}

// Key describes a key. ErrUnsuitable: it is no AES key that can encrypt and decrypt.
func (t *Token) Key(ctx context.Context, label string) (KeyInfo, error) {
	info, err := do(ctx, t, nil, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (KeyInfo, error) {
		h, err := find(p, s, label)
		if err != nil {
			return KeyInfo{}, err
		}
		at, err := p.GetAttributeValue(s, h, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, nil), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, nil),
			pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_NEVER_EXTRACTABLE, nil)})
		if err != nil {
			return KeyInfo{}, err
		}
		if number(at[0]) != pkcs11.CKK_AES || number(at[2]) == 0 || number(at[3]) == 0 {
			return KeyInfo{}, ErrUnsuitable
		}
		return KeyInfo{Label: label, Bits: int(number(at[1])) * 8, Kept: number(at[4]) == 1 && number(at[5]) == 1}, nil
	})
	if err != nil {
		return info, fmt.Errorf("look for the key %q in the token: %w", label, err)
	}
	return info, nil
}

// number reads a CK_ULONG or CK_BBOOL attribute.
func number(a *pkcs11.Attribute) uint64 {
	switch len(a.Value) {
	case 1:
		return uint64(a.Value[0])
	case 4:
		return uint64(binary.NativeEndian.Uint32(a.Value))
	case 8:
		return binary.NativeEndian.Uint64(a.Value)
	}
	return 0
}

// Destroy destroys a key and reports success when there is none.
func (t *Token) Destroy(ctx context.Context, label string) error {
	_, err := do(ctx, t, nil, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (struct{}, error) {
		t.handles.Delete(label)
		h, err := find(p, s, label)
		if err == ErrNoKey {
			return struct{}{}, nil
		}
		if err == nil {
			err = p.DestroyObject(s, h)
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("destroy the key %q in the token: %w", label, err)
	}
	return nil
}

// Seal encrypts in the token; see the package doc for the form.
func (t *Token) Seal(ctx context.Context, label string, plaintext, aad []byte) ([]byte, error) {
	if len(plaintext) == 0 {
		return nil, errors.New("pkcs11: an empty message cannot be sealed")
	}
	// The token may read after ctx has ended and the caller has wiped plaintext.
	own := secret.New(append([]byte(nil), plaintext...))
	out, err := do(ctx, t, nil, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) ([]byte, error) {
		h, err := t.handle(p, s, label)
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, nonceSize)
		_, _ = rand.Read(nonce)
		g := pkcs11.NewGCMParams(nonce, aad, tagSize*8)
		defer g.Free()
		if err := p.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, g)}, h); err != nil {
			return nil, err
		}
		ct, err := p.Encrypt(s, own.Expose())
		if err != nil {
			return nil, err
		}
		if len(ct) != own.Len()+tagSize {
			return nil, fmt.Errorf("CKM_AES_GCM gave %d bytes for %d, want %d more", len(ct), own.Len(), tagSize)
		}
		return append(g.IV(), ct...), nil
	}, own)
	if err != nil {
		return nil, fmt.Errorf("encrypt under the key %q in the token: %w", label, err)
	}
	return out, nil
}

// Open decrypts in the token what Seal made. ErrCiphertext: it is not from this
// key, not with this additional data, or was changed.
func (t *Token) Open(ctx context.Context, label string, sealed, aad []byte) (*secret.Bytes, error) {
	if len(sealed) <= Overhead {
		return nil, ErrCiphertext
	}
	out, err := do(ctx, t, (*secret.Bytes).Wipe, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) (*secret.Bytes, error) {
		h, err := t.handle(p, s, label)
		if err != nil {
			return nil, err
		}
		g := pkcs11.NewGCMParams(sealed[:nonceSize:nonceSize], aad, tagSize*8)
		defer g.Free()
		if err := p.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, g)}, h); err != nil {
			return nil, err
		}
		plain, err := p.Decrypt(s, sealed[nonceSize:])
		switch {
		case is(err, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_SIGNATURE_INVALID):
			// v2.40 has no return value for a tag that does not fit.
			return nil, fmt.Errorf("%w (%w)", ErrCiphertext, err)
		case err != nil:
			return nil, err
		}
		return secret.New(plain), nil
	})
	if err != nil {
		return nil, fmt.Errorf("decrypt under the key %q in the token: %w", label, err)
	}
	return out, nil
}
