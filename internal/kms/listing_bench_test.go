package kms

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sealdesk/sealdesk/internal/store"
)

// BenchmarkGrantPages lists the 1,000 and the 50,000 grants on a key in pages of 100, by key, by key and a
// grantee who has ten of them, and by retiring principal. An op is a whole listing; the CPU time of a page is
// reported over all, over the first ten and over the last ten.
func BenchmarkGrantPages(b *testing.B) {
	x := newBench(b)
	c := x.root(acct)
	for _, n := range []int{1000, 50_000} {
		k := x.newKey(&kms.CreateKeyInput{})
		kp := path(acct, region, *k.KeyId)
		fill(x, kp, n-10)
		x.s.grants.Scan(x.st.Snapshot(), "", "", func(p string, _ *Grant) bool { // retirable: the present key's only
			if keyPathOf(p) != kp {
				if err := x.st.Update(context.Background(), func(tx *store.Tx) error { return x.s.grants.Delete(tx, p) }); err != nil {
					b.Fatal(err)
				}
			}
			return true
		})
		for range 10 {
			must[kms.CreateGrantOutput](x, c, "CreateGrant", grantOn(k, host("workspaces"), "Decrypt"))
		}
		for name, list := range map[string]func(marker *string) (int, *string){
			"key": func(m *string) (int, *string) {
				o := must[kms.ListGrantsOutput](x, c, "ListGrants", &kms.ListGrantsInput{KeyId: k.KeyId, Limit: ptr(int32(100)), Marker: m})
				return len(o.Grants), o.NextMarker
			},
			"grantee": func(m *string) (int, *string) {
				o := must[kms.ListGrantsOutput](x, c, "ListGrants", &kms.ListGrantsInput{KeyId: k.KeyId, Limit: ptr(int32(100)), Marker: m, GranteePrincipal: host("workspaces")})
				return len(o.Grants), o.NextMarker
			},
			"retiring": func(m *string) (int, *string) {
				o := must[kms.ListRetirableGrantsOutput](x, c, "ListRetirableGrants", &kms.ListRetirableGrantsInput{RetiringPrincipal: host("ec2"), Limit: ptr(int32(100)), Marker: m})
				return len(o.Grants), o.NextMarker
			},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				var all, first, last time.Duration
				pages := 0
				for b.Loop() {
					var marker *string
					var took []time.Duration
					listed := 0
					for {
						from := processCPU()
						got, next := list(marker)
						took = append(took, processCPU()-from)
						listed += got
						if marker = next; marker == nil {
							break
						}
					}
					if want := map[string]int{"key": n, "grantee": 10, "retiring": n - 10}[name]; listed != want {
						b.Fatalf("%d grants listed, want %d", listed, want)
					}
					for i, d := range took {
						all += d
						if i < 10 {
							first += d
						}
						if i >= len(took)-10 {
							last += d
						}
					}
					pages = len(took)
				}
				b.ReportMetric(float64(all.Nanoseconds())/float64(b.N*pages), "cpu-ns/page")
				b.ReportMetric(float64(first.Nanoseconds())/float64(b.N*min(10, pages)), "cpu-ns/first-page")
				b.ReportMetric(float64(last.Nanoseconds())/float64(b.N*min(10, pages)), "cpu-ns/last-page")
			})
		}
	}
}

// processCPU is the CPU time of the process, which other processes do not disturb.
func processCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
