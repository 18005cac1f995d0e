package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sealdesk/sealdesk/internal/ids"
)

const (
	region    = "us-west-2"
	userAgent = "aws-sdk-go-v2/1.41.0 ua/2.1 os/linux lang/go#1.26 md/GOOS#linux md/GOARCH#amd64 api/kms#1.62.5 m/E,e"
)

// user is who signs.
type user struct{ accessKey, secret string }

// client is one connection of one user. It makes requests with the headers that
// the AWS SDK for Go sends and signs, each signed anew. It sends them with
// net/http's client, as Go programs do, or when lean writes and reads the bytes
// itself, which costs a third.
type client struct {
	user user
	addr string
	http *http.Client // nil: lean
	conn net.Conn
	r    *bufio.Reader

	second int64 // of stamp and mac
	stamp  string
	date   string
	mac    hash.Hash // HMAC with the day's signing key

	canonical, out, reply []byte
}

func dial(addr string, u user, lean bool) (*client, error) {
	if !lean {
		return &client{user: u, addr: addr, http: &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, DisableCompression: true}}}, nil
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{user: u, addr: addr, conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
		return
	}
	c.conn.Close()
}

// refresh keeps the time stamp and, from day to day, the signing key.
func (c *client) refresh(now time.Time) {
	if s := now.Unix(); s != c.second {
		c.second = s
		c.stamp = now.UTC().Format("20060102T150405Z")
		if d := c.stamp[:8]; d != c.date {
			c.date = d
			k := []byte("AWS4" + c.user.secret)
			for _, part := range []string{d, region, "kms", "aws4_request"} {
				m := hmac.New(sha256.New, k)
				m.Write([]byte(part))
				k = m.Sum(nil)
			}
			c.mac = hmac.New(sha256.New, k)
		}
	}
}

// authorization signs the request for operation with body.
func (c *client) authorization(operation, invocation string, body []byte) []byte {
	c.refresh(time.Now())
	sum := sha256.Sum256(body)
	b := append(c.canonical[:0], "POST\n/\n\namz-sdk-invocation-id:"...)
	b = append(b, invocation...)
	b = append(b, "\namz-sdk-request:attempt=1; max=3\ncontent-length:"...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\ncontent-type:application/x-amz-json-1.1\nhost:"...)
	b = append(b, c.addr...)
	b = append(b, "\nx-amz-date:"...)
	b = append(b, c.stamp...)
	b = append(b, "\nx-amz-target:TrentService."...)
	b = append(b, operation...)
	b = append(b, "\n\namz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-target\n"...)
	b = hex.AppendEncode(b, sum[:])
	sum = sha256.Sum256(b)
	b = append(b[:0], "AWS4-HMAC-SHA256\n"...)
	b = append(b, c.stamp...)
	b = append(b, '\n')
	b = append(b, c.date...)
	b = append(b, "/"+region+"/kms/aws4_request\n"...)
	b = hex.AppendEncode(b, sum[:])
	c.mac.Reset()
	c.mac.Write(b)
	signature := c.mac.Sum(sum[:0])
	b = append(b[:0], "AWS4-HMAC-SHA256 Credential="...)
	b = append(b, c.user.accessKey...)
	b = append(b, '/')
	b = append(b, c.date...)
	b = append(b, "/"+region+"/kms/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-target, Signature="...)
	c.canonical = hex.AppendEncode(b, signature)
	return c.canonical
}

// request writes the signed request for operation with body into c.out.
func (c *client) request(operation string, body []byte) {
	invocation := ids.UUID()
	authorization := c.authorization(operation, invocation, body)
	o := append(c.out[:0], "POST / HTTP/1.1\r\nHost: "...)
	o = append(o, c.addr...)
	o = append(o, "\r\nUser-Agent: "+userAgent+"\r\nContent-Length: "...)
	o = strconv.AppendInt(o, int64(len(body)), 10)
	o = append(o, "\r\nAmz-Sdk-Invocation-Id: "...)
	o = append(o, invocation...)
	o = append(o, "\r\nAmz-Sdk-Request: attempt=1; max=3\r\nAuthorization: "...)
	o = append(o, authorization...)
	o = append(o, "\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Date: "...)
	o = append(o, c.stamp...)
	o = append(o, "\r\nX-Amz-Target: TrentService."...)
	o = append(o, operation...)
	o = append(o, "\r\nAccept-Encoding: gzip\r\n\r\n"...)
	c.out = append(o, body...)
}

// call sends a request and returns the body of its reply, valid until the next call.
func (c *client) call(operation string, body []byte) ([]byte, error) {
	if c.http != nil {
		return c.do(operation, body)
	}
	c.request(operation, body)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	status, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	if status != 200 {
		return nil, fmt.Errorf("%s: status %d: %s", operation, status, c.reply)
	}
	return c.reply, nil
}

// do is call by net/http.
func (c *client) do(operation string, body []byte) ([]byte, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+c.addr+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	invocation := ids.UUID()
	authorization := string(c.authorization(operation, invocation, body))
	r.Header = http.Header{"User-Agent": {userAgent}, "Amz-Sdk-Invocation-Id": {invocation}, "Amz-Sdk-Request": {"attempt=1; max=3"}, "Authorization": {authorization},
		"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Date": {c.stamp}, "X-Amz-Target": {"TrentService." + operation}, "Accept-Encoding": {"gzip"}}
	reply, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	b := bytes.NewBuffer(c.reply[:0])
	_, err = b.ReadFrom(reply.Body)
	c.reply = b.Bytes()
	if err == nil && reply.StatusCode != 200 {
		err = fmt.Errorf("%s: status %d: %s", operation, reply.StatusCode, c.reply)
	}
	return c.reply, err
}

// read reads one reply of HTTP/1.1 with a Content-Length.
func (c *client) read() (status int, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		switch {
		case first:
			if len(line) < 12 {
				return 0, fmt.Errorf("status line %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, err
			}
		case len(line) <= 2:
			if length < 0 {
				return 0, errors.New("reply without Content-Length")
			}
			if cap(c.reply) < length {
				c.reply = make([]byte, length, 2*length)
			}
			c.reply = c.reply[:length]
			_, err = io.ReadFull(c.r, c.reply)
			return status, err
		case len(line) > 16 && (line[0] == 'C' || line[0] == 'c') && bytes.EqualFold(line[:15], []byte("content-length:")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil {
				return 0, err
			}
		}
	}
}

// workload makes the n-th call of a connection.
type workload func(c *client, n int) error

// result is one run of a workload on a number of connections.
type result struct {
	calls int
	rate  float64       // calls a second
	own   time.Duration // CPU time of this process a call
	cpu   time.Duration // CPU time of the server a call
	p50, p99, p999,
	longest time.Duration
}

// run repeats a workload on open connections for about d. Every call must succeed.
func run(conns []*client, d time.Duration, server *process, w workload) (result, error) {
	var wg sync.WaitGroup
	samples := make([][]time.Duration, len(conns))
	errs := make([]error, len(conns))
	own, theirs := selfCPU(), server.cpu()
	start := time.Now()
	end := start.Add(d)
	for i, c := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := make([]time.Duration, 0, 1<<14)
			from := time.Now()
			for n := 0; from.Before(end); n++ {
				if err := w(c, n*len(conns)+i); err != nil {
					errs[i] = err
					return
				}
				now := time.Now()
				s = append(s, now.Sub(from))
				from = now
			}
			samples[i] = s
		}()
	}
	wg.Wait()
	took := time.Since(start)
	own, theirs = selfCPU()-own, server.cpu()-theirs
	var r result
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	all := sorted(samples)
	r.calls = len(all)
	r.rate = float64(r.calls) / took.Seconds()
	r.own, r.cpu = own/time.Duration(r.calls), theirs/time.Duration(r.calls)
	at := func(q float64) time.Duration { return all[min(int(q*float64(len(all))), len(all)-1)] }
	r.p50, r.p99, r.p999, r.longest = at(0.5), at(0.99), at(0.999), all[len(all)-1]
	return r, nil
}

// connect opens n connections.
func connect(addr string, u user, n int, lean bool) ([]*client, error) {
	conns := make([]*client, n)
	for i := range conns {
		var err error
		if conns[i], err = dial(addr, u, lean); err != nil {
			return nil, err
		}
	}
	return conns, nil
}

func disconnect(conns []*client) {
	for _, c := range conns {
		c.close()
	}
}
