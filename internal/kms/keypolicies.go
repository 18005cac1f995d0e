package kms

import (
	"sync"

	"github.com/sealdesk/sealdesk/internal/policy"
)

// keyPolicies are the key policies in use, by text: keys with equal policies, and
// most keys of an account have the default one, share one text and one parsed form.
// It goes when the last key that has it is deleted or gets another.
type keyPolicies struct {
	mu sync.Mutex
	m  map[string]*keyPolicy
}

// keyPolicy is one policy. It is parsed when it is first asked for.
type keyPolicy struct {
	text  string
	parse func() (*policy.Document, error)
	keys  int // that have it; guarded by keyPolicies.mu
}

func parseKeyPolicy(text string) (*policy.Document, error) {
	return policy.Parse([]byte(text), policy.Key)
}

// hold returns the policy with the text, for one more key.
func (ps *keyPolicies) hold(text string) *keyPolicy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.m[text]
	if p == nil {
		if ps.m == nil {
			ps.m = map[string]*keyPolicy{}
		}
		p = &keyPolicy{text: text, parse: sync.OnceValues(func() (*policy.Document, error) { return parseKeyPolicy(text) })}
		ps.m[text] = p
	}
	p.keys++
	return p
}

// release says that one key less has the policy. Who still reads the old record
// may go on using it.
func (ps *keyPolicies) release(p *keyPolicy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.keys--; p.keys == 0 {
		delete(ps.m, p.text)
	}
}

// document is the key's policy, parsed.
func (k *Key) document() (*policy.Document, error) {
	if k.derived.policy != nil {
		return k.derived.policy.parse()
	}
	return parseKeyPolicy(k.Policy)
}
