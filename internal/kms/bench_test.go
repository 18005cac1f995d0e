package kms

import (
	"fmt"
	"testing"
)

// grantsOf50k are EBS's grants on one key, one a volume.
func grantsOf50k() ([]string, []*Grant) {
	paths, grants := make([]string, 50_000), make([]*Grant, 50_000)
	operations := []string{"Decrypt", "GenerateDataKeyWithoutPlaintext"}
	for i := range grants {
		id := fmt.Sprintf("%064x", i)
		paths[i] = grantKey(testKeyPath, id)
		grants[i] = &Grant{Grantee: "ec2.us-west-2.amazonaws.com", Operations: operations,
			Equals: pairsOf(map[string]string{"aws:ebs:id": fmt.Sprintf("vol-%08x", i), "aws:workspaces:sid-directoryid": "[S-1-5-21-1-2-3-1107]@[d-1234abcd01]"})}
	}
	return paths, grants
}

// BenchmarkGrantLookup finds the one grant of 10 or 50,000 that can allow a call.
func BenchmarkGrantLookup(b *testing.B) {
	paths, grants := grantsOf50k()
	contexts := make([]map[string]string, len(grants))
	for i, g := range grants {
		contexts[i] = g.Equals.asMap()
	}
	for _, n := range []int{10, 50_000} {
		ix := newGrantIndex()
		for i, g := range grants[:n] {
			ix.changed(paths[i], nil, g)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var few [4]string
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				if got := ix.candidates(keyPathOf(paths[i]), grants[i].Grantee, "Decrypt", contexts[i], false, few[:0]); len(got) != 1 || got[0] != paths[i] {
					b.Fatalf("candidates of grant %d: %v", i, got)
				}
			}
		})
	}
}
