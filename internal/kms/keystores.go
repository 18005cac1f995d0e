package kms

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"time"

	"github.com/sealdesk/sealdesk/internal/kms/pkcs11"
	"github.com/sealdesk/sealdesk/internal/xks"
)

// KeyStores is what the operator of the server says about custom key stores. The
// zero value: external key stores whose proxies have a public name and a
// certificate of a CA that the system trusts, and no CloudHSM key stores.
type KeyStores struct {
	XKS XKSConfig `json:"xks"`
	// Clusters maps CloudHsmClusterId to a PKCS #11 token.
	Clusters map[string]*Cluster `json:"clusters"`
	// Max is how many stores an account may have in a Region; default 10, as AWS's.
	Max int `json:"maxStores"`
}

// XKSConfig says how proxies are reached.
type XKSConfig struct {
	// CA is a PEM file of CAs that are trusted besides the system's.
	CA string `json:"ca"`
	// Timeout of a request; default "250ms", which is AWS's.
	Timeout duration `json:"timeout"`
	// Endpoints says where proxies really are, by XksProxyUriEndpoint or, for
	// VPC_ENDPOINT_SERVICE, by XksProxyVpcEndpointServiceName.
	Endpoints map[string]*XKSEndpoint `json:"endpoints"`

	roots *x509.CertPool
}

// XKSEndpoint is where a proxy is. Its certificate must name the host of the
// store's XksProxyUriEndpoint in any case.
type XKSEndpoint struct {
	// Address is host:port to dial; default the endpoint's host and 443.
	Address string `json:"address"`
	// CA is a PEM file of the only CAs that are trusted for it; default those of all.
	CA string `json:"ca"`
	// Cert and Key are PEM files with which the server shows who it is (mutual TLS).
	Cert string `json:"cert"`
	Key  string `json:"key"`

	roots *x509.CertPool
	cert  *tls.Certificate
}

// Cluster is a PKCS #11 token in the place of a CloudHSM cluster.
type Cluster struct {
	Module string `json:"module"` // path of the PKCS #11 library
	Token  string `json:"token"`  // label
	// TrustAnchor is the PEM file of the certificate that CreateCustomKeyStore must
	// bring; default: any certificate will do.
	TrustAnchor string `json:"trustAnchor"`
	// Sessions is how many operations may run at once; default 8.
	Sessions int `json:"sessions"`

	anchor []byte // DER
}

type duration time.Duration

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// LoadKeyStores reads the operator's file, which is JSON. A member it does not
// know is an error.
func LoadKeyStores(file string) (KeyStores, error) {
	var k KeyStores
	b, err := os.ReadFile(file)
	if err != nil {
		return k, fmt.Errorf("read the configuration of custom key stores: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return k, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

var clusterPattern = regexp.MustCompile(`^cluster-[2-7a-zA-Z]{11,16}$`)

// load checks the configuration and reads the files it names.
func (k *KeyStores) load() (err error) {
	if k.Max == 0 {
		k.Max = 10
	}
	if k.XKS.Timeout == 0 {
		k.XKS.Timeout = duration(xks.DefaultTimeout)
	}
	if k.XKS.roots, err = pool(k.XKS.CA, true); err != nil {
		return fmt.Errorf("xks.ca: %w", err)
	}
	for name, e := range k.XKS.Endpoints {
		if err := e.load(k.XKS.roots); err != nil {
			return fmt.Errorf("xks.endpoints[%q]: %w", name, err)
		}
	}
	for id, c := range k.Clusters {
		if err := c.load(id); err != nil {
			return fmt.Errorf("clusters[%q]: %w", id, err)
		}
	}
	return nil
}

func (e *XKSEndpoint) load(all *x509.CertPool) (err error) {
	if e.Address != "" {
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	e.roots = all
	if e.CA != "" {
		if e.roots, err = pool(e.CA, false); err != nil {
			return fmt.Errorf("ca: %w", err)
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		return errors.New("cert and key go together")
	}
	if e.Cert != "" {
		cert, err := tls.LoadX509KeyPair(e.Cert, e.Key)
		if err != nil {
			return fmt.Errorf("cert: %w", err)
		}
		e.cert = &cert
	}
	return nil
}

func (c *Cluster) load(id string) (err error) {
	if !clusterPattern.MatchString(id) {
		return errors.New(`a cluster ID is "cluster-" and 11 to 16 characters of a-z, A-Z and 2-7`)
	}
	if err := c.token().Validate(); err != nil {
		return err
	}
	if c.TrustAnchor == "" {
		return nil
	}
	text, err := os.ReadFile(c.TrustAnchor)
	if err == nil {
		c.anchor, err = pemCertificate(text)
	}
	if err != nil {
		return fmt.Errorf("trustAnchor: %w", err)
	}
	return nil
}

func (c *Cluster) token() pkcs11.Config {
	return pkcs11.Config{Module: c.Module, Token: c.Token, Sessions: c.Sessions}
}

// pool reads CAs; nil means the system's alone.
func pool(file string, system bool) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	p := x509.NewCertPool()
	if system {
		if s, err := x509.SystemCertPool(); err == nil {
			p = s
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !p.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no PEM certificate", file)
	}
	return p, nil
}
