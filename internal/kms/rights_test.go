package kms

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sealdesk/sealdesk/internal/api"
	"github.com/sealdesk/sealdesk/internal/policy"
)

// The rules of who may do what, once more and as simply as they can be said, to
// hold the service against. Nothing here calls the policy engine or the grant index.

type pairs = map[string]string

// rule is a statement of a key policy or an IAM policy.
type rule struct {
	deny    bool
	who     string // of a key policy: an identity (see world.id) or "account/…"; of an IAM policy: its owner's
	key     int    // -1: any
	actions []string
	// Conditions, empty for none: the encryption context has a = when, the key has the alias.
	when, alias string
}

type held struct {
	id                string
	key               int
	grantee, retiring string // identities, or "account/…"
	operations        []string
	equals, subset    pairs
	issuer            string // account
}

// admits tells whether the constraint lets an encryption context through.
func (g *held) admits(ec pairs) bool {
	if g.equals != nil {
		return maps.Equal(g.equals, ec)
	}
	for n, v := range g.subset {
		if ec[n] != v {
			return false
		}
	}
	return true
}

func (g *held) limit() pairs {
	if g.equals != nil {
		return g.equals
	}
	return g.subset
}

// actor is a caller: all identities it answers to, and its account.
type actor struct {
	call    func() *api.Call
	names   []string // keys of world.generation; the first is the one IAM policies hang on
	account string   // "" for a service
	root    bool
}

type world struct {
	generation map[string]int // how often a user or role was made again
	policies   [2][]rule
	iam        []rule
	grants     []*held
	aliases    map[string]int
	contexts   []pairs
}

// id is who a name means now.
func (w *world) id(name string) string {
	if strings.HasPrefix(name, "account/") || strings.HasPrefix(name, "service/") {
		return name
	}
	role, _, session := strings.Cut(name, "/") // a session is made again with its role
	if session {
		return name + "#" + fmt.Sprint(w.generation[role])
	}
	return name + "#" + fmt.Sprint(w.generation[name])
}

func (w *world) is(a *actor, id string) bool {
	return slices.ContainsFunc(a.names, func(n string) bool { return w.id(n) == id })
}

func (w *world) met(r *rule, key int, action string, ec pairs) bool {
	if r.key >= 0 && r.key != key || !slices.Contains(r.actions, action) || r.when != "" && ec["a"] != r.when {
		return false
	}
	at, ok := w.aliases[r.alias]
	return r.alias == "" || ok && at == key
}

// byIAM is what the caller's own account allows: root everything, others what a policy says.
func (w *world) byIAM(a *actor, key int, action string, ec pairs) (allowed, denied bool) {
	for i := range w.iam {
		if r := &w.iam[i]; a.account != "" && r.who == w.id(a.names[0]) && w.met(r, key, action, ec) {
			allowed, denied = allowed || !r.deny, denied || r.deny
		}
	}
	return allowed || a.root, denied
}

// byPolicy is what key policy and IAM allow: the key policy names the caller, or
// the account and IAM allows; from another account both are needed.
func (w *world) byPolicy(a *actor, key int, action string, ec pairs) (allowed, denied bool) {
	iam, denied := w.byIAM(a, key, action, ec)
	for i := range w.policies[key] {
		r := &w.policies[key][i]
		if !w.met(r, key, action, ec) {
			continue
		}
		account := r.who == "account/"+a.account && a.account != ""
		if r.deny {
			denied = denied || account || w.is(a, r.who)
			continue
		}
		if w.is(a, r.who) && a.account == acct || (account || w.is(a, r.who)) && iam {
			allowed = true
		}
	}
	return allowed, denied
}

// may is the whole: no deny, and key policy with IAM, or a grant that fits.
func (w *world) may(a *actor, key int, action string, ec pairs, fits func(*held) bool) bool {
	allowed, denied := w.byPolicy(a, key, action, ec)
	if allowed || denied {
		return !denied
	}
	iam, _ := w.byIAM(a, key, action, ec)
	for _, g := range w.grants {
		if g.key == key && slices.Contains(g.operations, action) && fits(g) && (w.is(a, g.grantee) || g.grantee == "account/"+a.account && iam) {
			return true
		}
	}
	return false
}

// narrower: every operation of the child, in every context the child admits, is one the parent allows.
func (w *world) narrower(child, parent *held) bool {
	for _, o := range child.operations {
		if !slices.Contains(parent.operations, o) {
			return false
		}
	}
	return !slices.ContainsFunc(w.contexts, func(ec pairs) bool { return child.admits(ec) && !parent.admits(ec) })
}

// mayRetire: the retiring principal; the grantee, with the operation; IAM of the account
// that made the grant or that retires it.
func (w *world) mayRetire(a *actor, g *held) bool {
	iam, denied := w.byIAM(a, g.key, "RetireGrant", g.limit())
	with := slices.Contains(g.operations, "RetireGrant")
	switch {
	case denied:
		return false
	case w.is(a, g.retiring), with && w.is(a, g.grantee):
		return true
	case a.account == "":
		return false
	}
	return iam && (a.account == g.issuer || g.retiring == "account/"+a.account || with && g.grantee == "account/"+a.account)
}

// TestNobodyGetsMore makes random calls by all kinds of callers, between random
// changes of key policies, IAM policies, grants, aliases and of who is behind a name,
// and compares what each is answered with the model: in no sequence does a caller get
// more than key policy, IAM and grants allow, nor less; and what a caller hands on by a
// grant that it holds is never wider than that grant.
func TestNobodyGetsMore(t *testing.T) {
	seeds, steps := 4, 2000
	if testing.Short() {
		seeds, steps = 1, 500
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { nobodyGetsMore(t, uint64(seed), steps) })
	}
}

func nobodyGetsMore(t *testing.T, seed uint64, steps int) {
	b := newBench(t)
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &world{generation: map[string]int{}, aliases: map[string]int{}}
	for i := range 27 {
		ec := pairs{}
		for j, n := range []string{"a", "b", "c"} {
			if v := i / []int{1, 3, 9}[j] % 3; v > 0 {
				ec[n] = fmt.Sprint(v)
			}
		}
		w.contexts = append(w.contexts, ec)
	}
	arns := map[string]string{
		"u1": "arn:aws:iam::" + acct + ":user/u1", "u2": "arn:aws:iam::" + acct + ":user/u2", "x": "arn:aws:iam::" + other + ":user/x",
		"r": "arn:aws:iam::" + acct + ":role/r", "r/a": "arn:aws:sts::" + acct + ":assumed-role/r/a",
		"account/" + acct: "arn:aws:iam::" + acct + ":root", "account/" + other: "arn:aws:iam::" + other + ":root", "service/ec2": api.Host("ec2", region),
	}
	actors := []*actor{
		{func() *api.Call { return b.user(acct, "u1") }, []string{"u1"}, acct, false},
		{func() *api.Call { return b.user(acct, "u2") }, []string{"u2"}, acct, false},
		{func() *api.Call { return b.session(acct, "r", "a") }, []string{"r/a", "r"}, acct, false},
		{func() *api.Call { return b.session(acct, "r", "b") }, []string{"r/b", "r"}, acct, false},
		{func() *api.Call { return b.root(acct) }, []string{"account/" + acct}, acct, true},
		{func() *api.Call { return b.user(other, "x") }, []string{"x"}, other, false},
		{func() *api.Call { return b.root(other) }, []string{"account/" + other}, other, true},
		{func() *api.Call { return b.service("ec2") }, []string{"service/ec2"}, "", false},
	}
	operations := []string{"CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "RetireGrant"}
	actions := append([]string{"PutKeyPolicy", "RevokeGrant"}, operations...)
	aliases := []string{"alias/one", "alias/two"}
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	some := func(list []string) (out []string) {
		for len(out) == 0 {
			for _, s := range list {
				if rng.IntN(3) == 0 {
					out = append(out, s)
				}
			}
		}
		return out
	}
	var keys [2]*types.KeyMetadata
	blobs := map[string][]byte{}
	free := func(f func()) { b.free = true; f(); b.free = false }
	for i := range keys {
		keys[i] = b.newKey(&kms.CreateKeyInput{})
		for j, ec := range w.contexts {
			blobs[fmt.Sprint(i, j)] = must[kms.EncryptOutput](b, b.root(acct), "Encrypt", &kms.EncryptInput{KeyId: keys[i].KeyId, Plaintext: []byte("x"), EncryptionContext: ec}).CiphertextBlob
		}
		w.policies[i] = []rule{{who: "account/" + acct, key: -1, actions: actions}}
		free(func() {
			must[kms.PutKeyPolicyOutput](b, b.root(acct), "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: keys[i].KeyId, Policy: ptr(ruleText(w.policies[i], arns, keys))})
		})
	}
	b.free = false

	named := []string{"u1", "u2", "x", "r", "r/a", "account/" + acct, "account/" + acct, "account/" + other}
	someRule := func() rule {
		r := rule{deny: rng.IntN(5) == 0, who: pick(named), key: -1, actions: some(actions)}
		if rng.IntN(4) == 0 {
			r.when = fmt.Sprint(1 + rng.IntN(2))
		}
		if rng.IntN(6) == 0 {
			r.alias = pick(aliases)
		}
		return r
	}
	allowed, refused := map[string]int{}, map[string]int{}
	var trace []string
	check := func(what string, ok bool, dry bool, err error) {
		t.Helper()
		want := "AccessDeniedException"
		if ok {
			want = "success"
			if dry {
				want = "DryRunOperationException"
			}
		}
		op, _, _ := strings.Cut(what, " ")
		if ok {
			allowed[op]++
		} else {
			refused[op]++
		}
		trace = append(trace, what+" = "+codeOf(err))
		if got := codeOf(err); got != want {
			t.Fatalf("%s = %v, want %s\nkey policies %+v\nIAM %+v\nbefore:\n%s", what, err, want, w.policies, w.iam, strings.Join(trace[max(0, len(trace)-12):], "\n"))
		}
	}
	for range steps {
		a := actors[rng.IntN(len(actors))]
		c := a.call()
		ki := rng.IntN(2)
		key := keys[ki]
		dry := rng.IntN(5) == 0
		dryRun := &dry
		switch rng.IntN(14) {
		case 0: // a key policy, by who may
			var p []rule
			for range 1 + rng.IntN(3) {
				p = append(p, someRule())
			}
			_, _, err := b.do(c, "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: key.Arn, Policy: ptr(ruleText(p, arns, keys)), BypassPolicyLockoutSafetyCheck: true})
			ok := w.may(a, ki, "PutKeyPolicy", nil, func(*held) bool { return false }) && a.account == acct
			check(fmt.Sprintf("PutKeyPolicy by %v on %d %+v", a.names, ki, p), ok, false, err)
			if ok {
				for i := range p {
					p[i].who = w.id(p[i].who)
				}
				w.policies[ki] = p
			}
		case 1: // the operator puts a key policy that gives somebody something
			p := []rule{{who: "account/" + acct, key: -1, actions: actions}, someRule(), someRule()}
			free(func() {
				must[kms.PutKeyPolicyOutput](b, b.root(acct), "PutKeyPolicy", &kms.PutKeyPolicyInput{KeyId: key.Arn, Policy: ptr(ruleText(p, arns, keys)), BypassPolicyLockoutSafetyCheck: true})
			})
			for i := range p {
				p[i].who = w.id(p[i].who)
			}
			w.policies[ki] = p
		case 2, 3: // IAM of one of the callers changes
			if a.root || a.account == "" {
				continue
			}
			me := w.id(a.names[0])
			w.iam = slices.DeleteFunc(w.iam, func(r rule) bool { return r.who == me })
			b.iam[c.Principal.ARN] = nil
			for range rng.IntN(3) {
				r := someRule()
				r.who, r.key = me, rng.IntN(3)-1
				w.iam = append(w.iam, r)
				b.iam[c.Principal.ARN] = append(b.iam[c.Principal.ARN], policy.Source{ID: "iam", Document: policy.MustParse(ruleText([]rule{r}, nil, keys), policy.Identity)})
			}
		case 4: // an alias moves or goes
			name := pick(aliases)
			free(func() {
				if at, ok := w.aliases[name]; !ok {
					must[kms.CreateAliasOutput](b, b.root(acct), "CreateAlias", &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId})
					w.aliases[name] = ki
				} else if at == ki {
					must[kms.DeleteAliasOutput](b, b.root(acct), "DeleteAlias", &kms.DeleteAliasInput{AliasName: &name})
					delete(w.aliases, name)
				} else {
					must[kms.UpdateAliasOutput](b, b.root(acct), "UpdateAlias", &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: key.KeyId})
					w.aliases[name] = ki
				}
			})
		case 5: // a user or role is deleted and made again under its name
			if rng.IntN(4) > 0 {
				continue
			}
			name := pick([]string{"u1", "u2", "x", "r"})
			w.generation[name]++
			b.who.made[arns[name]]++
			for arn := range b.iam {
				if arn == arns[name] || name == "r" && strings.Contains(arn, "assumed-role/r/") {
					b.iam[arn] = nil
				}
			}
		case 6, 7: // a grant, by policy or by a grant with CreateGrant
			g := &held{key: ki, grantee: pick(append(named[:7:7], "service/ec2")), operations: some(operations), issuer: c.Principal.Account}
			in := &kms.CreateGrantInput{KeyId: key.Arn, GranteePrincipal: ptr(arns[g.grantee]), DryRun: dryRun}
			for _, o := range g.operations {
				in.Operations = append(in.Operations, types.GrantOperation(o))
			}
			if rng.IntN(3) == 0 {
				g.retiring = pick(named)
				in.RetiringPrincipal = ptr(arns[g.retiring])
				g.retiring = w.id(g.retiring)
			}
			limit := pairs{}
			for _, n := range []string{"a", "b"} {
				if rng.IntN(2) == 0 {
					limit[n] = fmt.Sprint(1 + rng.IntN(2))
				}
			}
			if len(limit) > 0 {
				if rng.IntN(2) == 0 {
					g.equals, in.Constraints = limit, &types.GrantConstraints{EncryptionContextEquals: limit}
				} else {
					g.subset, in.Constraints = limit, &types.GrantConstraints{EncryptionContextSubset: limit}
				}
			}
			if rng.IntN(4) == 0 {
				in.Name = ptr("named")
			}
			g.grantee = w.id(g.grantee)
			ok := w.may(a, ki, "CreateGrant", g.limit(), func(parent *held) bool { return w.narrower(g, parent) })
			out, _, err := b.do(c, "CreateGrant", in)
			check(fmt.Sprintf("CreateGrant by %v on %d dry %v %+v", a.names, ki, dry, *g), ok, dry, err)
			if ok && !dry {
				g.id = *out.(*kms.CreateGrantOutput).GrantId
				if !slices.ContainsFunc(w.grants, func(o *held) bool { return o.id == g.id }) {
					w.grants = append(w.grants, g)
				}
			}
		case 8: // a grant ends, or somebody tries
			if len(w.grants) == 0 {
				continue
			}
			i := rng.IntN(len(w.grants))
			g := w.grants[i]
			var ok bool
			var err error
			if rng.IntN(2) == 0 {
				ok = w.mayRetire(a, g)
				_, _, err = b.do(c, "RetireGrant", &kms.RetireGrantInput{KeyId: keys[g.key].Arn, GrantId: &g.id, DryRun: dryRun})
				check(fmt.Sprintf("RetireGrant by %v dry %v of %+v", a.names, dry, *g), ok, dry, err)
			} else {
				ok = w.may(a, g.key, "RevokeGrant", nil, func(*held) bool { return false })
				_, _, err = b.do(c, "RevokeGrant", &kms.RevokeGrantInput{KeyId: keys[g.key].Arn, GrantId: &g.id, DryRun: dryRun})
				check(fmt.Sprintf("RevokeGrant by %v dry %v of %+v", a.names, dry, *g), ok, dry, err)
			}
			if ok && !dry {
				w.grants = slices.Delete(w.grants, i, i+1)
			}
		default: // the key is used
			ci := rng.IntN(len(w.contexts))
			ec := w.contexts[ci]
			ref, at := key.Arn, ki
			if name := pick(aliases); rng.IntN(4) == 0 {
				if to, ok := w.aliases[name]; ok {
					ref, at = ptr(aliasARN(acct, region, name)), to
				}
			}
			var in any
			name := pick([]string{"Encrypt", "Decrypt", "DescribeKey"})
			fits := func(g *held) bool { return g.admits(ec) }
			switch name {
			case "Encrypt":
				in = &kms.EncryptInput{KeyId: ref, Plaintext: []byte("x"), EncryptionContext: ec, DryRun: dryRun}
			case "Decrypt":
				at = ki
				in = &kms.DecryptInput{CiphertextBlob: blobs[fmt.Sprint(ki, ci)], EncryptionContext: ec, DryRun: dryRun}
			default: // it has no context and no dry run
				ec, dry, fits = nil, false, func(*held) bool { return true }
				in = &kms.DescribeKeyInput{KeyId: ref}
			}
			_, _, err := b.do(c, name, in)
			check(fmt.Sprintf("%s by %v on %d (%s) dry %v context %v", name, a.names, at, *ref, dry, ec), w.may(a, at, name, ec, fits), dry, err)
		}
	}
	// The service holds the grants of the model, and each child lies within its parent.
	var ids, want []string
	for i := range keys {
		b.s.grants.Scan(b.st.Snapshot(), grantPrefix(path(acct, region, *keys[i].KeyId)), "", func(_ string, g *Grant) bool { ids = append(ids, g.id()); return true })
	}
	for _, g := range w.grants {
		want = append(want, g.id)
	}
	slices.Sort(ids)
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		t.Errorf("the service has %d grants, the model %d", len(ids), len(want))
	}
	if testing.Verbose() {
		t.Logf("allowed %v, refused %v, %d grants at the end", allowed, refused, len(w.grants))
	}
	for _, op := range []string{"CreateGrant", "Decrypt", "DescribeKey", "Encrypt"} {
		if least := steps / 200; allowed[op] < least || refused[op] < least {
			t.Errorf("%s: %d allowed, %d refused: the test says little", op, allowed[op], refused[op])
		}
	}
}

// ruleText is rules as a policy document; arns is nil for an IAM policy.
func ruleText(rules []rule, arns map[string]string, keys [2]*types.KeyMetadata) string {
	var out []string
	for _, r := range rules {
		effect, principal, resource, condition := "Allow", "", "*", []string{}
		if r.deny {
			effect = "Deny"
		}
		if arns != nil {
			principal = `"Principal":{"AWS":"` + arns[r.who] + `"},`
		}
		if r.key >= 0 {
			resource = *keys[r.key].Arn
		}
		if r.when != "" {
			condition = append(condition, `"StringEquals":{"kms:EncryptionContext:a":"`+r.when+`"}`)
		}
		if r.alias != "" {
			condition = append(condition, `"ForAnyValue:StringEquals":{"kms:ResourceAliases":"`+r.alias+`"}`)
		}
		out = append(out, fmt.Sprintf(`{"Effect":"%s",%s"Action":["kms:%s"],"Resource":"%s","Condition":{%s}}`, effect, principal, strings.Join(r.actions, `","kms:`), resource, strings.Join(condition, ",")))
	}
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(out, ",") + `]}`
}
