// Package app wires Sealdesk together: it opens the state, the root key, the
// audit log and the services, gives each what it needs, and serves them on one
// address. Nothing outside this package knows how the parts are joined.
package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/sealdesk/sealdesk/internal/audit"
	"github.com/sealdesk/sealdesk/internal/clock"
	"github.com/sealdesk/sealdesk/internal/compute"
	"github.com/sealdesk/sealdesk/internal/kms"
	"github.com/sealdesk/sealdesk/internal/store"
)

// Config is everything a server can be told. EnsureDefaults fills in the rest.
type Config struct {
	// DataDir holds all state: etcd, the root key, the audit log, volumes,
	// images, sockets and the logs of child processes. Mode 0700.
	DataDir string
	// Listen is the TCP address of the one endpoint. Plain HTTP is served on
	// loopback addresses only; elsewhere TLS is required.
	Listen string
	// TLSCert and TLSKey are PEM files. Empty on a non-loopback address: a
	// certificate is made with a CA of our own, kept in DataDir/tls.
	TLSCert, TLSKey string
	// TLSNames are further host names or addresses for a certificate we make.
	TLSNames []string
	// TLS serves TLS on a loopback address too.
	TLS bool

	// AccountID, RootAccessKeyID and RootSecretAccessKey name the first account
	// and its root credentials; empty: generated at the first start.
	AccountID           string
	RootAccessKeyID     string
	RootSecretAccessKey string

	// Root says how the root key is sealed, and where its passphrase or token is.
	Root RootConfig

	// Etcd is where the state lives; empty Endpoints: embedded in DataDir.
	Etcd store.Config
	// AuditSync says when a record of a call that changes nothing counts as durable.
	AuditSync audit.SyncMode

	// KeyStoresFile says where the PKCS #11 tokens and proxies of custom key stores
	// are: JSON, see kms.KeyStores. Empty: no CloudHSM key stores.
	KeyStoresFile string

	// Image is the bundle's desktop image, a raw disk. Empty: the newest in
	// DataDir/images. Without one, launching a WorkSpace fails and says so.
	Image string
	// KMSQuotas are the quotas of the key service; the zero value: AWS's counts, and no
	// limit of calls a second.
	KMSQuotas kms.Quotas
	// StrictAWS has CreateVolume answer as AWS does when the key is refused: with a volume
	// that then does not exist, in place of an error.
	StrictAWS bool
	// SnapshotEvery is the time between snapshots of a running desktop's volumes; 0: 12 hours.
	SnapshotEvery time.Duration
	// ObjectStore is where volumes live, with DataDir as their cache: s3://BUCKET/PREFIX?endpoint=URL&region=REGION, with credentials
	// from the AWS SDKs' shared files, or dir:/PATH. Empty: in DataDir. FlushToStore has a guest's flush reach it.
	ObjectStore  string
	FlushToStore bool
	// DiskTransport is how desktops reach their disks: "vhost-user" (the default, where QEMU has it) or "nbd".
	DiskTransport string
	// Compute runs the desktops; nil: QEMU.
	Compute compute.Driver
	// Self is the path of this program, started again as volumed. Empty: os.Executable.
	// NoVolumed: volumed is not started, and no volume can be made.
	Self string

	Clock  clock.Clock
	Logger *slog.Logger
}

// EnsureDefaults fills what was left out.
func (c *Config) EnsureDefaults() {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8443"
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Etcd.DataDir == "" {
		c.Etcd.DataDir = c.DataDir
	}
	c.Etcd.Logger = c.Logger
	if c.Self == "" {
		c.Self, _ = os.Executable()
	}
}

// NoVolumed in Config.Self is for tools and tests that use no volumes.
const NoVolumed = "-"

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	keyIDPattern   = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
)

// Validate says what cannot work, and what to do about it.
func (c *Config) Validate() error {
	if c.DataDir == "" {
		return errors.New("no data directory: give --data-dir")
	}
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("data directory %q is not an absolute path", c.DataDir)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen address %q: %w", c.Listen, err)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if c.AccountID != "" && !accountPattern.MatchString(c.AccountID) {
		return fmt.Errorf("SEALDESK_ACCOUNT_ID %q is not 12 digits", c.AccountID)
	}
	if (c.RootAccessKeyID == "") != (c.RootSecretAccessKey == "") {
		return errors.New("SEALDESK_ROOT_ACCESS_KEY_ID and SEALDESK_ROOT_SECRET_ACCESS_KEY go together")
	}
	if c.RootAccessKeyID != "" && !keyIDPattern.MatchString(c.RootAccessKeyID) {
		return fmt.Errorf("SEALDESK_ROOT_ACCESS_KEY_ID %q: an access key ID is 16 to 128 characters of A-Z and 0-9", c.RootAccessKeyID)
	}
	if err := c.Root.validate(); err != nil {
		return err
	}
	if c.RootSecretAccessKey != "" && len(c.RootSecretAccessKey) < 16 {
		return errors.New("SEALDESK_ROOT_SECRET_ACCESS_KEY is shorter than 16 characters")
	}
	return nil
}

// loopback reports whether the address can be reached from this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
