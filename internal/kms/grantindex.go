package kms

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
	"github.com/sealdesk/sealdesk/internal/store"
)

// grantIndex finds, among any number of grants on a key, those that can allow a
// call, without looking at the others. It is kept in memory from the grants
// table, and only proposes: what it names is read again in the transaction. It is
// called before a record becomes visible, so it may let records share memory.
//
// Grants of one grantee on one key fall into few shapes: a shape is the grant's
// operations and the names of its constraint's pairs. A call with an encryption
// context can match a grant of a shape only with the values the context has for
// those names, so one look-up a shape finds it: with 50,000 volumes' grants to
// ec2 on one key, a Decrypt makes one look-up.
type grantIndex struct {
	mu       sync.RWMutex
	seed     maphash.Seed
	keys     map[string]*keyGrants         // by key path
	retirers map[string]*btree.Set[string] // retiring principal → table keys of grants
}

type keyGrants struct {
	path     string
	count    int
	grantees map[string]*granteeGrants
}

type granteeGrants struct {
	name   string
	count  int
	shapes []*shape
}

type shape struct {
	operations []string
	exact      bool     // EncryptionContextEquals
	sourced    bool     // SourceArn
	names      []string // sorted names of the constraint's pairs
	count      int
	one        map[uint64]string   // hash of the pairs' values → table key of the grant
	more       map[uint64][]string // further grants of the same hash
}

func newGrantIndex() *grantIndex {
	return &grantIndex{seed: maphash.MakeSeed(), keys: map[string]*keyGrants{}, retirers: map[string]*btree.Set[string]{}}
}

func (ix *grantIndex) changed(p string, old, new *Grant) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if old != nil {
		ix.remove(p, old)
	}
	if new != nil {
		ix.add(p, new)
	}
}

func (g *Grant) constraint() (limit sortedPairs, exact bool) {
	if len(g.Equals) > 0 {
		return g.Equals, true
	}
	return g.Subset, false
}

func equalStrings(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (sh *shape) is(g *Grant) bool {
	limit, exact := g.constraint()
	if sh.exact != exact || sh.sourced != (g.SourceARN != "") || len(sh.names) != len(limit) || !equalStrings(sh.operations, g.Operations) {
		return false
	}
	for i, x := range limit {
		if x.name != sh.names[i] {
			return false
		}
	}
	return true
}

// hashOf is hash of a grant's own pairs.
func (ix *grantIndex) hashOf(limit sortedPairs) uint64 {
	var m maphash.Hash
	m.SetSeed(ix.seed)
	for _, x := range limit {
		_, _ = m.WriteString(x.value)
		_ = m.WriteByte(0)
	}
	return m.Sum64()
}

// hash of the values that context has for names; ok is false when one is missing.
func (ix *grantIndex) hash(names []string, context map[string]string) (h uint64, ok bool) {
	var m maphash.Hash
	m.SetSeed(ix.seed)
	for _, n := range names {
		v, ok := context[n]
		if !ok {
			return 0, false
		}
		_, _ = m.WriteString(v)
		_ = m.WriteByte(0)
	}
	return m.Sum64(), true
}

func (ix *grantIndex) add(p string, g *Grant) {
	kp := keyPathOf(p)
	kg := ix.keys[kp]
	if kg == nil {
		kg = &keyGrants{path: kp, grantees: map[string]*granteeGrants{}}
		ix.keys[kp] = kg
	}
	kg.count++
	gg := kg.grantees[g.Grantee]
	if gg == nil {
		gg = &granteeGrants{name: g.Grantee}
		kg.grantees[g.Grantee] = gg
	}
	gg.count++
	limit, exact := g.constraint()
	var sh *shape
	for _, x := range gg.shapes {
		if x.is(g) {
			sh = x
			break
		}
	}
	if sh == nil {
		names := make([]string, len(limit))
		for i, x := range limit {
			names[i] = x.name
		}
		sh = &shape{operations: g.Operations, exact: exact, sourced: g.SourceARN != "", names: names, one: map[uint64]string{}}
		gg.shapes = append(gg.shapes, sh)
	}
	sh.count++
	for i := range limit {
		limit[i].name = sh.names[i]
	}
	// The record shares what it has in common with others.
	g.key, g.Grantee, g.Operations = p, gg.name, sh.operations
	if g.Retiring == g.Grantee {
		g.Retiring = g.Grantee
	}
	if account, _, _ := splitPath(kg.path); g.IssuingAccount == account {
		g.IssuingAccount = account
	}
	h := ix.hashOf(limit)
	if _, taken := sh.one[h]; taken {
		if sh.more == nil {
			sh.more = map[uint64][]string{}
		}
		sh.more[h] = append(sh.more[h], p)
	} else {
		sh.one[h] = p
	}
	if g.Retiring != "" {
		set := ix.retirers[g.Retiring]
		if set == nil {
			set = new(btree.Set[string])
			ix.retirers[g.Retiring] = set
		}
		set.Insert(p)
	}
}

func (ix *grantIndex) remove(p string, g *Grant) {
	kp := keyPathOf(p)
	kg := ix.keys[kp]
	if kg == nil {
		return
	}
	if set := ix.retirers[g.Retiring]; set != nil {
		set.Delete(p)
		if set.Len() == 0 {
			delete(ix.retirers, g.Retiring)
		}
	}
	gg := kg.grantees[g.Grantee]
	if gg == nil {
		return
	}
	limit, _ := g.constraint()
	for i, sh := range gg.shapes {
		if !sh.is(g) {
			continue
		}
		h := ix.hashOf(limit)
		rest := sh.more[h]
		switch {
		case sh.one[h] == p && len(rest) > 0:
			sh.one[h] = rest[len(rest)-1]
			rest = rest[:len(rest)-1]
		case sh.one[h] == p:
			delete(sh.one, h)
		default:
			for j := range rest {
				if rest[j] == p {
					rest[j] = rest[len(rest)-1]
					rest = rest[:len(rest)-1]
					break
				}
			}
		}
		if len(rest) > 0 {
			sh.more[h] = rest
		} else {
			delete(sh.more, h)
		}
		if sh.count--; sh.count == 0 {
			gg.shapes = append(gg.shapes[:i], gg.shapes[i+1:]...)
		}
		break
	}
	if gg.count--; gg.count == 0 {
		delete(kg.grantees, g.Grantee)
	}
	if kg.count--; kg.count == 0 {
		delete(ix.keys, kp)
	}
}

// on is the number of grants on a key.
func (ix *grantIndex) on(keyPath string) int {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if kg := ix.keys[keyPath]; kg != nil {
		return kg.count
	}
	return 0
}

// held lists, in order, the table keys of the grantee's grants on a key, if they are few.
func (ix *grantIndex) held(keyPath, grantee string) (paths []string, few bool) {
	const most = 1000
	if grantee == "" {
		return nil, false
	}
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	kg := ix.keys[keyPath]
	if kg == nil || kg.grantees[grantee] == nil {
		return nil, true
	}
	gg := kg.grantees[grantee]
	if gg.count > most {
		return nil, false
	}
	for _, sh := range gg.shapes {
		for _, p := range sh.one {
			paths = append(paths, p)
		}
		for _, more := range sh.more {
			paths = append(paths, more...)
		}
	}
	slices.Sort(paths)
	return paths, true
}

// candidates lists grants of the grantee on the key that allow the operation and
// whose constraint could be met by context. With any, constraints do not count.
func (ix *grantIndex) candidates(keyPath, grantee, operation string, context map[string]string, any bool, out []string) []string {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	kg := ix.keys[keyPath]
	if kg == nil {
		return out
	}
	gg := kg.grantees[grantee]
	if gg == nil {
		return out
	}
	for _, sh := range gg.shapes {
		if !contains(sh.operations, operation) {
			continue
		}
		if any {
			n := 0
			for _, p := range sh.one {
				out = append(out, p)
				if n++; n == 16 && !sh.sourced { // enough: one that still stands is all that is looked for
					break
				}
			}
			continue
		}
		if sh.exact && len(sh.names) != len(context) {
			continue
		}
		h, ok := ix.hash(sh.names, context)
		if !ok {
			continue
		}
		if p, ok := sh.one[h]; ok {
			out = append(append(out, p), sh.more[h]...)
		}
	}
	return out
}

// retirable lists up to limit table keys of grants in a Region that principal may
// retire, greater than after.
func (ix *grantIndex) retirable(principal, region, after string, limit int) []string {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	set := ix.retirers[principal]
	if set == nil {
		return nil
	}
	var out []string
	set.Ascend(after, func(p string) bool {
		if r, _, _ := grantRegion(p); p > after && r == region {
			out = append(out, p)
		}
		return len(out) < limit
	})
	return out
}

// noContext are the grant operations on which encryption context constraints
// have no bearing. Source: KMS API reference, GrantConstraints.
var noContext = map[string]bool{"DescribeKey": true, "RetireGrant": true, "GetPublicKey": true}

// matchGrant finds a grant that allows the caller the operation on the key with
// this encryption context, and says whether it is the caller's own or the account's.
func (s *Service) matchGrant(tx *store.Tx, c *api.Call, k *Key, operation string, context map[string]string) (*Grant, policy.Grant) {
	any := noContext[operation]
	return s.findGrant(tx, c, k, operation, context, any, func(g *Grant) bool { return any || g.contextAllows(context) })
}

// findGrant finds a grant with the operation that the caller, or else the
// caller's account, holds on the key, for which fits holds.
func (s *Service) findGrant(tx *store.Tx, c *api.Call, k *Key, operation string, context map[string]string, any bool, fits func(*Grant) bool) (*Grant, policy.Grant) {
	kp := k.path()
	var few [4]string
	of := func(grantee string) *Grant {
		for _, p := range s.index.candidates(kp, grantee, operation, context, any, few[:0]) {
			g := s.grants.Get(tx, p)
			if g == nil || g.Grantee != grantee || !contains(g.Operations, operation) || !fits(g) {
				continue
			}
			if g.SourceARN == "" || operation == "RetireGrant" || g.SourceARN == c.SourceARN {
				return g
			}
		}
		return nil
	}
	for _, grantee := range grantees(&c.Principal) {
		if g := of(grantee); g != nil {
			return g, policy.GrantCaller
		}
	}
	if account := accountGrantee(&c.Principal); account != "" {
		if g := of(account); g != nil {
			return g, policy.GrantAccount
		}
	}
	return nil, policy.NoGrant
}

// contextAllows tells whether the grant's constraint admits an encryption context.
func (g *Grant) contextAllows(context map[string]string) bool {
	if len(g.Equals) > 0 && len(g.Equals) != len(context) {
		return false
	}
	for _, limit := range []sortedPairs{g.Equals, g.Subset} {
		for _, x := range limit {
			if got, ok := context[x.name]; !ok || got != x.value {
				return false
			}
		}
	}
	return true
}
