package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/app"
	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/kms"
	"github.com/sealdesk/sealdesk/internal/secret"
)

// defaultDataDir is where state lives when nothing else is said.
func defaultDataDir() string {
	if d := os.Getenv("SEALDESK_DATA_DIR"); d != "" {
		return d
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".sealdesk")
	}
	return "/var/lib/sealdesk"
}

func serveCommand() *cobra.Command {
	var cfg app.Config
	var relaxed, debug bool
	var profile, quotas string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the APIs and run the desktops",
		Long: `Serve every API on one address. An empty data directory is initialised: root key,
account and root credentials are made, printed once, and kept in
DATA-DIR/root-credentials (mode 0600).

Environment: SEALDESK_ACCOUNT_ID, SEALDESK_ROOT_ACCESS_KEY_ID and
SEALDESK_ROOT_SECRET_ACCESS_KEY give the account and its root credentials.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := secret.ForbidCore(); err != nil {
				return err
			}
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			cfg.AccountID = os.Getenv("SEALDESK_ACCOUNT_ID")
			cfg.RootAccessKeyID = os.Getenv("SEALDESK_ROOT_ACCESS_KEY_ID")
			cfg.RootSecretAccessKey = os.Getenv("SEALDESK_ROOT_SECRET_ACCESS_KEY")
			os.Unsetenv("SEALDESK_ROOT_SECRET_ACCESS_KEY") // children need not have it
			if relaxed {
				cfg.AuditSync = audit.Written
			}
			dir, err := filepath.Abs(cfg.DataDir)
			if err != nil {
				return err
			}
			cfg.DataDir = dir
			if quotas != "" {
				if cfg.KMSQuotas, err = kms.LoadQuotas(quotas); err != nil {
					return err
				}
			}
			if profile != "" {
				f, err := os.OpenFile(profile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				defer f.Close()
				if err := pprof.StartCPUProfile(f); err != nil {
					return err
				}
				defer pprof.StopCPUProfile()
			}
			a, err := app.New(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			paceCollector()
			if os.Getenv("GOMAXPROCS") == "" {
				// One more than processors: a thread that waits for the disk, as one does all
				// the time under load, holds a place until the scheduler notices.
				runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
			}
			a.Announce(cmd.OutOrStdout())
			return a.Run(cmd.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", defaultDataDir(), "directory for all state")
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:8443", "address to serve on; plain HTTP on loopback only, TLS elsewhere")
	f.BoolVar(&cfg.TLS, "tls", false, "serve TLS on a loopback address too")
	f.StringVar(&cfg.TLSCert, "tls-cert", "", "PEM certificate (default: one signed by a CA of our own)")
	f.StringVar(&cfg.TLSKey, "tls-key", "", "PEM key of the certificate")
	f.StringSliceVar(&cfg.TLSNames, "tls-name", nil, "further host name or address for a certificate we make")
	f.StringSliceVar(&cfg.Etcd.Endpoints, "etcd-endpoints", nil, "external etcd cluster (default: embedded)")
	f.StringVar(&cfg.Etcd.Prefix, "etcd-prefix", "", "prefix of every key, for installations that share an etcd cluster")
	f.StringVar(&cfg.Etcd.CAFile, "etcd-ca", "", "CA of the etcd cluster")
	f.StringVar(&cfg.Etcd.CertFile, "etcd-cert", "", "client certificate for the etcd cluster")
	f.StringVar(&cfg.Etcd.KeyFile, "etcd-key", "", "key of the client certificate")
	f.DurationVar(&cfg.SnapshotEvery, "snapshot-interval", 12*time.Hour, "time between snapshots of a running desktop's volumes, to which RestoreWorkspace goes back")
	f.StringVar(&cfg.KeyStoresFile, "key-stores", "", "JSON file that says where the PKCS #11 tokens and proxies of custom key stores are (docs/kms.md)")
	f.StringVar(&quotas, "kms-quotas", "", "JSON file of the key service's quotas, or aws for AWS's rates of calls too (default: AWS's counts, no rates)")
	f.StringVar(&cfg.Root.Seal, "root-seal", "file", "how a first root key is sealed: file, passphrase or pkcs11 (an existing one says itself)")
	f.StringVar(&cfg.Root.SecretFile, "root-secret-file", "", "file whose first line is the root key's passphrase or the token's PIN; /dev/stdin and /dev/fd/N too (default: the systemd credential sealdesk-root; without either, wait for sealdesk unseal)")
	f.StringVar(&cfg.Root.Module, "root-pkcs11-module", "", "PKCS #11 module of the token that seals the root key")
	f.StringVar(&cfg.Root.Token, "root-pkcs11-token", "", "label of the token")
	f.StringVar(&cfg.Root.Key, "root-pkcs11-key", "sealdesk-root", "label of the key in the token; made when it is not there")
	f.StringVar(&cfg.Image, "image", "", "raw desktop image (default: the newest in DATA-DIR/images)")
	f.StringVar(&cfg.ObjectStore, "object-store", "", "where volumes live, with the data directory as cache: s3://BUCKET/PREFIX?endpoint=URL&region=REGION (credentials from the shared files) or dir:/PATH")
	f.BoolVar(&cfg.FlushToStore, "flush-to-store", false, "a guest's flush returns once it is in the object store, not only on this host's disk")
	f.StringVar(&cfg.DiskTransport, "disk-transport", "vhost-user", "how desktops reach their disks: vhost-user where QEMU has it, or nbd")
	f.BoolVar(&relaxed, "audit-written", false, "answer calls that change nothing once their record is written, not fsynced (survives a crash of the process, not a power cut)")
	f.StringVar(&profile, "cpu-profile", "", "write a CPU profile (pprof) to this file until the server stops")
	f.BoolVar(&cfg.StrictAWS, "strict-aws", false, "when a volume's key is refused let the volume vanish, as AWS does, instead of refusing the call with the reason")
	f.BoolVar(&debug, "debug", false, "log more")
	return c
}
