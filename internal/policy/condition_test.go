package policy

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// absent marks a key that the request does not have.
var absent = []string(nil)

// holds evaluates one condition: {op: {"x:k": want}} with x:k = got.
func holds(t testing.TB, op, want string, got []string, r *Request) bool {
	t.Helper()
	d := stmts(t, Identity, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{`+quote(op)+`:{"x:k":`+want+`}}}`)
	q := Request{Principal: user("bob"), Action: "x:Y", Resource: "*"}
	if r != nil {
		q = *r
	}
	q.Context = Context{"X:K": got}
	dec := Evaluate(&q, &Layers{Identity: []Source{{Document: d}}})
	return dec.Allowed()
}

func TestOperators(t *testing.T) {
	one := func(s string) []string { return []string{s} }
	for _, c := range []struct {
		op, want string
		got      []string
		holds    bool
	}{
		{"StringEquals", `"a"`, one("a"), true},
		{"StringEquals", `"a"`, one("A"), false},
		{"StringEquals", `["a","b"]`, one("b"), true},
		{"StringEquals", `"a*"`, one("ab"), false},
		{"StringEquals", `"a"`, absent, false},
		{"StringEquals", `[]`, one("a"), false},
		{"stringequals", `"a"`, one("a"), true},
		{"StringNotEquals", `"a"`, one("b"), true},
		{"StringNotEquals", `["a","b"]`, one("b"), false},
		{"StringNotEquals", `"a"`, absent, true},
		{"StringEqualsIgnoreCase", `"aÉ"`, one("Aé"), true},
		{"StringNotEqualsIgnoreCase", `"a"`, one("A"), false},
		{"StringNotEqualsIgnoreCase", `"a"`, absent, true},
		{"StringLike", `"a*c?"`, one("abbcd"), true},
		{"StringLike", `"a*c?"`, one("abbc"), false},
		{"StringLike", `"A*"`, one("ab"), false},
		{"StringLike", `"*"`, absent, false},
		{"StringNotLike", `"a*"`, one("b"), true},
		{"StringNotLike", `["b","a*"]`, one("ab"), false},
		{"StringNotLike", `"a*"`, absent, true},

		{"NumericEquals", `"5"`, one("5.0"), true},
		{"NumericEquals", `5`, one("5"), true},
		{"NumericEquals", `"9007199254740993"`, one("9007199254740992"), false}, // beyond a float's integers
		{"NumericEquals", `"5"`, one("five"), false},
		{"NumericNotEquals", `"5"`, one("6"), true},
		{"NumericNotEquals", `["5","6"]`, one("6"), false},
		{"NumericNotEquals", `"5"`, absent, true},
		{"NumericLessThan", `"10"`, one("9"), true},
		{"NumericLessThan", `"10"`, one("10"), false},
		{"NumericLessThanEquals", `"10"`, one("10"), true},
		{"NumericGreaterThan", `"1e1"`, one("10.5"), true},
		{"NumericGreaterThan", `"10"`, one("10"), false},
		{"NumericGreaterThanEquals", `"10"`, one("10"), true},
		{"NumericGreaterThanEquals", `"10"`, one("NaN"), false},
		{"NumericLessThan", `"10"`, absent, false},

		{"DateEquals", `"2026-01-31T00:00:00Z"`, one("2026-01-31"), true},
		{"DateEquals", `"2026-01-31T00:00:00Z"`, one("2026-01-31T01:00:00+01:00"), true},
		{"DateNotEquals", `"2026-01-31"`, one("2026-02-01"), true},
		{"DateNotEquals", `"2026-01-31"`, absent, true},
		{"DateLessThan", `"2026-01-31"`, one("2026-01-30T23:59:59.999Z"), true},
		{"DateLessThan", `"2026-01-31"`, one("1700000000"), true},
		{"DateLessThanEquals", `"2026-01-31"`, one("2026-01-31T00:00:00Z"), true},
		{"DateGreaterThan", `"1700000000"`, one("2026-01-31"), true},
		{"DateGreaterThan", `"2026"`, one("2026-01-01T00:00:01Z"), true},
		{"DateGreaterThanEquals", `"2026-01-31"`, one("2026-01-30"), false},
		// Forms beside RFC 3339 that IAM takes.
		{"DateEquals", `"2026-1-31t8:00:00.5+02"`, one("2026-01-31T06:00:00.500Z"), true},
		{"DateEquals", `"2026-01-31T08:00-0130"`, one("2026-01-31T09:30Z"), true},
		{"DateEquals", `"2026-01-31T08"`, one("20260131T080000Z"), true},
		{"DateGreaterThan", `"01T"`, one("2026-01-30"), true},
		{"DateEquals", `"2026-03-02"`, one("2026-02-30"), false},
		{"DateGreaterThan", `"2026-01-31"`, one("soon"), false},
		{"DateGreaterThan", `"2026-01-31"`, absent, false},

		{"Bool", `"true"`, one("true"), true},
		{"Bool", `true`, one("True"), true},
		{"Bool", `"true"`, one("false"), false},
		{"Bool", `"false"`, absent, false},
		{"BoolIfExists", `"false"`, absent, true},

		{"BinaryEquals", `"aGVsbG8="`, one("aGVsbG8="), true},
		{"BinaryEquals", `"aGVsbG8="`, one("aGVsbG9v"), false},
		{"BinaryEquals", `"aGVsbG8="`, absent, false},

		{"IpAddress", `"203.0.113.0/24"`, one("203.0.113.9"), true},
		{"IpAddress", `"203.0.113.0/24"`, one("203.0.114.9"), false},
		{"IpAddress", `"203.0.113.9"`, one("203.0.113.9"), true},
		{"IpAddress", `"203.0.113.0/24"`, one("::ffff:203.0.113.9"), true},
		{"IpAddress", `"0.0.0.0/0"`, one("2001:db8::1"), false},
		{"IpAddress", `["10.0.0.0/8","2001:db8::/32"]`, one("2001:db8::1"), true},
		{"IpAddress", `"203.0.113.0/24"`, one("workspaces.amazonaws.com"), false},
		{"IpAddress", `"203.0.113.0/24"`, absent, false},
		{"NotIpAddress", `"203.0.113.0/24"`, one("203.0.113.9"), false},
		{"NotIpAddress", `"203.0.113.0/24"`, one("10.0.0.1"), true},
		{"NotIpAddress", `"203.0.113.0/24"`, absent, true},

		{"ArnEquals", `"arn:aws:iam::111122223333:role/*"`, one("arn:aws:iam::111122223333:role/x"), true},
		{"ArnLike", `"arn:aws:iam::*:role/x"`, one("arn:aws:iam::111122223333:role/x"), true},
		{"ArnLike", `"arn:aws:*:*:*:x"`, one("arn:aws:iam::1:y:x"), false},
		{"ArnLike", `"arn:aws:iam::111122223333:role/x"`, one("arn:aws:iam::111122223333:role/X"), false},
		{"ArnLike", `"*"`, one("not an arn"), true},
		{"ArnLike", `"arn:*:*:*:*:*"`, one("not an arn"), false},
		{"ArnLike", `"arn:aws:iam::111122223333:role/*"`, absent, false},
		{"ArnNotEquals", `"arn:aws:iam::111122223333:role/x"`, one("arn:aws:iam::111122223333:role/y"), true},
		{"ArnNotLike", `"arn:aws:iam::111122223333:role/*"`, one("arn:aws:iam::111122223333:role/y"), false},
		{"ArnNotLike", `"arn:aws:iam::111122223333:role/*"`, absent, true},

		{"Null", `"true"`, absent, true},
		{"Null", `"true"`, one("x"), false},
		{"Null", `"false"`, one("x"), true},
		{"Null", `"false"`, absent, false},
		{"Null", `true`, []string{}, true},
		{"Null", `["true","false"]`, absent, true},

		{"StringEqualsIfExists", `"a"`, absent, true},
		{"StringEqualsIfExists", `"a"`, one("b"), false},
		{"StringNotEqualsIfExists", `"a"`, absent, true},
		{"IpAddressIfExists", `"10.0.0.0/8"`, absent, true},
		{"NumericLessThanIfExists", `"10"`, one("11"), false},
		{"ArnLikeIfExists", `"arn:aws:iam::111122223333:role/*"`, absent, true},

		// Set operators.
		{"ForAllValues:StringEquals", `["a","b"]`, []string{"a", "b"}, true},
		{"ForAllValues:StringEquals", `["a","b"]`, []string{"a"}, true},
		{"ForAllValues:StringEquals", `["a","b"]`, []string{"a", "c"}, false},
		{"ForAllValues:StringEquals", `["a","b"]`, absent, true},
		{"ForAllValues:StringEquals", `["a","b"]`, one(""), true},
		{"ForAllValues:StringEquals", `["a","b"]`, []string{"a", ""}, false},
		{"ForAllValues:StringLike", `"a*"`, []string{"ab", "ac"}, true},
		{"ForAllValues:StringNotEquals", `["a","b"]`, []string{"c", "d"}, true},
		{"ForAllValues:StringNotEquals", `["a","b"]`, []string{"c", "a"}, false},
		{"ForAllValues:StringNotEquals", `["a","b"]`, absent, true},
		{"ForAnyValue:StringEquals", `["a","b"]`, []string{"c", "b"}, true},
		{"ForAnyValue:StringEquals", `["a","b"]`, []string{"c", "d"}, false},
		{"ForAnyValue:StringEquals", `["a","b"]`, absent, false},
		{"ForAnyValue:StringLike", `"a*"`, []string{"b", "ab"}, true},
		{"ForAnyValue:StringNotEquals", `["a","b"]`, []string{"a", "c"}, true},
		{"ForAnyValue:StringNotEquals", `["a","b"]`, []string{"a", "b"}, false},
		{"ForAnyValue:StringNotEquals", `["a","b"]`, absent, false},
		{"ForAnyValue:StringEqualsIfExists", `"a"`, absent, true},
		{"ForAllValues:NumericLessThan", `"10"`, []string{"1", "9"}, true},
		{"ForAnyValue:IpAddress", `"10.0.0.0/8"`, []string{"192.0.2.1", "10.1.1.1"}, true},
		{"forallvalues:stringequals", `"a"`, one("a"), true},

		// A single-valued operator on several values: the positive holds when one
		// matches, the negated when none does.
		{"StringEquals", `"a"`, []string{"b", "a"}, true},
		{"StringNotEquals", `"a"`, []string{"b", "a"}, false},
		{"StringNotEquals", `"a"`, []string{"b", "c"}, true},
	} {
		if got := holds(t, c.op, c.want, c.got, nil); got != c.holds {
			t.Errorf("%s %s of %q = %v, want %v", c.op, c.want, c.got, got, c.holds)
		}
	}
}

func TestConditionsAreAnded(t *testing.T) {
	d := stmts(t, Identity, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"x:a":"1","x:b":"2"},"Bool":{"x:c":"true"}}}`)
	for _, c := range []struct {
		ctx  Context
		want bool
	}{
		{Context{"x:a": {"1"}, "x:b": {"2"}, "x:c": {"true"}}, true},
		{Context{"x:a": {"1"}, "x:b": {"2"}}, false},
		{Context{"x:a": {"1"}, "x:c": {"true"}}, false},
		{Context{"x:a": {"1"}, "x:b": {"3"}, "x:c": {"true"}}, false},
	} {
		if d := Evaluate(&Request{Action: "x:Y", Resource: "*", Context: c.ctx}, &Layers{Identity: []Source{{Document: d}}}); d.Allowed() != c.want {
			t.Errorf("%v: %v, want %v", c.ctx, d.Allowed(), c.want)
		}
	}
}

func TestVariablesInConditions(t *testing.T) {
	p := user("bob")
	p.Tags = map[string]string{"team": "blue", "glob": "*", "arn": "arn:aws:iam::111122223333:role/x"}
	r := &Request{Principal: p, Action: "x:Y", Resource: "*"}
	for _, c := range []struct {
		op, want, got string
		holds         bool
	}{
		{"StringEquals", `"${aws:username}"`, "bob", true},
		{"StringEquals", `"${aws:UserName}-home"`, "bob-home", true},
		{"StringEquals", `"${aws:PrincipalTag/team}"`, "blue", true},
		{"StringEquals", `"${aws:PrincipalTag/none}"`, "", false},
		{"StringNotEquals", `"${aws:PrincipalTag/none}"`, "x", true},
		{"StringEquals", `"${aws:PrincipalTag/none, 'red'}"`, "red", true},
		{"StringEquals", `"${aws:PrincipalTag/none,'re}d'}"`, "re}d", true},
		{"StringEquals", `"${aws:PrincipalTag/team, 'red'}"`, "red", false},
		{"StringLike", `"${aws:PrincipalTag/team}*"`, "blueish", true},
		{"StringLike", `"${aws:PrincipalTag/glob}"`, "anything", false},
		{"StringLike", `"${aws:PrincipalTag/glob}"`, "*", true},
		{"StringLike", `"a${*}*"`, "a*bc", true},
		{"StringLike", `"a${*}*"`, "abc", false},
		{"StringEquals", `"${$}"`, "$", true},
		{"StringEqualsIgnoreCase", `"${aws:username}"`, "BOB", true},
		{"ArnLike", `"arn:aws:iam::${aws:PrincipalAccount}:role/*"`, "arn:aws:iam::111122223333:role/x", true},
		{"ArnLike", `"arn:aws:iam::${aws:PrincipalAccount}:role/*"`, "arn:aws:iam::444455556666:role/x", false},
		{"ArnEquals", `"${aws:PrincipalTag/arn}"`, "arn:aws:iam::111122223333:role/x", true},
		{"ArnEquals", `"${aws:PrincipalTag/arn}"`, "arn:aws:iam::111122223333:role/y", false},
		// A variable that names the key itself, multi-valued keys have no single value.
		{"StringEquals", `"${x:k}"`, "whatever", true},
	} {
		if got := holds(t, c.op, c.want, []string{c.got}, r); got != c.holds {
			t.Errorf("%s %s of %q = %v, want %v", c.op, c.want, c.got, got, c.holds)
		}
	}
	if holds(t, "StringEquals", `"${x:k}"`, []string{"a", "b"}, r) {
		t.Error("a multi-valued key was used as a policy variable")
	}
}

func TestDerivedKeys(t *testing.T) {
	when := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	tagged := user("bob")
	tagged.Tags = map[string]string{"Team": "blue"}
	for _, c := range []struct {
		who  Principal
		key  string
		want string // "" for absent
	}{
		{user("bob"), "aws:username", "bob"},
		{user("bob"), "AWS:USERID", "AIDA0123456789ABCDEF"},
		{user("bob"), "aws:PrincipalArn", "arn:aws:iam::111122223333:user/bob"},
		{user("bob"), "aws:PrincipalType", "User"},
		{user("bob"), "aws:PrincipalAccount", acct},
		{user("bob"), "aws:PrincipalIsAWSService", "false"},
		{user("bob"), "aws:PrincipalServiceName", ""},
		{tagged, "aws:PrincipalTag/team", "blue"},
		{role("Ops", "s1"), "aws:PrincipalArn", "arn:aws:iam::111122223333:role/Ops"},
		{role("Ops", "s1"), "aws:userid", "AROA0123456789ABCDEF:s1"},
		{role("Ops", "s1"), "aws:username", ""},
		{role("Ops", "s1"), "aws:PrincipalType", "AssumedRole"},
		{root(), "aws:PrincipalArn", "arn:aws:iam::111122223333:root"},
		{root(), "aws:PrincipalType", "Account"},
		{federated("fred"), "aws:PrincipalType", "FederatedUser"},
		{federated("fred"), "aws:PrincipalArn", "arn:aws:sts::111122223333:federated-user/fred"},
		{service("ec2"), "aws:PrincipalIsAWSService", "true"},
		{service("ec2"), "aws:PrincipalServiceName", "ec2.amazonaws.com"},
		{service("ec2"), "aws:PrincipalArn", ""},
		{service("ec2"), "aws:PrincipalAccount", ""},
		{Principal{}, "aws:PrincipalAccount", ""},
		{user("bob"), "aws:ResourceAccount", other},
		{user("bob"), "aws:CurrentTime", "2026-01-31T12:00:00Z"},
		{user("bob"), "aws:EpochTime", "1769860800"},
		{user("bob"), "aws:CalledViaFirst", "workspaces.amazonaws.com"},
		{user("bob"), "aws:CalledViaLast", "ec2.amazonaws.com"},
		{user("bob"), "aws:ViaAWSService", "true"},
	} {
		r := &Request{Principal: c.who, Action: "x:Y", ResourceAccount: other, Time: when, CalledVia: []string{"workspaces.amazonaws.com", "ec2.amazonaws.com"}}
		k := makeKey(c.key)
		v, ok := newEnv(r, &Layers{}).lookup(&k)
		if ok != (c.want != "") || ok && v.at(0) != c.want {
			t.Errorf("%s of %s = %q (%v), want %q", c.key, c.who.ARN, v.all(), ok, c.want)
		}
		r.Context = Context{strings.ToUpper(c.key): {"given"}}
		if v, ok := newEnv(r, &Layers{}).lookup(&k); !ok || v.at(0) != "given" {
			t.Errorf("%s: the context does not override", c.key)
		}
	}
}

// The negated operators are the negation, whatever the values, present or not.
func TestNegationIsNegation(t *testing.T) {
	pairs := [][2]string{{"StringEquals", "StringNotEquals"}, {"StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"}, {"StringLike", "StringNotLike"},
		{"NumericEquals", "NumericNotEquals"}, {"DateEquals", "DateNotEquals"}, {"IpAddress", "NotIpAddress"}, {"ArnLike", "ArnNotLike"}, {"ArnEquals", "ArnNotEquals"}}
	literals := map[string][]string{
		"S": {"a", "b", "A", "a*", ""}, "N": {"1", "2", "1.0", "-3"}, "D": {"2026-01-31", "2026-01-31T00:00:00Z", "1700000000"},
		"I": {"10.0.0.0/8", "10.1.2.3", "2001:db8::/32"}, "A": {"arn:aws:iam::111122223333:role/x", "arn:aws:iam::*:role/*", "*"},
	}
	rapid.Check(t, func(rt *rapid.T) {
		pair := rapid.SampledFrom(pairs).Draw(rt, "pair")
		pool := literals[pair[0][:1]]
		want := quote(rapid.SliceOfN(rapid.SampledFrom(pool), 1, 3).Draw(rt, "want"))
		got := rapid.SliceOfN(rapid.SampledFrom(append([]string{"x", "10.1.2.3", "arn:aws:iam::111122223333:role/x"}, pool...)), 0, 3).Draw(rt, "got")
		if holds(t, pair[0], want, got, nil) == holds(t, pair[1], want, got, nil) {
			rt.Fatalf("%v %s of %q: both or neither hold", pair, want, got)
		}
		// ForAnyValue of the operator is the negation of ForAllValues of its opposite.
		if holds(t, "ForAnyValue:"+pair[0], want, got, nil) == holds(t, "ForAllValues:"+pair[1], want, got, nil) {
			rt.Fatalf("ForAnyValue:%s and ForAllValues:%s %s of %q: both or neither hold", pair[0], pair[1], want, got)
		}
		// IfExists changes nothing for a key that is there.
		if len(got) > 0 && holds(t, pair[0]+"IfExists", want, got, nil) != holds(t, pair[0], want, got, nil) {
			rt.Fatalf("%sIfExists %s of %q differs", pair[0], want, got)
		}
	})
}

// Keys that differ by case only give the same answer every time.
func TestCaseCollisionIsDeterministic(t *testing.T) {
	d := stmts(t, Identity, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/TEAM":"a"}}}`)
	for range 50 {
		r := &Request{Action: "x:Y", Resource: "*", Context: Context{"aws:ResourceTag/Team": {"a"}, "aws:ResourceTag/team": {"b"}}}
		if dec := Evaluate(r, &Layers{Identity: []Source{{Document: d}}}); !dec.Allowed() {
			t.Fatal("the alphabetically first of two keys was not taken")
		}
	}
}
