package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

const decrypt = "POST / HTTP/1.1\r\nHost: 127.0.0.1:8443\r\nUser-Agent: aws-sdk-go-v2/1.41.0 ua/2.1 os/linux lang/go#1.26 md/GOOS#linux md/GOARCH#amd64 api/kms#1.62.5 m/E,e\r\nContent-Length: %d\r\nAmz-Sdk-Invocation-Id: 7c1f5e53-8f0f-4a08-9c57-%012d\r\n" +
	"Amz-Sdk-Request: attempt=1; max=3\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261127/us-west-2/kms/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-date;x-amz-target, Signature=7c1f5e538f0f4a089c57bc5b8f0f4a089c57bc5b8f0f4a089c57%012d\r\n" +
	"Content-Type: application/x-amz-json-1.1\r\nX-Amz-Date: 20261127T043401Z\r\nX-Amz-Target: TrentService.Decrypt\r\nAccept-Encoding: gzip\r\n\r\n"

// BenchmarkFront is a call whose handler reads the body and answers 150 bytes, by
// the front and by net/http, on 32 connections. "cpu-ns/op" is the CPU time of
// the process, the client's (the same for both) included.
func BenchmarkFront(b *testing.B) {
	for _, by := range []string{"net/http", "front"} {
		b.Run(by, func(b *testing.B) {
			reply := []byte(strings.Repeat("x", 150))
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header()["Content-Type"] = []string{"application/x-amz-json-1.1"}
				w.Header()["Content-Length"] = []string{strconv.Itoa(len(reply))}
				_, _ = w.Write(reply)
			})}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			if by == "front" {
				f := New(srv)
				go f.Serve(l)
				defer f.Shutdown(b.Context())
			} else {
				go srv.Serve(l)
				defer srv.Shutdown(b.Context())
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ReportAllocs()
			b.ResetTimer()
			for range 32 {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				wg.Add(1)
				go func() {
					defer wg.Done()
					defer conn.Close()
					var out []byte
					body := strings.Repeat("b", 400)
					in := bufio.NewReader(conn)
					for {
						n := next.Add(1)
						if n > int64(b.N) {
							return
						}
						out = fmt.Appendf(out[:0], decrypt, len(body), n, n)
						out = append(out, body...)
						if _, err := conn.Write(out); err != nil {
							b.Error(err)
							return
						}
						for {
							line, err := in.ReadSlice('\n')
							if err != nil {
								b.Error(err)
								return
							}
							if len(line) == 2 {
								break
							}
						}
						if _, err := in.Discard(len(reply)); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(b.N), "cpu-ns/op")
		})
	}
}
