//go:build !cgo

package pkcs11

import (
	"context"
	"fmt"

	"github.com/sealdesk/sealdesk/internal/secret"
)

// Token is not available in a program that was built without cgo.
type Token struct{}

// Open fails: a shared library cannot be loaded without cgo.
func Open(context.Context, Config, *secret.Bytes) (*Token, error) {
	return nil, fmt.Errorf("pkcs11: %w: this program was built without cgo", ErrModule)
}

func (*Token) Close()                                                       {}
func (*Token) Generate(context.Context, string, int) error                  { return ErrClosed }
func (*Token) Key(context.Context, string) (KeyInfo, error)                 { return KeyInfo{}, ErrClosed }
func (*Token) Destroy(context.Context, string) error                        { return ErrClosed }
func (*Token) Seal(context.Context, string, []byte, []byte) ([]byte, error) { return nil, ErrClosed }
func (*Token) Random(context.Context, int) (*secret.Bytes, error)           { return nil, ErrClosed }
func (*Token) Info() Info                                                   { return Info{} }
func (*Token) Ping(context.Context) error                                   { return ErrClosed }
func (*Token) Open(context.Context, string, []byte, []byte) (*secret.Bytes, error) {
	return nil, ErrClosed
}
