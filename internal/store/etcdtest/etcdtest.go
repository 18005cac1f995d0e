// Package etcdtest gives tests an external etcd: three members, each a process of
// its own, that talk TLS to each other and to clients and ask both for certificates.
// One member after another is killed with kill -9 and started again while the
// tests run, the leader first.
//
// The cluster starts with the first use and ends with the test binary, which is also
// the program of the members: a member is this binary with SEALDESK_ETCD_MEMBER set.
// Tests use it when SEALDESK_TEST_ETCD=external is in the environment.
package etcdtest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sealdesk/sealdesk/internal/store"
)

// External reports whether tests are to run on an external cluster.
func External() bool { return os.Getenv("SEALDESK_TEST_ETCD") == "external" }

// Config is where a test keeps the state that belongs to a data directory: in an
// etcd in that directory, or in the external cluster under a prefix of its own.
func Config(dataDir string) (store.Config, error) {
	if !External() {
		return store.Config{DataDir: dataDir}, nil
	}
	c, err := Shared()
	if err != nil {
		return store.Config{}, err
	}
	sum := sha256.Sum256([]byte(dataDir))
	return c.Config(dataDir, "/test-"+hex.EncodeToString(sum[:6])), nil
}

// Shared is the cluster of this test binary, of which members are killed.
var Shared = sync.OnceValues(func() (*Cluster, error) {
	c, err := Start()
	if err == nil {
		go c.disturb()
	}
	return c, err
})

// Cluster is three members.
type Cluster struct {
	dir     string
	members [3]*member
}

type member struct {
	Name, Dir, Client, Peer, Cluster string
	CA, Cert, Key                    string

	cmd   *exec.Cmd
	stdin io.Closer
	said  chan error // that it is ready, or what it said instead
}

// Start starts a cluster that ends with this process.
func Start() (*Cluster, error) {
	dir, err := os.MkdirTemp("", "sdetcd")
	if err != nil {
		return nil, err
	}
	if err := certificates(dir); err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	var initial []string
	for i := range c.members {
		m := &member{Name: fmt.Sprintf("m%d", i), Dir: dir, CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "member.pem"), Key: filepath.Join(dir, "member.key")}
		if m.Client, err = freeURL(); err != nil {
			return nil, err
		}
		if m.Peer, err = freeURL(); err != nil {
			return nil, err
		}
		initial = append(initial, m.Name+"="+m.Peer)
		c.members[i] = m
	}
	for _, m := range c.members {
		m.Cluster = strings.Join(initial, ",")
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	for _, m := range c.members {
		if err := m.ready(); err != nil {
			return nil, fmt.Errorf("etcd member %s: %w", m.Name, err)
		}
	}
	return c, nil
}

// Config is a store's configuration for the cluster.
func (c *Cluster) Config(dataDir, prefix string) store.Config {
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.Client)
	}
	return store.Config{DataDir: dataDir, Endpoints: endpoints, Prefix: prefix, CAFile: filepath.Join(c.dir, "ca.pem"),
		CertFile: filepath.Join(c.dir, "client.pem"), KeyFile: filepath.Join(c.dir, "client.key")}
}

// KillLeader ends the leader as kill -9 does and returns its number.
func (c *Cluster) KillLeader(ctx context.Context) (int, error) {
	tls, err := transport.TLSInfo{TrustedCAFile: filepath.Join(c.dir, "ca.pem"), CertFile: filepath.Join(c.dir, "client.pem"), KeyFile: filepath.Join(c.dir, "client.key")}.ClientConfig()
	if err != nil {
		return 0, err
	}
	var last error
	for i, m := range c.members {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Client}, TLS: tls, DialTimeout: 2 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			return 0, err
		}
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		st, err := client.Status(ask, m.Client)
		cancel()
		client.Close()
		if err == nil && st.Leader == st.Header.MemberId {
			return i, c.Kill(i)
		}
		last = err
	}
	return 0, fmt.Errorf("no member leads: %w", last)
}

// Kill ends member i as kill -9 does.
func (c *Cluster) Kill(i int) error {
	m := c.members[i]
	if err := m.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = m.cmd.Wait()
	return nil
}

// Restart starts member i again on its data.
func (c *Cluster) Restart(i int) error {
	if err := c.members[i].start(); err != nil {
		return err
	}
	return c.members[i].ready()
}

// Stop ends the cluster and removes its data.
func (c *Cluster) Stop() {
	for i := range c.members {
		_ = c.Kill(i)
	}
	os.RemoveAll(c.dir)
}

// disturb kills the leader, starts it again, and again, as long as the tests run.
func (c *Cluster) disturb() {
	for pause := 3 * time.Second; ; pause = 10 * time.Second {
		time.Sleep(pause)
		i, err := c.KillLeader(context.Background())
		fmt.Fprintf(os.Stderr, "etcdtest: killed the leader, member %d (%v)\n", i, err)
		if err != nil {
			continue
		}
		time.Sleep(5 * time.Second)
		if err := c.Restart(i); err != nil {
			fmt.Fprintf(os.Stderr, "etcdtest: member %d did not come back: %v\n", i, err)
			return
		}
	}
}

const variable = "SEALDESK_ETCD_MEMBER"

// start starts the member's process. It ends when its standard input does, which is
// when this process ends, however that comes.
func (m *member) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	spec, err := json.Marshal(m)
	if err != nil {
		return err
	}
	m.cmd = exec.Command(self)
	m.cmd.Env = append(os.Environ(), variable+"="+string(spec))
	m.cmd.Stderr = os.Stderr
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.said = make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != "ready" {
			err = fmt.Errorf("it says %q", line)
		}
		m.said <- err
	}()
	return nil
}

func (m *member) ready() error {
	select {
	case err := <-m.said:
		return err
	case <-time.After(time.Minute):
		return fmt.Errorf("not ready within a minute")
	}
}

func init() {
	if spec := os.Getenv(variable); spec != "" {
		if err := serve(spec); err != nil {
			fmt.Fprintln(os.Stderr, "etcd member:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// serve is the life of a member.
func serve(spec string) error {
	var m member
	if err := json.Unmarshal([]byte(spec), &m); err != nil {
		return err
	}
	client, err := url.Parse(m.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(m.Peer)
	if err != nil {
		return err
	}
	ec := embed.NewConfig()
	ec.Name, ec.Dir = m.Name, filepath.Join(m.Dir, m.Name)
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	ec.InitialCluster = m.Cluster
	tls := transport.TLSInfo{CertFile: m.Cert, KeyFile: m.Key, TrustedCAFile: m.CA, ClientCertAuth: true}
	ec.ClientTLSInfo, ec.PeerTLSInfo = tls, tls
	ec.MaxTxnOps = 4096
	ec.UnsafeNoFsync = true // the machine does not lose power, only processes
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return err
	}
	go func() {
		<-e.Server.ReadyNotify()
		fmt.Println("ready")
	}()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case <-ended:
		return os.RemoveAll(m.Dir)
	case err := <-e.Err():
		return err
	}
}

func freeURL() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return "https://" + ln.Addr().String(), nil
}

// certificates writes a CA, a certificate of the members, and one of clients.
func certificates(dir string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := func(name string) *x509.Certificate {
		serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
		return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	}
	ca := template("etcdtest CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	write := func(name string, cert *x509.Certificate, key *ecdsa.PrivateKey) error {
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			return err
		}
		pkcs, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs}), 0o600)
	}
	if err := write("ca", ca, caKey); err != nil {
		return err
	}
	for name, use := range map[string][]x509.ExtKeyUsage{"member": {x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, "client": {x509.ExtKeyUsageClientAuth}} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		cert := template(name)
		cert.KeyUsage, cert.ExtKeyUsage = x509.KeyUsageDigitalSignature, use
		cert.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		if err := write(name, cert, key); err != nil {
			return err
		}
	}
	return nil
}
