package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/sealdesk/sealdesk/internal/audit"
)

func BenchmarkAppend(b *testing.B) {
	for _, mode := range []struct {
		name string
		mode audit.SyncMode
	}{{"Fsynced", audit.Fsynced}, {"Written", audit.Written}} {
		for _, p := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", mode.name, p*2), func(b *testing.B) {
				w := open(b, b.TempDir(), false, func(c *audit.Config) { c.Sync = mode.mode })
				b.ReportAllocs()
				b.SetParallelism(p)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					r := record(1)
					for pb.Next() {
						if err := w.log.Append(context.Background(), r); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

func BenchmarkEncodingJSON(b *testing.B) {
	r := record(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	w := open(b, b.TempDir(), false, func(c *audit.Config) { c.Sync = audit.Written })
	const n = 200000
	w.append(0, n)
	for _, q := range []struct {
		name string
		q    audit.Query
	}{
		{"newest", audit.Query{}},
		{"event", audit.Query{Attribute: audit.EventID, Value: record(6).EventID}},
		{"name", audit.Query{Attribute: audit.EventName, Value: "CreateGrant"}},
		{"nobody", audit.Query{Attribute: audit.Username, Value: "Nobody"}},
	} {
		q.q.Account, q.q.Region, q.q.Limit = "111122223333", "us-west-2", 50
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := w.log.Lookup(context.Background(), q.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
