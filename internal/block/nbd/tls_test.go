package nbd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority makes a CA and, signed by it, a server and a client certificate, under the names that libnbd and QEMU look for.
func authority(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, typ string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
		switch name {
		case "ca":
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
			ca, caKey = c, key
		case "server":
			c.ExtKeyUsage, c.DNSNames, c.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		case "client":
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		k, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+"-cert.pem", "CERTIFICATE", der)
		write(name+"-key.pem", "PRIVATE KEY", k)
	}
	return dir
}

func serveTLS(t *testing.T, dir string, dev *ram) (addr string) {
	t.Helper()
	file := func(name string) string { return filepath.Join(dir, name) }
	cfg, err := MutualTLS(file("ca-cert.pem"), file("server-cert.pem"), file("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &Server{Exports: []Export{{Name: "vol-1", Device: dev}}, TLS: cfg}
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return l.Addr().String()
}

// Before TLS nothing is told, not even the names of exports; without a certificate of the authority TLS does not come about.
func TestTLSIsRequired(t *testing.T) {
	dir := authority(t)
	addr := serveTLS(t, dir, &ram{b: make([]byte, 1<<20)})
	ask := func(opt uint32, data []byte) (net.Conn, uint32, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		hello := make([]byte, 18)
		if _, err := c.Read(hello); err != nil {
			return c, 0, err
		}
		b := be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)
		b = be.AppendUint64(b, magicOpt)
		b = be.AppendUint32(be.AppendUint32(b, opt), uint32(len(data)))
		if _, err := c.Write(append(b, data...)); err != nil {
			return c, 0, err
		}
		rep := make([]byte, 20)
		if _, err := c.Read(rep); err != nil {
			return c, 0, err
		}
		return c, be.Uint32(rep[12:]), nil
	}
	for name, opt := range map[string]uint32{"LIST": optList, "GO": optGo, "INFO": optInfo, "STRUCTURED_REPLY": optStructured} {
		if _, typ, err := ask(opt, nil); err != nil || typ != repErrTLSReqd {
			t.Errorf("%s before TLS: reply %#x, %v, want NBD_REP_ERR_TLS_REQD", name, typ, err)
		}
	}
	if _, _, err := ask(optExportName, []byte("vol-1")); err == nil {
		t.Error("EXPORT_NAME before TLS was answered")
	}
	other := authority(t)
	pair, err := tls.LoadX509KeyPair(filepath.Join(other, "client-cert.pem"), filepath.Join(other, "client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, certs := range map[string][]tls.Certificate{"no certificate": nil, "one of another authority": {pair}} {
		c, typ, err := ask(optStartTLS, nil)
		if err != nil || typ != repAck {
			t.Fatalf("STARTTLS: %#x, %v", typ, err)
		}
		x := tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: certs}) // the server's name is not what is tested
		err = x.Handshake()
		if err == nil { // with TLS 1.3 the client learns it from its first read
			_, err = x.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("a client with %s was served", name)
		}
	}
}

// libnbd and QEMU over TCP with certificates of their own.
func TestTLSClients(t *testing.T) {
	dir := authority(t)
	dev := &ram{b: bytes.Repeat([]byte("abcd"), 1<<18)}
	addr := serveTLS(t, dir, dev)
	host, port, _ := net.SplitHostPort(addr)
	for _, c := range [][]string{
		{"nbdinfo", "nbds://" + addr + "/vol-1?tls-certificates=" + dir},
		{"qemu-img", "info", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir=" + dir, "--image-opts",
			"driver=nbd,server.type=inet,server.host=" + host + ",server.port=" + port + ",export=vol-1,tls-creds=tls0"},
		{"qemu-io", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir=" + dir, "--image-opts", "-c", "read -P 0x61 0 1", "-c", "write -P 7 4096 65536", "-c", "flush",
			"driver=nbd,server.type=inet,server.host=" + host + ",server.port=" + port + ",export=vol-1,tls-creds=tls0"},
	} {
		if _, err := exec.LookPath(c[0]); err != nil {
			t.Logf("%s is not installed", c[0])
			continue
		}
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "rror") || strings.Contains(string(out), "verification failed") {
			t.Errorf("%s: %v: %s", strings.Join(c, " "), err, out)
		}
	}
	dev.mu.Lock()
	defer dev.mu.Unlock()
	if _, err := exec.LookPath("qemu-io"); err == nil && (dev.b[4096] != 7 || dev.b[4096+65535] != 7 || dev.flushes == 0) {
		t.Error("what qemu-io wrote over TLS did not arrive")
	}
}
