package kms

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// BenchmarkManyKeys is Decrypt by 16 callers over 10, 10,000 and 100,000 keys, each used before, with
// last uses written down meanwhile at their pace and not. "cpu-ns/op" is the CPU time of the process.
func BenchmarkManyKeys(b *testing.B) {
	x := newBench(b)
	x.s.cfg.Quotas.Keys = 1 << 20
	c := x.root(acct)
	var sealed [][]byte
	for _, n := range []int{10, 10_000, 100_000} {
		for _, id := range fillKeys(x, n-len(sealed), defaultPolicy(acct)) {
			out := must[kms.EncryptOutput](x, c, "Encrypt", &kms.EncryptInput{KeyId: &id, Plaintext: make([]byte, 32)})
			sealed = append(sealed, out.CiphertextBlob)
		}
		x.s.saveUsage(context.Background(), func() bool { return true })
		for _, saving := range []bool{false, true} {
			name := fmt.Sprint(n)
			if saving {
				name += "-saving"
			}
			b.Run(name, func(b *testing.B) {
				stop := make(chan struct{})
				var saver sync.WaitGroup
				if saving {
					saver.Go(func() {
						for {
							x.s.saveUsage(context.Background(), func() bool {
								select {
								case <-stop:
									return false
								case <-time.After(usagePause):
									return true
								}
							})
							select {
							case <-stop:
								return
							case <-time.After(usagePause):
							}
						}
					})
				}
				before := processCPU()
				b.ReportAllocs()
				b.ResetTimer()
				var i atomic.Int64
				var wg sync.WaitGroup
				for range 16 {
					wg.Go(func() {
						for k := i.Add(1); k <= int64(b.N); k = i.Add(1) {
							blob := sealed[uint64(k)*0x9E3779B97F4A7C15>>33%uint64(n)]
							if _, _, err := x.do(c, "Decrypt", &kms.DecryptInput{CiphertextBlob: blob}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64((processCPU()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
				close(stop)
				saver.Wait()
			})
		}
	}
}
