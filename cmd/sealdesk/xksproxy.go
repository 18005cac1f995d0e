package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/secret"
	"github.com/sealdesk/sealdesk/internal/xks/proxy"
)

// tokenFlags name a PKCS #11 token and its PIN.
type tokenFlags struct {
	cfg     pkcs11.Config
	pinFile string
}

func (t *tokenFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.cfg.Module, "module", "", "PKCS #11 library, such as /usr/lib/softhsm/libsofthsm2.so")
	f.StringVar(&t.cfg.Token, "token", "", "label of the token")
	f.IntVar(&t.cfg.Sessions, "sessions", 8, "operations at once in the token")
	f.StringVar(&t.pinFile, "pin-file", "", "file with the user's PIN of the token")
	for _, name := range []string{"module", "token", "pin-file"} {
		_ = c.MarkFlagRequired(name)
	}
}

func (t *tokenFlags) open(ctx context.Context) (*pkcs11.Token, error) {
	b, err := os.ReadFile(t.pinFile)
	if err != nil {
		return nil, fmt.Errorf("read the PIN: %w", err)
	}
	defer secret.Zero(b)
	pin := secret.New([]byte(strings.TrimRight(string(b), "\r\n")))
	defer pin.Wipe()
	if pin.Len() == 0 {
		return nil, fmt.Errorf("%s is empty", t.pinFile)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return pkcs11.Open(ctx, t.cfg, pin)
}

func xksProxyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "xks-proxy",
		Short: "Lend the AES keys of a PKCS #11 token to a key service (external key store)",
		Long: `An external key store proxy: a key service, Sealdesk's or AWS's, encrypts and
decrypts under keys in a PKCS #11 token, and the keys never leave the token. An
external key ID (XksKeyId) is the label of a key. See docs/kms.md.`,
	}
	c.AddCommand(xksServeCommand(), xksCreateKeyCommand(), xksNewCredentialCommand())
	return c
}

func xksServeCommand() *cobra.Command {
	var token tokenFlags
	var listen, cert, key, credentials, prefix, clientCA, clientName string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the External Key Store Proxy API over TLS",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			conf, err := proxyTLS(cert, key, clientCA, clientName)
			if err != nil {
				return err
			}
			creds, err := readCredentials(credentials)
			if err != nil {
				return err
			}
			tok, err := token.open(ctx)
			if err != nil {
				return err
			}
			defer tok.Close()
			p, err := proxy.New(proxy.Config{Token: tok, Credentials: creds, Prefix: prefix, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
			if err != nil {
				return err
			}
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			srv := &http.Server{Handler: p, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 32 << 10}
			fmt.Fprintf(cmd.OutOrStdout(), "XKS proxy serves the token %q at https://%s%s\n", token.cfg.Token, ln.Addr(), p.Path())
			served := make(chan error, 1)
			go func() { served <- srv.Serve(tls.NewListener(ln, conf)) }()
			select {
			case err = <-served:
			case <-ctx.Done():
				grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				err = srv.Shutdown(grace)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		},
	}
	token.add(c)
	f := c.Flags()
	f.StringVar(&listen, "listen", ":443", "address to serve on")
	f.StringVar(&cert, "tls-cert", "", "PEM certificate of the proxy's host name")
	f.StringVar(&key, "tls-key", "", "PEM key of the certificate")
	f.StringVar(&credentials, "credentials", "", "file of new-credential; two may stand in it, one after the other")
	f.StringVar(&prefix, "path-prefix", "", "what comes before /kms/xks/v1 in the path, such as /store-1")
	f.StringVar(&clientCA, "client-ca", "", "PEM file: ask callers for a certificate of this CA (mutual TLS)")
	f.StringVar(&clientName, "client-name", "", "common name that a caller's certificate must have, such as cks.kms.us-west-2.amazonaws.com")
	for _, name := range []string{"tls-cert", "tls-key", "credentials"} {
		_ = c.MarkFlagRequired(name)
	}
	c.MarkFlagsRequiredTogether("client-ca", "client-name")
	return c
}

func proxyTLS(cert, key, clientCA, clientName string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read the TLS certificate: %w", err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if clientCA == "" {
		return conf, nil
	}
	b, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, fmt.Errorf("read the CA of callers: %w", err)
	}
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no PEM certificate", clientCA)
	}
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if got := s.PeerCertificates[0].Subject.CommonName; got != clientName {
			return fmt.Errorf("the caller's certificate is of %q, want %q", got, clientName)
		}
		return nil
	}
	return conf, nil
}

// credentialFile is the form that AWS's console takes as "proxy configuration file".
type credentialFile struct {
	XksProxyUriPath                  string `json:",omitempty"`
	XksProxyAuthenticationCredential struct{ AccessKeyId, RawSecretAccessKey string }
}

func readCredentials(file string) ([]proxy.Credential, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the credentials: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the credentials %s may be read by others (mode %04o): run chmod 600 on it", file, fi.Mode().Perm())
	}
	var out []proxy.Credential
	for d := json.NewDecoder(f); d.More(); {
		var c credentialFile
		if err := d.Decode(&c); err != nil {
			return nil, fmt.Errorf("%s is not what new-credential prints: %w", file, err)
		}
		out = append(out, proxy.Credential{AccessKeyID: c.XksProxyAuthenticationCredential.AccessKeyId, Secret: secret.New([]byte(c.XksProxyAuthenticationCredential.RawSecretAccessKey))})
	}
	return out, nil
}

func xksNewCredentialCommand() *cobra.Command {
	var prefix string
	c := &cobra.Command{
		Use:   "new-credential",
		Short: "Print a new random credential for a proxy, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, key := make([]byte, 15), make([]byte, 32)
			_, _ = rand.Read(id)
			_, _ = rand.Read(key)
			var out credentialFile
			out.XksProxyUriPath = prefix + "/kms/xks/v1"
			out.XksProxyAuthenticationCredential.AccessKeyId = base32.StdEncoding.EncodeToString(id)
			out.XksProxyAuthenticationCredential.RawSecretAccessKey = base64.StdEncoding.EncodeToString(key)
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(out)
		},
	}
	c.Flags().StringVar(&prefix, "path-prefix", "", "as of serve")
	return c
}

func xksCreateKeyCommand() *cobra.Command {
	var token tokenFlags
	c := &cobra.Command{
		Use:   "create-key LABEL",
		Short: "Make an AES-256 key in the token that can never leave it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tok, err := token.open(cmd.Context())
			if err != nil {
				return err
			}
			defer tok.Close()
			if err := tok.Generate(cmd.Context(), args[0], 256); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "XksKeyId %s\n", args[0])
			return nil
		},
	}
	token.add(c)
	return c
}
