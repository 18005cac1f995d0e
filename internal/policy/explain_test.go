package policy

import (
	"slices"
	"testing"
)

// The sentences that clients match on, word for word.
func TestMessages(t *testing.T) {
	const (
		bob = "User: arn:aws:iam::111122223333:user/bob is not authorized to perform: kms:Decrypt on resource: " + keyARN
		ops = "User: arn:aws:sts::111122223333:assumed-role/Ops/s1 is not authorized to perform: kms:Decrypt on resource: " + keyARN
		eve = "User: arn:aws:iam::444455556666:user/eve is not authorized to perform: kms:Decrypt on resource: " + keyARN
	)
	for _, c := range []struct {
		name string
		who  Principal
		l    Layers
		want string
	}{
		{"identity", user("bob"), Layers{}, bob + " because no identity-based policy allows the kms:Decrypt action"},
		{"identity deny", user("bob"), Layers{Identity: list(t, Identity, denyDecrypt)}, bob + " with an explicit deny in an identity-based policy"},
		{"boundary", user("bob"), Layers{Identity: list(t, Identity, allowAll), Boundary: src(t, Boundary, allowEncrypt)}, bob + " because no permissions boundary allows the kms:Decrypt action"},
		{"boundary deny", user("bob"), Layers{Identity: list(t, Identity, allowAll), Boundary: src(t, Boundary, denyDecrypt)}, bob + " with an explicit deny in a permissions boundary"},
		{"session", role("Ops", "s1"), Layers{Identity: list(t, Identity, allowAll), Session: list(t, Session, allowEncrypt)}, ops + " because no session policy allows the kms:Decrypt action"},
		{"session deny", role("Ops", "s1"), Layers{Identity: list(t, Identity, allowAll), Session: list(t, Session, denyDecrypt)}, ops + " with an explicit deny in a session policy"},
		{"key policy", user("bob"), Layers{Mode: ModeKMS, Identity: list(t, Identity, allowAll), Resource: src(t, Key, to(toFed, "Allow"))}, bob + " because no resource-based policy allows the kms:Decrypt action"},
		{"key policy deny", user("bob"), Layers{Mode: ModeKMS, Resource: src(t, Key, to(toBob, "Deny"))}, bob + " with an explicit deny in a resource-based policy"},
		{"key policy leaves it to IAM", user("bob"), Layers{Mode: ModeKMS, Resource: src(t, Key, to(toAccount, "Allow"))}, bob + " because no identity-based policy allows the kms:Decrypt action"},
		{"scp", user("bob"), Layers{ServiceControl: [][]Source{list(t, Control, allowEncrypt)}}, bob + " because no service control policy allows the kms:Decrypt action"},
		{"scp deny", user("bob"), Layers{ServiceControl: [][]Source{list(t, Control, denyDecrypt)}}, bob + " with an explicit deny in a service control policy"},
		{"rcp deny", user("bob"), Layers{ResourceControl: [][]Source{list(t, ResourcePolicy, to(toAll, "Deny"))}}, bob + " with an explicit deny in a resource control policy"},
		{"another account's resource", userOf(other, "eve"), Layers{Identity: list(t, Identity, allowAll)}, eve + " because no resource-based policy allows the kms:Decrypt action"},
		{"another account's key", userOf(other, "eve"), Layers{Mode: ModeKMS, Identity: list(t, Identity, allowAll)}, "User: arn:aws:iam::444455556666:user/eve is not authorized to perform: kms:Decrypt on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"},
		{"another account's key, own side", userOf(other, "eve"), Layers{Mode: ModeKMS, Resource: src(t, Key, to(toOther, "Allow"))}, eve + " because no identity-based policy allows the kms:Decrypt action"},
		{"service", service("ec2"), Layers{Mode: ModeKMS}, "User: ec2.us-west-2.amazonaws.com is not authorized to perform: kms:Decrypt on resource: " + keyARN + " because no resource-based policy allows the kms:Decrypt action"},
		{"anonymous", Principal{}, Layers{}, "User: anonymous is not authorized to perform: kms:Decrypt on resource: " + keyARN + " because no identity-based policy allows the kms:Decrypt action"},
		{"allowed", user("bob"), Layers{Granted: func() (Grant, string) { return GrantCaller, "grant 0a1b allows it" }}, "User: arn:aws:iam::111122223333:user/bob is authorized to perform: kms:Decrypt on resource: " + keyARN + " because grant 0a1b allows it"},
	} {
		r := &Request{Principal: c.who, Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: acct}
		d := Evaluate(r, &c.l)
		if got := Message(r, &c.l, &d); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}

	const roleARN = "arn:aws:iam::111122223333:role/Ops"
	r := &Request{Principal: user("bob"), Action: "sts:AssumeRole", Resource: roleARN, ResourceAccount: acct}
	for _, c := range []struct{ trust, want string }{
		{`{"Effect":"Allow","Principal":` + toFed + `,"Action":"sts:AssumeRole"}`, " because no role trust policy allows the sts:AssumeRole action"},
		{`{"Effect":"Deny","Principal":` + toBob + `,"Action":"sts:AssumeRole"}`, " with an explicit deny in the role trust policy"},
		{`{"Effect":"Allow","Principal":` + toAccount + `,"Action":"sts:AssumeRole"}`, " because no identity-based policy allows the sts:AssumeRole action"},
	} {
		l := &Layers{Mode: ModeTrust, Resource: src(t, Trust, c.trust)}
		d := Evaluate(r, l)
		if got, want := Message(r, l, &d), "User: arn:aws:iam::111122223333:user/bob is not authorized to perform: sts:AssumeRole on resource: "+roleARN+c.want; got != want {
			t.Errorf("trust %s:\n got %s\nwant %s", c.trust, got, want)
		}
	}
}

// Explain lists what was considered, and why each statement did not help.
func TestExplainGolden(t *testing.T) {
	l := &Layers{Mode: ModeKMS, Resource: &Source{ID: "key policy", Document: MustParse(keyPolicy, Key)},
		Identity: []Source{{ID: "inline policy a of user bob", Document: stmts(t, Identity, `
{"Sid":"Other","Effect":"Allow","Action":"kms:ListGrants","Resource":"arn:aws:kms:us-west-2:111122223333:key/other"},
{"Effect":"Allow","Action":"kms:L*","Resource":"arn:aws:kms:*:*:key/${aws:PrincipalTag/key}"},
{"Sid":"Office","Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}},
{"Sid":"Mfa","Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}},
{"Sid":"Unrelated","Effect":"Allow","Action":"ec2:*","Resource":"*"}`)}}}
	r := &Request{Principal: user("bob"), Action: "kms:ListGrants", Resource: keyARN, ResourceAccount: acct, Context: Context{"aws:SourceIp": {"198.51.100.7"}}}
	d := Evaluate(r, l)
	const want = `User: arn:aws:iam::111122223333:user/bob is not authorized to perform: kms:ListGrants on resource: arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab because no identity-based policy allows the kms:ListGrants action
  resource-based policy "key policy", Enable IAM User Permissions (line 5): allows: it names the account, which leaves it to the account's IAM policies
  resource-based policy "key policy", Allow attachment of persistent resources (line 8): does not apply: its Principal is arn:aws:iam::111122223333:user/admin
  identity-based policy "inline policy a of user bob", Other (line 2): does not apply: its Resource is arn:aws:kms:us-west-2:111122223333:key/other
  identity-based policy "inline policy a of user bob", statement 2 (line 3): does not apply: a policy variable in its Resource arn:aws:kms:*:*:key/${aws:PrincipalTag/key} has no value in this request
  identity-based policy "inline policy a of user bob", Office (line 4): does not apply: its condition IpAddress aws:SourceIp ["203.0.113.0/24"] does not hold: the request has ["198.51.100.7"]
  identity-based policy "inline policy a of user bob", Mfa (line 5): does not apply: its condition Bool aws:MultiFactorAuthPresent ["true"] does not hold: the request has no aws:MultiFactorAuthPresent`
	if got := Explain(r, l, &d).String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	empty := Evaluate(r, &Layers{})
	if got, want := Explain(r, &Layers{}, &empty).String(), Message(r, &Layers{}, &empty)+"\n  no statement in any policy names the action"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestReasons(t *testing.T) {
	r := &Request{Principal: user("bob"), Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: acct}
	d := Evaluate(r, &Layers{Mode: ModeKMS, Granted: func() (Grant, string) { return NoGrant, "no grant allows it" }})
	if want := "no resource-based policy allows it; no grant allows it"; d.Reason != want {
		t.Errorf("Reason = %q, want %q", d.Reason, want)
	}
	asked := false
	d = Evaluate(r, &Layers{Mode: ModeKMS, Resource: src(t, Key, to(toBob, "Deny")), Granted: func() (Grant, string) { asked = true; return GrantCaller, "" }})
	if asked || d.Effect != ExplicitDeny {
		t.Errorf("grants were asked (%v) although an explicit deny decided: %v", asked, d.Effect)
	}
}

func TestSimulate(t *testing.T) {
	text := `{
  "Version": "2012-10-17",
  "Statement": [
    {"Sid": "All", "Effect": "Allow", "Action": "kms:*", "Resource": "*"},
    {"Sid": "Again", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"},
    {"Sid": "No", "Effect": "Deny", "Action": "kms:Sign", "Resource": "*"},
    {"Sid": "If", "Effect": "Allow", "Action": "ec2:*", "Resource": "*", "Condition": {"StringEquals": {"aws:RequestTag/t": "${aws:PrincipalTag/t}", "aws:username": "bob"}}}
  ]
}`
	l := &Layers{Identity: []Source{{ID: "PolicyInputList.1", Type: "IAM Policy", Document: MustParse(text, Identity)}}, Boundary: src(t, Boundary, allowDecrypt+","+allowEncrypt)}
	got := Simulate(&Request{Principal: user("bob"), Context: Context{"AWS:requesttag/T": {"x"}}}, l, []string{"kms:Decrypt", "kms:Sign", "kms:Verify", "ec2:RunInstances"}, []string{keyARN, "*"})
	if len(got) != 8 {
		t.Fatalf("%d results, want 8", len(got))
	}
	for i, c := range []struct {
		action, resource string
		effect           Effect
		sids             []string
		boundary         Effect
	}{
		{"kms:Decrypt", keyARN, Allow, []string{"All", "Again", ""}, Allow},
		{"kms:Decrypt", "*", Allow, []string{"All", "Again", ""}, Allow},
		{"kms:Sign", keyARN, ExplicitDeny, []string{"No"}, ImplicitDeny},
		{"kms:Sign", "*", ExplicitDeny, []string{"No"}, ImplicitDeny},
		{"kms:Verify", keyARN, ImplicitDeny, nil, ImplicitDeny},
		{"kms:Verify", "*", ImplicitDeny, nil, ImplicitDeny},
		{"ec2:RunInstances", keyARN, ImplicitDeny, nil, ImplicitDeny},
		{"ec2:RunInstances", "*", ImplicitDeny, nil, ImplicitDeny},
	} {
		g := got[i]
		var sids []string
		for _, m := range g.Matched {
			sids = append(sids, m.Statement.Sid)
		}
		if g.Action != c.action || g.Resource != c.resource || g.Decision.Effect != c.effect || !slices.Equal(sids, c.sids) || g.Layers[LayerBoundary] != c.boundary {
			t.Errorf("result %d: %s on %s %v by %q, boundary %v; want %+v", i, g.Action, g.Resource, g.Decision.Effect, sids, g.Layers[LayerBoundary], c)
		}
		if want := []string{"aws:PrincipalTag/t"}; !slices.Equal(g.Missing, want) {
			t.Errorf("result %d: missing %q, want %q", i, g.Missing, want)
		}
	}
	m := got[2].Matched[0]
	if m.Source != "PolicyInputList.1" || m.Type != "IAM Policy" || m.Statement.Start != (Position{6, 5}) || m.Statement.End != (Position{6, 75}) {
		t.Errorf("matched %+v from %v to %v", m, m.Statement.Start, m.Statement.End)
	}
	// Without resources the question is about "*".
	if one := Simulate(&Request{Principal: user("bob")}, l, []string{"kms:Decrypt"}, nil); len(one) != 1 || one[0].Resource != "*" {
		t.Errorf("without resources: %+v", one)
	}
}
