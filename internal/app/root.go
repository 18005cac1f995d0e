package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/gateway"
	"github.com/sealdesk/sealdesk/internal/ids"
	"github.com/sealdesk/sealdesk/internal/kms/keyring"
	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/wire"
)

// RootConfig says how the root key is sealed. A root key that exists says itself how.
type RootConfig struct {
	// Seal of a first root key: keyring.File (the default), Passphrase or PKCS11.
	Seal string
	// SecretFile holds the passphrase, or the PIN of the token, in its first line: a
	// file, /dev/stdin, /dev/fd/N. Empty: the systemd credential CredentialName when
	// there is one, else the server starts sealed and waits for `sealdesk unseal`.
	SecretFile string
	// Module, Token and Key name the PKCS #11 module, the token's label and the
	// label of the key in it; default of Key "sealdesk-root".
	Module, Token, Key string
	// Cost of a passphrase; default keyring.DefaultCost.
	Cost keyring.Cost
}

// CredentialName is the systemd credential (LoadCredential=) that holds the
// passphrase or PIN.
const CredentialName = "sealdesk-root"

func (c *RootConfig) validate() error {
	switch c.Seal {
	case "", keyring.File, keyring.Passphrase:
	case keyring.PKCS11:
		if c.Module == "" || c.Token == "" {
			return errors.New("a root key in a PKCS #11 token needs --root-pkcs11-module and --root-pkcs11-token")
		}
	default:
		return fmt.Errorf("--root-seal %q: want file, passphrase or pkcs11", c.Seal)
	}
	return nil
}

// secret reads the passphrase or PIN; empty when there is none yet.
func (c *RootConfig) secret() (*secret.Bytes, error) {
	path := c.SecretFile
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); path == "" && dir != "" {
		if p := filepath.Join(dir, CredentialName); exists(p) {
			path = p
		}
	}
	if path == "" {
		return nil, nil
	}
	return ReadSecret(path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ReadSecret reads the first line of a file.
func ReadSecret(path string) (*secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	defer f.Close()
	return readLine(f)
}

const maxSecret = 4096

func readLine(r io.Reader) (*secret.Bytes, error) {
	b := make([]byte, 0, maxSecret+1)
	defer func() { secret.Zero(b[:cap(b)]) }()
	for len(b) <= maxSecret {
		n, err := r.Read(b[len(b) : len(b)+1])
		b = b[:len(b)+n]
		if n == 1 && b[len(b)-1] == '\n' {
			b = b[:len(b)-1]
			break
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the passphrase: %w", err)
		}
	}
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	if len(b) == 0 || len(b) > maxSecret {
		return nil, fmt.Errorf("the passphrase has %d bytes: want 1 to %d in one line", len(b), maxSecret)
	}
	return secret.New(b), nil
}

// openRoot opens the root keys of the data directory.
func (c *Config) openRoot() (*keyring.Ring, error) {
	sec, err := c.Root.secret()
	if err != nil {
		return nil, err
	}
	cfg := keyring.Config{Dir: filepath.Join(c.DataDir, "root"), Legacy: filepath.Join(c.DataDir, "root.key"), Kind: c.Root.Seal, Secret: sec, Cost: c.Root.Cost, Clock: c.Clock}
	if c.Root.Module != "" {
		key := c.Root.Key
		if key == "" {
			key = "sealdesk-root"
		}
		cfg.Token = keyring.Tokens(keyring.TokenConfig{Config: pkcs11.Config{Module: c.Root.Module, Token: c.Root.Token}, Key: key})
	}
	return keyring.Open(cfg)
}

// refuse answers while the root key is sealed: nobody can be authenticated, as the
// secrets of access keys are under the root key too.
func (a *App) refuse() {
	const message = "The root key is sealed: no call can be answered until an operator runs sealdesk unseal on the server."
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, `{"status":"sealed","reason":"the root key is sealed: run sealdesk unseal on the server"}`)
	})
	mux.Handle("/", gateway.Refuse(func(service string) error {
		if service == "kms" {
			m := message
			return &types.KMSInternalException{Message: &m}
		}
		return &wire.Error{Kind: wire.Unavailable, Message: message}
	}))
	a.serve(mux)
}

// unsealed returns once the root key is open and the services are made.
func (a *App) unsealed(ctx context.Context, admin *admin) error {
	if a.store != nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-admin.unsealed:
	}
	if err := a.open(ctx); err != nil {
		return fmt.Errorf("start after the root key was unsealed: %w", err)
	}
	a.cfg.Logger.Info("the root key is unsealed", "account", a.root.account)
	return a.log.Append(ctx, a.event("UnsealRootKey", map[string]any{"rootKeyId": a.currentRoot().ID, "seal": a.currentRoot().Seal}))
}

func (a *App) currentRoot() keyring.KeyStatus {
	all := a.ring.Status()
	return all[len(all)-1]
}

// event is a record of what happened to the server without a call.
func (a *App) event(name string, detail map[string]any) *audit.Record {
	return &audit.Record{EventVersion: "1.11", UserIdentity: audit.UserIdentity{Type: "AWSService", AccountID: a.root.account, InvokedBy: "sealdesk.amazonaws.com"},
		EventTime: audit.Time{Time: a.cfg.Clock.Now()}, EventSource: "sealdesk.amazonaws.com", EventName: name, AWSRegion: "us-east-1",
		SourceIPAddress: "sealdesk.amazonaws.com", UserAgent: "sealdesk.amazonaws.com", AdditionalEventData: detail, EventID: ids.UUID(), RequestID: ids.UUID(),
		EventType: "AwsServiceEvent", ManagementEvent: true, RecipientAccountID: a.root.account, EventCategory: "Management"}
}

// AdminSocket is where the server of a data directory takes the passphrase.
func AdminSocket(dataDir string) string {
	c := Config{DataDir: dataDir}
	return filepath.Join(filepath.Dir(c.socketDir()), "admin.sock")
}

// admin is the unix socket of the operator on this machine. It does one thing, for
// which there can be no signed call: unsealing. Who may connect is the user that the
// server runs as, and root; what unseals is the passphrase, not the connection.
type admin struct {
	srv      *http.Server
	path     string
	unsealed chan struct{}
}

func (a *App) admin() (*admin, error) {
	path := AdminSocket(a.cfg.DataDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of sockets: %w", err)
	}
	_ = os.Remove(path)
	ln, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the operator: %w", err)
	}
	ad := &admin{path: path, unsealed: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /unseal", func(w http.ResponseWriter, r *http.Request) {
		sec, err := readLine(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		defer sec.Wipe()
		if a.ring.Sealed() == nil {
			fmt.Fprintln(w, "the root key is open already")
			return
		}
		if err := a.ring.Unseal(sec); err != nil {
			a.cfg.Logger.Warn("an attempt to unseal the root key failed", "err", err)
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		select {
		case ad.unsealed <- struct{}{}:
		default:
		}
		fmt.Fprintln(w, "the root key is open")
	})
	ad.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second}
	go func() { _ = ad.srv.Serve(ln) }()
	return ad, nil
}

func (ad *admin) Close() {
	_ = ad.srv.Close()
	_ = os.Remove(ad.path)
}

// Unseal sends a passphrase to the server of a data directory.
func Unseal(ctx context.Context, dataDir string, sec *secret.Bytes) (string, error) {
	path := AdminSocket(dataDir)
	if st, err := os.Stat(filepath.Dir(path)); err == nil {
		// The directory may lie in a place where others can make one.
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() && sys.Uid != 0 && os.Geteuid() != 0 || st.Mode().Perm()&0o022 != 0 {
			return "", fmt.Errorf("%s is not ours alone: the passphrase is not sent there", filepath.Dir(path))
		}
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/unseal", bytes.NewReader(sec.Expose()))
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("reach the server at %s: %w (does it run, with this data directory?)", path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	text := strings.TrimSpace(string(b))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(text)
	}
	return text, err
}
