package policy

import (
	"testing"
)

const (
	allowAll     = `{"Effect":"Allow","Action":"*","Resource":"*"}`
	allowDecrypt = `{"Effect":"Allow","Action":"kms:Decrypt","Resource":"*"}`
	allowEncrypt = `{"Effect":"Allow","Action":"kms:Encrypt","Resource":"*"}`
	denyDecrypt  = `{"Effect":"Deny","Action":"kms:Decrypt","Resource":"*"}`
)

func to(principal, effect string) string {
	return `{"Effect":"` + effect + `","Principal":` + principal + `,"Action":"kms:Decrypt","Resource":"*"}`
}

const (
	toAccount  = `{"AWS":"arn:aws:iam::111122223333:root"}`
	toBob      = `{"AWS":"arn:aws:iam::111122223333:user/bob"}`
	toRole     = `{"AWS":"arn:aws:iam::111122223333:role/Ops"}`
	toSession  = `{"AWS":"arn:aws:sts::111122223333:assumed-role/Ops/s1"}`
	toIssuer   = `{"AWS":"arn:aws:iam::111122223333:user/issuer"}`
	toFed      = `{"AWS":"arn:aws:sts::111122223333:federated-user/fred"}`
	toAll      = `"*"`
	toService  = `{"Service":"workspaces.amazonaws.com"}`
	toOther    = `{"AWS":"444455556666"}`
	toOtherBob = `{"AWS":"arn:aws:iam::444455556666:user/bob"}`
)

// TestEvaluate goes through "Policy evaluation logic", row by row.
func TestEvaluate(t *testing.T) {
	for _, c := range []struct {
		name      string
		who       Principal
		mode      Mode
		identity  string
		boundary  string
		session   string
		scoped    bool
		resource  string
		granted   bool
		toAccount bool
		scp       []string // one statement a level
		want      Effect
		layer     Layer
	}{
		// Nothing allows by itself.
		{name: "no policy at all", who: user("bob"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "nobody", who: Principal{}, want: ImplicitDeny, layer: LayerIdentity},
		{name: "another action", who: user("bob"), identity: allowEncrypt, want: ImplicitDeny, layer: LayerIdentity},

		// Identity policies, boundary and session within the account.
		{name: "identity allows", who: user("bob"), identity: allowDecrypt, want: Allow, layer: LayerIdentity},
		{name: "identity denies what it allows", who: user("bob"), identity: allowDecrypt + "," + denyDecrypt, want: ExplicitDeny, layer: LayerIdentity},
		{name: "boundary alone gives nothing", who: user("bob"), boundary: allowDecrypt, want: ImplicitDeny, layer: LayerIdentity},
		{name: "identity within boundary", who: user("bob"), identity: allowDecrypt, boundary: allowAll, want: Allow, layer: LayerIdentity},
		{name: "identity outside boundary", who: user("bob"), identity: allowDecrypt, boundary: allowEncrypt, want: ImplicitDeny, layer: LayerBoundary},
		{name: "boundary denies", who: user("bob"), identity: allowDecrypt, boundary: allowAll + "," + denyDecrypt, want: ExplicitDeny, layer: LayerBoundary},
		{name: "session alone gives nothing", who: role("Ops", "s1"), session: allowDecrypt, want: ImplicitDeny, layer: LayerIdentity},
		{name: "identity within session", who: role("Ops", "s1"), identity: allowAll, session: allowDecrypt, want: Allow, layer: LayerIdentity},
		{name: "identity outside session", who: role("Ops", "s1"), identity: allowAll, session: allowEncrypt, want: ImplicitDeny, layer: LayerSession},
		{name: "session denies", who: role("Ops", "s1"), identity: allowAll, session: allowAll + "," + denyDecrypt, want: ExplicitDeny, layer: LayerSession},
		{name: "all three allow", who: role("Ops", "s1"), identity: allowAll, boundary: allowDecrypt, session: allowDecrypt, want: Allow, layer: LayerIdentity},
		{name: "boundary and session do not meet", who: role("Ops", "s1"), identity: allowAll, boundary: allowEncrypt, session: allowDecrypt, want: ImplicitDeny, layer: LayerBoundary},
		{name: "federated without session policies", who: federated("fred"), identity: allowAll, scoped: true, want: ImplicitDeny, layer: LayerSession},
		{name: "federated with session policy", who: federated("fred"), identity: allowAll, scoped: true, session: allowDecrypt, want: Allow, layer: LayerIdentity},

		// Resource policies within the account (the table of "single account").
		{name: "resource names user", who: user("bob"), resource: to(toBob, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names user, boundary does not allow", who: user("bob"), boundary: allowEncrypt, resource: to(toBob, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names user, identity denies", who: user("bob"), identity: denyDecrypt, resource: to(toBob, "Allow"), want: ExplicitDeny, layer: LayerIdentity},
		{name: "resource names user, boundary denies", who: user("bob"), boundary: denyDecrypt, resource: to(toBob, "Allow"), want: ExplicitDeny, layer: LayerBoundary},
		{name: "resource names another user", who: user("eve"), resource: to(toBob, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "resource names account only", who: user("bob"), resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "resource names account, identity allows", who: user("bob"), identity: allowDecrypt, resource: to(toAccount, "Allow"), want: Allow, layer: LayerIdentity},
		{name: "resource silent, identity allows", who: user("bob"), identity: allowDecrypt, resource: to(toFed, "Allow"), want: Allow, layer: LayerIdentity},
		{name: "resource denies account", who: user("bob"), identity: allowDecrypt, resource: to(toAccount, "Deny"), want: ExplicitDeny, layer: LayerResource},
		{name: "resource denies user", who: user("bob"), identity: allowDecrypt, resource: to(toBob, "Deny"), want: ExplicitDeny, layer: LayerResource},
		{name: "resource denies all", who: user("bob"), identity: allowDecrypt, resource: to(toAll, "Deny"), want: ExplicitDeny, layer: LayerResource},
		{name: "resource allows all", who: user("bob"), boundary: allowEncrypt, resource: to(toAll, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names role", who: role("Ops", "s1"), resource: to(toRole, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names role, boundary does not allow", who: role("Ops", "s1"), boundary: allowEncrypt, resource: to(toRole, "Allow"), want: ImplicitDeny, layer: LayerBoundary},
		{name: "resource names role, session does not allow", who: role("Ops", "s1"), session: allowEncrypt, resource: to(toRole, "Allow"), want: ImplicitDeny, layer: LayerSession},
		{name: "resource names role, session allows", who: role("Ops", "s1"), session: allowDecrypt, resource: to(toRole, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names session, nothing else allows", who: role("Ops", "s1"), boundary: allowEncrypt, session: allowEncrypt, resource: to(toSession, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names another session", who: role("Ops", "s2"), resource: to(toSession, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "resource denies role", who: role("Ops", "s1"), identity: allowAll, resource: to(toRole, "Deny"), want: ExplicitDeny, layer: LayerResource},
		{name: "resource names issuer of federated, session does not allow", who: federated("fred"), scoped: true, resource: to(toIssuer, "Allow"), want: ImplicitDeny, layer: LayerSession},
		{name: "resource names federated session", who: federated("fred"), scoped: true, boundary: allowEncrypt, resource: to(toFed, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names the role's unique ID", who: role("Ops", "s1"), resource: to(`{"AWS":"AROA0123456789ABCDEF"}`, "Allow"), want: Allow, layer: LayerResource},
		{name: "resource names the unique ID of a deleted user", who: user("bob"), resource: to(`{"AWS":"AIDA9999999999999999"}`, "Allow"), want: ImplicitDeny, layer: LayerIdentity},

		// Root.
		{name: "root", who: root(), want: Allow, layer: LayerRoot},
		{name: "root, resource denies", who: root(), resource: to(toAll, "Deny"), want: ExplicitDeny, layer: LayerResource},
		{name: "root with a session policy", who: root(), session: allowEncrypt, want: ImplicitDeny, layer: LayerSession},
		{name: "root with a session policy and a resource policy", who: root(), session: allowEncrypt, resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerSession},
		{name: "root under an SCP", who: root(), scp: []string{allowEncrypt}, want: ImplicitDeny, layer: LayerServiceControl},

		// Services and the anonymous.
		{name: "service named", who: service("workspaces"), resource: to(toService, "Allow"), want: Allow, layer: LayerResource},
		{name: "service named with its region", who: service("workspaces"), resource: to(`{"Service":"workspaces.us-west-2.amazonaws.com"}`, "Allow"), want: Allow, layer: LayerResource},
		{name: "service named with another region", who: service("workspaces"), resource: to(`{"Service":"workspaces.eu-west-1.amazonaws.com"}`, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "another service", who: service("ec2"), resource: to(toService, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "service is not of the account", who: service("ec2"), mode: ModeKMS, identity: allowAll, resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerResource},
		{name: "anonymous", who: Principal{}, resource: to(toAll, "Allow"), want: Allow, layer: LayerResource},
		{name: "anonymous is not of an account", who: Principal{}, resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerIdentity},

		// NotPrincipal.
		{name: "NotPrincipal spares who is named with the account", who: user("bob"), identity: allowAll, resource: `{"Effect":"Deny","NotPrincipal":{"AWS":["arn:aws:iam::111122223333:user/bob","arn:aws:iam::111122223333:root"]},"Action":"*","Resource":"*"}`, want: Allow, layer: LayerIdentity},
		{name: "NotPrincipal without the account", who: user("bob"), identity: allowAll, resource: `{"Effect":"Deny","NotPrincipal":` + toBob + `,"Action":"*","Resource":"*"}`, want: ExplicitDeny, layer: LayerResource},
		{name: "NotPrincipal with the account alone", who: user("bob"), identity: allowAll, resource: `{"Effect":"Deny","NotPrincipal":` + toAccount + `,"Action":"*","Resource":"*"}`, want: ExplicitDeny, layer: LayerResource},
		{name: "NotPrincipal with the account alone, root", who: root(), resource: `{"Effect":"Deny","NotPrincipal":` + toAccount + `,"Action":"*","Resource":"*"}`, want: Allow, layer: LayerRoot},
		{name: "NotPrincipal with account, role and session", who: role("Ops", "s1"), identity: allowAll, resource: `{"Effect":"Deny","NotPrincipal":{"AWS":["111122223333","arn:aws:iam::111122223333:role/Ops","arn:aws:sts::111122223333:assumed-role/Ops/s1"]},"Action":"*","Resource":"*"}`, want: Allow, layer: LayerIdentity},
		{name: "NotPrincipal with account and role", who: role("Ops", "s1"), identity: allowAll, resource: `{"Effect":"Deny","NotPrincipal":{"AWS":["111122223333","arn:aws:iam::111122223333:role/Ops"]},"Action":"*","Resource":"*"}`, want: ExplicitDeny, layer: LayerResource},
		{name: "NotPrincipal always denies those with a boundary", who: user("bob"), identity: allowAll, boundary: allowAll, resource: `{"Effect":"Deny","NotPrincipal":{"AWS":["arn:aws:iam::111122223333:user/bob","arn:aws:iam::111122223333:root"]},"Action":"*","Resource":"*"}`, want: ExplicitDeny, layer: LayerResource},
		{name: "NotPrincipal and a service", who: service("workspaces"), identity: allowAll, resource: `{"Effect":"Deny","NotPrincipal":` + toService + `,"Action":"*","Resource":"*"}`, want: Allow, layer: LayerIdentity},

		// Across accounts.
		{name: "cross: identity only", who: userOf(other, "bob"), identity: allowDecrypt, want: ImplicitDeny, layer: LayerResource},
		{name: "cross: resource only", who: userOf(other, "bob"), resource: to(toOtherBob, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "cross: both, by user", who: userOf(other, "bob"), identity: allowDecrypt, resource: to(toOtherBob, "Allow"), want: Allow, layer: LayerResource},
		{name: "cross: both, by account", who: userOf(other, "bob"), identity: allowDecrypt, resource: to(toOther, "Allow"), want: Allow, layer: LayerResource},
		{name: "cross: both, by everybody", who: userOf(other, "bob"), identity: allowDecrypt, resource: to(toAll, "Allow"), want: Allow, layer: LayerResource},
		{name: "cross: everybody is not enough", who: userOf(other, "bob"), resource: to(toAll, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "cross: own account in the resource policy does not help", who: userOf(other, "bob"), identity: allowDecrypt, resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerResource},
		{name: "cross: boundary limits even when named", who: userOf(other, "bob"), identity: allowDecrypt, boundary: allowEncrypt, resource: to(toOtherBob, "Allow"), want: ImplicitDeny, layer: LayerBoundary},
		{name: "cross: caller's deny", who: userOf(other, "bob"), identity: allowAll + "," + denyDecrypt, resource: to(toOtherBob, "Allow"), want: ExplicitDeny, layer: LayerIdentity},
		{name: "cross: root of the other account, account allowed", who: Principal{Type: Root, Account: other, ARN: "arn:aws:iam::" + other + ":root"}, resource: to(toOther, "Allow"), want: Allow, layer: LayerResource},
		{name: "cross: root of the other account", who: Principal{Type: Root, Account: other, ARN: "arn:aws:iam::" + other + ":root"}, want: ImplicitDeny, layer: LayerResource},
		{name: "cross: grant", who: userOf(other, "bob"), mode: ModeKMS, resource: to(toAccount, "Allow"), granted: true, want: Allow, layer: LayerGrant},
		{name: "cross: kms both", who: userOf(other, "bob"), mode: ModeKMS, identity: allowDecrypt, resource: to(toOther, "Allow"), want: Allow, layer: LayerResource},
		{name: "cross: kms key policy only", who: userOf(other, "bob"), mode: ModeKMS, resource: to(toOther, "Allow"), want: ImplicitDeny, layer: LayerIdentity},

		// KMS: the key policy is the gate.
		{name: "kms: identity only", who: user("bob"), mode: ModeKMS, identity: allowAll, want: ImplicitDeny, layer: LayerResource},
		{name: "kms: identity, key policy silent", who: user("bob"), mode: ModeKMS, identity: allowAll, resource: to(toFed, "Allow"), want: ImplicitDeny, layer: LayerResource},
		{name: "kms: identity and account", who: user("bob"), mode: ModeKMS, identity: allowDecrypt, resource: to(toAccount, "Allow"), want: Allow, layer: LayerIdentity},
		{name: "kms: account only", who: user("bob"), mode: ModeKMS, resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerIdentity},
		{name: "kms: key policy names user", who: user("bob"), mode: ModeKMS, resource: to(toBob, "Allow"), want: Allow, layer: LayerResource},
		{name: "kms: key policy names user, iam denies", who: user("bob"), mode: ModeKMS, identity: denyDecrypt, resource: to(toBob, "Allow"), want: ExplicitDeny, layer: LayerIdentity},
		{name: "kms: key policy names role, boundary does not allow", who: role("Ops", "s1"), mode: ModeKMS, boundary: allowEncrypt, resource: to(toRole, "Allow"), want: ImplicitDeny, layer: LayerBoundary},
		{name: "kms: key policy names session", who: role("Ops", "s1"), mode: ModeKMS, boundary: allowEncrypt, session: allowEncrypt, resource: to(toSession, "Allow"), want: Allow, layer: LayerResource},
		{name: "kms: root has no right of its own", who: root(), mode: ModeKMS, identity: allowAll, resource: to(toBob, "Allow"), want: ImplicitDeny, layer: LayerResource},
		{name: "kms: root by the account statement", who: root(), mode: ModeKMS, resource: to(toAccount, "Allow"), want: Allow, layer: LayerResource},
		{name: "kms: grant", who: user("bob"), mode: ModeKMS, resource: to(toFed, "Allow"), granted: true, want: Allow, layer: LayerGrant},
		{name: "kms: grant and identity deny", who: user("bob"), mode: ModeKMS, identity: denyDecrypt, granted: true, want: ExplicitDeny, layer: LayerIdentity},
		{name: "kms: grant and key policy deny", who: user("bob"), mode: ModeKMS, resource: to(toAll, "Deny"), granted: true, want: ExplicitDeny, layer: LayerResource},
		{name: "kms: grant and SCP", who: user("bob"), mode: ModeKMS, scp: []string{allowEncrypt}, granted: true, want: ImplicitDeny, layer: LayerServiceControl},
		{name: "kms: grant to the account, identity silent", who: user("bob"), mode: ModeKMS, resource: to(toFed, "Allow"), toAccount: true, want: ImplicitDeny, layer: LayerResource},
		{name: "kms: grant to the account, identity allows", who: user("bob"), mode: ModeKMS, identity: allowDecrypt, resource: to(toFed, "Allow"), toAccount: true, want: Allow, layer: LayerGrant},
		{name: "kms: grant to the account, session does not allow", who: role("Ops", "s1"), mode: ModeKMS, identity: allowDecrypt, session: allowEncrypt, resource: to(toFed, "Allow"), toAccount: true, want: ImplicitDeny, layer: LayerResource},
		{name: "kms: grant to the account, boundary does not allow", who: user("bob"), mode: ModeKMS, identity: allowDecrypt, boundary: allowEncrypt, toAccount: true, want: ImplicitDeny, layer: LayerResource},
		{name: "kms: grant to the account, root", who: root(), mode: ModeKMS, resource: to(toFed, "Allow"), toAccount: true, want: Allow, layer: LayerGrant},
		{name: "kms: grant to a service", who: service("ec2"), mode: ModeKMS, resource: to(toAccount, "Allow"), granted: true, want: Allow, layer: LayerGrant},
		{name: "kms: identity and account, boundary does not allow", who: user("bob"), mode: ModeKMS, identity: allowDecrypt, boundary: allowEncrypt, resource: to(toAccount, "Allow"), want: ImplicitDeny, layer: LayerBoundary},

		// Service control policies: each level must allow.
		{name: "scp allows at both levels", who: user("bob"), identity: allowDecrypt, scp: []string{allowAll, allowDecrypt}, want: Allow, layer: LayerIdentity},
		{name: "scp missing at one level", who: user("bob"), identity: allowDecrypt, scp: []string{allowAll, allowEncrypt}, want: ImplicitDeny, layer: LayerServiceControl},
		{name: "scp denies", who: user("bob"), identity: allowDecrypt, scp: []string{allowAll + "," + denyDecrypt}, want: ExplicitDeny, layer: LayerServiceControl},
		{name: "scp gives nothing", who: user("bob"), scp: []string{allowAll}, want: ImplicitDeny, layer: LayerIdentity},
	} {
		l := &Layers{Mode: c.mode, Scoped: c.scoped}
		if c.identity != "" {
			l.Identity = list(t, Identity, c.identity)
		}
		if c.boundary != "" {
			l.Boundary = src(t, Boundary, c.boundary)
		}
		if c.session != "" {
			l.Session = list(t, Session, c.session)
		}
		if c.resource != "" {
			l.Resource = src(t, ResourcePolicy, c.resource)
		}
		for _, s := range c.scp {
			l.ServiceControl = append(l.ServiceControl, list(t, Control, s))
		}
		if c.granted {
			l.Granted = func() (Grant, string) { return GrantCaller, "grant 0a1b" }
		}
		if c.toAccount {
			l.Granted = func() (Grant, string) { return GrantAccount, "grant 0a1b" }
		}
		r := &Request{Principal: c.who, Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: acct}
		got := Evaluate(r, l)
		if got.Effect != c.want || got.Layer != c.layer {
			t.Errorf("%s: Evaluate = %v by %v (%s), want %v by %v\n%v", c.name, got.Effect, got.Layer, got.Reason, c.want, c.layer, Explain(r, l, &got))
		}
		if got.Effect == Allow && got.Layer != LayerGrant && got.Layer != LayerRoot && len(got.Matched) == 0 {
			t.Errorf("%s: allowed by no statement", c.name)
		}
		for _, m := range got.Matched {
			if m.Statement == nil || m.Statement.Effect != got.Effect {
				t.Errorf("%s: %v matched by %+v", c.name, got.Effect, m)
			}
		}
	}
}

func TestTrust(t *testing.T) {
	assume := func(principal, more string) string {
		return `{"Effect":"Allow","Principal":` + principal + `,"Action":"sts:AssumeRole*"` + more + `}`
	}
	const roleARN = "arn:aws:iam::111122223333:role/Ops"
	mayAssume := `{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"` + roleARN + `"}`
	saml := Principal{Type: Provider, Provider: "arn:aws:iam::111122223333:saml-provider/corp"}
	oidc := Principal{Type: Provider, Provider: "accounts.google.com"}
	for _, c := range []struct {
		name     string
		who      Principal
		action   string
		identity string
		trust    string
		context  Context
		want     Effect
	}{
		{"identity without trust", user("bob"), "sts:AssumeRole", mayAssume, assume(toFed, ""), nil, ImplicitDeny},
		{"trust names user", user("bob"), "sts:AssumeRole", "", assume(toBob, ""), nil, Allow},
		{"trust names account", user("bob"), "sts:AssumeRole", "", assume(toAccount, ""), nil, ImplicitDeny},
		{"trust names account, identity allows", user("bob"), "sts:AssumeRole", mayAssume, assume(toAccount, ""), nil, Allow},
		{"trust names another account", userOf(other, "bob"), "sts:AssumeRole", mayAssume, assume(toOther, ""), nil, Allow},
		{"trust names another account's user, identity silent", userOf(other, "bob"), "sts:AssumeRole", "", assume(toOtherBob, ""), nil, ImplicitDeny},
		{"external ID right", userOf(other, "bob"), "sts:AssumeRole", mayAssume, assume(toOther, `,"Condition":{"StringEquals":{"sts:ExternalId":"12345"}}`), Context{"sts:ExternalId": {"12345"}}, Allow},
		{"external ID missing", userOf(other, "bob"), "sts:AssumeRole", mayAssume, assume(toOther, `,"Condition":{"StringEquals":{"sts:ExternalId":"12345"}}`), nil, ImplicitDeny},
		{"root", root(), "sts:AssumeRole", "", assume(toAccount, ""), nil, ImplicitDeny},
		{"role chain", role("Dev", "x"), "sts:AssumeRole", "", assume(`{"AWS":"arn:aws:iam::111122223333:role/Dev"}`, ""), nil, Allow},
		{"service", service("ec2"), "sts:AssumeRole", "", assume(`{"Service":"ec2.amazonaws.com"}`, ""), nil, Allow},
		{"saml", saml, "sts:AssumeRoleWithSAML", "", assume(`{"Federated":"arn:aws:iam::111122223333:saml-provider/corp"}`, ""), nil, Allow},
		{"another saml provider", saml, "sts:AssumeRoleWithSAML", "", assume(`{"Federated":"arn:aws:iam::111122223333:saml-provider/evil"}`, ""), nil, ImplicitDeny},
		{"oidc", oidc, "sts:AssumeRoleWithWebIdentity", "", assume(`{"Federated":"accounts.google.com"}`, `,"Condition":{"StringEquals":{"accounts.google.com:aud":"app"}}`), Context{"accounts.google.com:aud": {"app"}}, Allow},
		{"oidc for another app", oidc, "sts:AssumeRoleWithWebIdentity", "", assume(`{"Federated":"accounts.google.com"}`, `,"Condition":{"StringEquals":{"accounts.google.com:aud":"app"}}`), Context{"accounts.google.com:aud": {"evil"}}, ImplicitDeny},
	} {
		l := &Layers{Mode: ModeTrust, Resource: src(t, Trust, c.trust)}
		if c.identity != "" {
			l.Identity = list(t, Identity, c.identity)
		}
		r := &Request{Principal: c.who, Action: c.action, Resource: roleARN, ResourceAccount: acct, Context: c.context}
		if d := Evaluate(r, l); d.Effect != c.want {
			t.Errorf("%s: %v (%s), want %v\n%v", c.name, d.Effect, d.Reason, c.want, Explain(r, l, &d))
		}
	}
}

// TestMission evaluates the documents of MISSION.md and the default key policy.
func TestMission(t *testing.T) {
	l := &Layers{Mode: ModeKMS, Resource: &Source{ID: "key policy", Document: MustParse(keyPolicy, Key)}, Identity: []Source{{ID: "admin", Document: MustParse(missionPolicy, Identity)}}}
	for _, c := range []struct {
		who    string
		action string
		ctx    Context
		want   Effect
	}{
		{"admin", "kms:Decrypt", nil, Allow},
		{"admin", "kms:GenerateDataKeyWithoutPlaintext", nil, Allow},
		{"admin", "kms:generatedatakey", nil, Allow},
		{"admin", "kms:CreateGrant", nil, Allow}, // by IAM, through the account statement
		{"admin", "kms:ListGrants", nil, ImplicitDeny},
		{"admin", "kms:ListGrants", Context{"kms:GrantIsForAWSResource": {"true"}}, Allow},
		{"admin", "kms:ListGrants", Context{"kms:GrantIsForAWSResource": {"false"}}, ImplicitDeny},
		{"admin", "kms:PutKeyPolicy", nil, ImplicitDeny},
		{"bob", "kms:CreateGrant", nil, Allow},
		{"bob", "kms:Decrypt", nil, ImplicitDeny},
	} {
		r := &Request{Principal: user(c.who), Action: c.action, Resource: keyARN, ResourceAccount: acct, Context: c.ctx}
		if d := Evaluate(r, l); d.Effect != c.want {
			t.Errorf("%s %s %v: %v, want %v\n%v", c.who, c.action, c.ctx, d.Effect, c.want, Explain(r, l, &d))
		}
	}
	// The AWS managed key's policy: everybody of the account, through the service.
	managed := stmts(t, Key, `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":["kms:Decrypt","kms:CreateGrant"],"Resource":"*","Condition":{"StringEquals":{"kms:CallerAccount":"111122223333","kms:ViaService":"workspaces.us-west-2.amazonaws.com"}}}`)
	for _, c := range []struct {
		ctx  Context
		want Effect
	}{
		{Context{"kms:CallerAccount": {acct}, "kms:ViaService": {"workspaces.us-west-2.amazonaws.com"}}, Allow},
		{Context{"kms:CallerAccount": {acct}, "kms:ViaService": {"ec2.us-west-2.amazonaws.com"}}, ImplicitDeny},
		{Context{"kms:CallerAccount": {acct}}, ImplicitDeny},
		{Context{"kms:CallerAccount": {other}, "kms:ViaService": {"workspaces.us-west-2.amazonaws.com"}}, ImplicitDeny},
	} {
		d := Evaluate(&Request{Principal: user("bob"), Action: "kms:CreateGrant", Resource: keyARN, ResourceAccount: acct, Context: c.ctx}, &Layers{Mode: ModeKMS, Resource: &Source{Document: managed}})
		if d.Effect != c.want {
			t.Errorf("managed key, %v: %v, want %v", c.ctx, d.Effect, c.want)
		}
	}
}

func TestActionAndResource(t *testing.T) {
	const vol = "arn:aws:ec2:us-west-2:111122223333:volume/vol-1"
	for _, c := range []struct {
		statement, action, resource string
		want                        bool
	}{
		{`"Action":"kms:Decrypt","Resource":"*"`, "kms:Decrypt", keyARN, true},
		{`"Action":"KMS:DECRYPT","Resource":"*"`, "kms:Decrypt", keyARN, true},
		{`"Action":"kms:*","Resource":"*"`, "KMS:Decrypt", keyARN, true},
		{`"Action":"kms:De*","Resource":"*"`, "kms:DescribeKey", keyARN, true},
		{`"Action":"kms:*Key","Resource":"*"`, "kms:DescribeKey", keyARN, true},
		{`"Action":"kms:?escribe*y","Resource":"*"`, "kms:DescribeKey", keyARN, true},
		{`"Action":"kms:Decryp","Resource":"*"`, "kms:Decrypt", keyARN, false},
		{`"Action":"kms:Decrypt","Resource":"*"`, "kmsx:Decrypt", keyARN, false},
		{`"Action":"kms*","Resource":"*"`, "", "", false}, // refused by Parse, below
		{`"NotAction":"iam:*","Resource":"*"`, "kms:Decrypt", keyARN, true},
		{`"NotAction":["iam:*","kms:De*"],"Resource":"*"`, "kms:Decrypt", keyARN, false},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/*"`, "ec2:AttachVolume", vol, true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/vol-?"`, "ec2:AttachVolume", vol, true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:snapshot/*"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","Resource":"arn:aws:ec2:*:444455556666:*"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","Resource":"arn:aws-cn:ec2:*:*:*"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","Resource":"arn:aws:ec2:us-west-2:111122223333:volume/VOL-1"`, "ec2:AttachVolume", vol, false},
		// The fields that an ARN leaves out are any.
		{`"Action":"*","Resource":"arn:aws:ec2"`, "ec2:AttachVolume", vol, true},
		{`"Action":"*","Resource":"arn:aws:ec2:*"`, "ec2:AttachVolume", vol, true},
		{`"Action":"*","Resource":"arn:aws:ec2:us-west-2:*"`, "ec2:AttachVolume", vol, true},
		{`"Action":"*","Resource":"arn:aws:ec2:eu-west-1"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","Resource":"arn:aws:kms:*"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","NotResource":"arn:aws:ec2:*"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","NotResource":"arn:aws:ec2:*:*:volume/*"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","NotResource":"arn:aws:ec2:*:*:snapshot/*"`, "ec2:AttachVolume", vol, true},
		// An action without resources is asked on "*".
		{`"Action":"kms:ListKeys","Resource":"*"`, "kms:ListKeys", "*", true},
		{`"Action":"kms:ListKeys","Resource":"arn:aws:kms:*:*:*"`, "kms:ListKeys", "*", false},
		// Variables.
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:username}"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/bob", true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:username}/*"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/bob/x", true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:username}"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/eve", false},
		{`"Action":"*","Resource":"arn:aws:ec2:*:${aws:PrincipalAccount}:volume/*"`, "ec2:AttachVolume", vol, true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:PrincipalTag/team}"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/x", false},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:PrincipalTag/team, 'free'}"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/free", true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/a${*}b"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/a*b", true},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/a${*}b"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/axb", false},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${$}{x}${?}"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/${x}?", true},
		// A value with wildcards is literal: the tag "*" of the test's user is not everything.
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:PrincipalTag/star}"`, "ec2:AttachVolume", vol, false},
		{`"Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:PrincipalTag/STAR}"`, "ec2:AttachVolume", "arn:aws:ec2:us-west-2:111122223333:volume/*", true},
		// A missing variable in NotResource gives nothing.
		{`"Action":"*","NotResource":"arn:aws:ec2:*:*:volume/${aws:PrincipalTag/team}"`, "ec2:AttachVolume", vol, false},
	} {
		if c.action == "" {
			continue
		}
		p := user("bob")
		p.Tags = map[string]string{"star": "*"}
		d := stmts(t, Identity, `{"Effect":"Allow",`+c.statement+`}`)
		got := Evaluate(&Request{Principal: p, Action: c.action, Resource: c.resource}, &Layers{Identity: []Source{{Document: d}}})
		if got.Allowed() != c.want {
			t.Errorf("%s: %s on %s = %v, want %v", c.statement, c.action, c.resource, got.Allowed(), c.want)
		}
	}
	// In a Deny, a missing variable in NotResource denies.
	deny := stmts(t, Identity, allowAll+`,{"Effect":"Deny","Action":"*","NotResource":"arn:aws:ec2:*:*:volume/${aws:PrincipalTag/team}"}`)
	if d := Evaluate(&Request{Principal: user("bob"), Action: "ec2:AttachVolume", Resource: vol}, &Layers{Identity: []Source{{Document: deny}}}); d.Effect != ExplicitDeny {
		t.Errorf("Deny NotResource with a missing variable: %v, want explicitDeny", d.Effect)
	}
	// The 2008 language has no variables.
	old := MustParse(`{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:*:*:volume/${aws:username}"}}`, Identity)
	if d := Evaluate(&Request{Principal: user("bob"), Action: "ec2:X", Resource: "arn:aws:ec2:us-west-2:111122223333:volume/bob"}, &Layers{Identity: []Source{{Document: old}}}); d.Allowed() {
		t.Error("a document without Version expanded a policy variable")
	}
	if d := Evaluate(&Request{Principal: user("bob"), Action: "ec2:X", Resource: "arn:aws:ec2:us-west-2:111122223333:volume/${aws:username}"}, &Layers{Identity: []Source{{Document: old}}}); !d.Allowed() {
		t.Error("a document without Version does not take ${…} literally")
	}
}

func TestAliases(t *testing.T) {
	one := list(t, Identity, `{"Effect":"Allow","Action":"kms:ReEncryptFrom","Resource":"arn:aws:kms:*:*:alias/x"}`)
	r := &Request{Principal: user("bob"), Action: "kms:ReEncrypt", ActionAliases: []string{"kms:ReEncryptFrom"}, Resource: keyARN, ResourceAliases: []string{"arn:aws:kms:us-west-2:111122223333:alias/x"}}
	if d := Evaluate(r, &Layers{Identity: one}); !d.Allowed() {
		t.Errorf("by its aliases: %v, want allowed", d.Effect)
	}
	not := list(t, Identity, `{"Effect":"Allow","NotAction":"kms:ReEncryptFrom","Resource":"*"}`)
	if d := Evaluate(r, &Layers{Identity: not}); d.Allowed() {
		t.Error("NotAction with one of the action's names allows it")
	}
}

func BenchmarkDecrypt(b *testing.B) {
	l := &Layers{Mode: ModeKMS, Resource: &Source{ID: "key", Document: MustParse(keyPolicy, Key)},
		Identity: []Source{{ID: "a", Document: MustParse(missionPolicy, Identity)}, {ID: "b", Document: MustParse(decryptPolicy, Identity)}}}
	for _, c := range []struct {
		how, who string
		want     Effect
	}{{"byKeyPolicy", "admin", Allow}, {"byIAM", "bob", Allow}} {
		r := &Request{Principal: user(c.who), Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: acct, Context: Context{
			"kms:CallerAccount": {acct}, "kms:ViaService": {"ec2.us-west-2.amazonaws.com"}, "kms:KeySpec": {"SYMMETRIC_DEFAULT"}, "kms:KeyUsage": {"ENCRYPT_DECRYPT"},
			"kms:KeyOrigin": {"AWS_KMS"}, "kms:MultiRegion": {"false"}, "kms:EncryptionContext:aws:ebs:id": {"vol-1234abcd"}, "kms:EncryptionContextKeys": {"aws:ebs:id"},
			"aws:SourceIp": {"127.0.0.1"}, "aws:SecureTransport": {"true"}, "aws:UserAgent": {"x"}, "aws:RequestedRegion": {"us-west-2"}}}
		b.Run(c.how, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Evaluate(r, l); d.Effect != c.want {
					b.Fatal(d)
				}
			}
		})
	}
}

func BenchmarkParseKeyPolicy(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(keyPolicy)))
	for b.Loop() {
		if _, err := Parse([]byte(keyPolicy), Key); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEvaluateAllocates(t *testing.T) {
	l := &Layers{Mode: ModeKMS, Resource: &Source{Document: MustParse(keyPolicy, Key)}, Identity: []Source{{Document: MustParse(decryptPolicy, Identity)}}}
	r := &Request{Principal: user("bob"), Action: "kms:Decrypt", Resource: keyARN, ResourceAccount: acct}
	if n := testing.AllocsPerRun(100, func() { Evaluate(r, l) }); n > 1 {
		t.Errorf("Evaluate allocates %v times, want at most 1", n)
	}
}
