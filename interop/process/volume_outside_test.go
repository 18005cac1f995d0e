package process

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// certificates makes an authority in a directory of its own and certificates that it signed,
// under the names that libnbd and QEMU look for.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		if name == "ca" {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.IPAddresses = true, x509.KeyUsageCertSign, nil, nil
			ca, caKey = c, key
		}
		der, err := x509.CreateCertificate(crand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string]*pem.Block{"-cert.pem": {Type: "CERTIFICATE", Bytes: der}, "-key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
			if err := os.WriteFile(filepath.Join(dir, name+file), pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// newVolume is an encrypted volume of 1 GiB that is available.
func newVolume(t *testing.T, s *server) string {
	t.Helper()
	c := ec2.NewFromConfig(s.config())
	made, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: aws.Int32(1), AvailabilityZone: aws.String(region + "a"), Encrypted: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, *made.VolumeId+" is available", func() error {
		d, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*made.VolumeId}})
		if err == nil && d.Volumes[0].State != ec2types.VolumeStateAvailable {
			err = fmt.Errorf("it is %s", d.Volumes[0].State)
		}
		return err
	})
	return *made.VolumeId
}

// TestVolumeServeTLS: a volume served over TCP goes to who shows a certificate of the right authority, and to nobody else.
func TestVolumeServeTLS(t *testing.T) {
	needs(t, "nbdinfo", "nbdcopy", "qemu-img")
	s := newServer(t, nil)
	volume := newVolume(t, s)
	dir, pki, strangers := t.TempDir(), certificates(t), certificates(t)
	file := func(name string) string { return filepath.Join(pki, name) }

	v := serveVolume(t, s, volume, filepath.Join(dir, "v.sock"), "--listen", "127.0.0.1:0",
		"--tls-ca", file("ca-cert.pem"), "--tls-cert", file("server-cert.pem"), "--tls-key", file("server-key.pem"))
	line, _ := v.out.ReadString('\n')
	i := strings.Index(line, "nbds://")
	if i < 0 {
		t.Fatalf("volume serve --listen says %q, want an nbds address; %s", line, v.err.String())
	}
	uri := strings.TrimSpace(line[i:])
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	with := func(dir string) string { return uri + "?tls-certificates=" + dir }

	if got := run(t, "nbdinfo", "--size", with(pki)); strings.TrimSpace(got) != fmt.Sprint(1<<30) {
		t.Errorf("nbdinfo --size says %q, want 1 GiB", got)
	}
	content := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(content)
	in, back := filepath.Join(dir, "in.raw"), filepath.Join(dir, "back.raw")
	if err := os.WriteFile(in, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", "--flush", in, with(pki))
	run(t, "qemu-img", "convert", "-O", "raw", "--object", "tls-creds-x509,id=tls,endpoint=client,dir="+pki, "--image-opts",
		fmt.Sprintf("driver=nbd,host=%s,port=%s,export=%s,tls-creds=tls", u.Hostname(), u.Port(), volume), back)
	got, err := os.ReadFile(back)
	if err != nil || len(got) != 1<<30 || !bytes.Equal(got[:len(content)], content) {
		t.Errorf("what qemu-img reads is not what nbdcopy wrote (%d bytes, %v)", len(got), err)
	}

	for what, uri := range map[string]string{
		"no TLS": "nbd://" + u.Host + "/" + volume, "no certificate": uri, "a certificate of another authority": with(strangers),
	} {
		if text, err := exec.Command("nbdinfo", "--size", uri).CombinedOutput(); err == nil {
			t.Errorf("a client with %s is served: %s", what, text)
		}
	}
	v.interrupt(t)
	if text, err := exec.Command("nbdinfo", with(pki)).CombinedOutput(); err == nil {
		t.Errorf("the volume is still served after the interrupt: %s", text)
	}
}

// TestAcceptState: an old copy of a volume's files put back is not opened, until who may says that it is meant.
func TestAcceptState(t *testing.T) {
	needs(t, "nbdcopy")
	s := newServer(t, nil)
	volume := newVolume(t, s)
	dir := t.TempDir()
	socket, saved, files := filepath.Join(dir, "v.sock"), filepath.Join(dir, "saved"), filepath.Join(s.data, "volumes", volume)
	file := func(name string, fill byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte{fill}, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write := func(name string, fill byte) {
		v := serveVolume(t, s, volume, socket)
		run(t, "nbdcopy", "--flush", file(name, fill), v.uri)
		v.interrupt(t)
	}
	write("old", 'o')
	if err := os.CopyFS(saved, os.DirFS(files)); err != nil {
		t.Fatal(err)
	}
	write("new", 'n')
	if err := os.RemoveAll(files); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(files, os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}

	text, err := s.command(nil, "volume", "serve", volume, "--socket", socket).CombinedOutput()
	if err == nil || !bytes.Contains(text, []byte("IncorrectState")) || !bytes.Contains(text, []byte("accept-state")) {
		t.Errorf("serving an old copy: %v, %s; want IncorrectState and what to do", err, text)
	}
	users := iam.NewFromConfig(s.config())
	if _, err := users.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("nobody")}); err != nil {
		t.Fatal(err)
	}
	ak, err := users.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	nobody := &aws.Credentials{AccessKeyID: *ak.AccessKey.AccessKeyId, SecretAccessKey: *ak.AccessKey.SecretAccessKey}
	if text, err := s.command(nobody, "volume", "accept-state", volume).CombinedOutput(); err == nil || !bytes.Contains(text, []byte("not authorized")) {
		t.Errorf("accept-state by a user without permission: %v, %s; want that it is not authorized", err, text)
	}
	if text, err := s.command(nil, "volume", "accept-state", volume).CombinedOutput(); err != nil {
		t.Fatalf("accept-state: %v, %s", err, text)
	}
	if s.recorded(t, "AcceptVolumeState") != 1 {
		t.Error("AcceptVolumeState is not on the record once")
	}
	v := serveVolume(t, s, volume, socket)
	back := filepath.Join(dir, "back")
	run(t, "nbdcopy", v.uri, back)
	v.interrupt(t)
	f, err := os.Open(back)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 1<<20)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{'o'}, 1<<20)) {
		t.Errorf("the volume does not hold the old content (%v)", err)
	}
	write("newer", 'p') // and goes on from there
}
