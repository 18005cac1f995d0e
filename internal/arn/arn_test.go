package arn

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want ARN
	}{
		{"arn:aws:kms:us-west-2:111122223333:key/1234", ARN{"aws", "kms", "us-west-2", "111122223333", "key/1234"}},
		{"arn:aws-us-gov:iam::111122223333:user/a/b", ARN{"aws-us-gov", "iam", "", "111122223333", "user/a/b"}},
		{"arn:aws-cn:s3:::bucket/k:ey", ARN{"aws-cn", "s3", "", "", "bucket/k:ey"}},
		{"arn:aws:iam::aws:policy/AdministratorAccess", ARN{"aws", "iam", "", "aws", "policy/AdministratorAccess"}},
	} {
		got, err := Parse(c.in)
		if err != nil || got != c.want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", c.in, got, err, c.want)
		}
		if got.String() != c.in {
			t.Errorf("Parse(%q).String() = %q", c.in, got.String())
		}
	}
	for in, why := range map[string]string{
		"":                                "want arn:partition",
		"kms":                             "want arn:partition",
		"arn:aws:kms:us-west-2:1":         "want arn:partition",
		"arn:awz:kms::111122223333:key/1": `no partition "awz"`,
		"arn:aws:::111122223333:x":        "no service",
		"arn:aws:iam::111122223333:":      "no resource",
		"arn:aws:iam::11112222333:root":   "not 12 digits",
		"ARN:aws:iam::111122223333:root":  "want arn:partition",
	} {
		if got, err := Parse(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("Parse(%q) = %+v, %v, want an error with %q", in, got, err, why)
		}
	}
}

func TestTypeAndName(t *testing.T) {
	for _, c := range []struct{ resource, typ, name string }{
		{"key/1", "key", "1"}, {"user/a/b", "user", "a/b"}, {"root", "root", ""}, {"log-group:x:*", "log-group", "x:*"},
	} {
		a := ARN{Resource: c.resource}
		if a.Type() != c.typ || a.Name() != c.name {
			t.Errorf("%q: type %q, name %q, want %q, %q", c.resource, a.Type(), a.Name(), c.typ, c.name)
		}
	}
}

func TestMatch(t *testing.T) {
	const key = "arn:aws:kms:us-west-2:111122223333:key/1234abcd"
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", key, true},
		{key, key, true},
		{"arn:aws:kms:*:111122223333:key/*", key, true},
		{"arn:aws:kms:us-*-2:111122223333:key/????abcd", key, true},
		{"arn:*:kms:*:*:*", key, true},
		{"arn:aws:kms:*:*:alias/*", key, false},
		{"arn:aws:kms:*:key/*", key, false},              // too few fields
		{"arn:aws:*", key, false},                        // too few fields
		{"arn:aws:k*:key/1234abcd:a:b", key, false},      // * does not cross a colon
		{"arn:aws:s3:::b/*", "arn:aws:s3:::b/x:y", true}, // but in the last field it does
		{"arn:aws:kms:us-west-2:111122223333:KEY/1234abcd", key, false},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

// naive is the textbook definition of the pattern, by dynamic programming.
func naive(pattern, s []rune) bool {
	row := make([]bool, len(s)+1)
	row[0] = true
	for _, p := range pattern {
		next := make([]bool, len(s)+1)
		if p == '*' {
			next[0] = row[0]
		}
		for j := range s {
			switch p {
			case '*':
				next[j+1] = next[j] || row[j+1]
			case '?':
				next[j+1] = row[j]
			default:
				next[j+1] = row[j] && s[j] == p
			}
		}
		row = next
	}
	return row[len(s)]
}

func TestWildcard(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"**", "x", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "abc", true}, {"a*b*c", "aXbYc", true}, {"a*a", "a", false}, {"?", "é", true}, {"??", "é", false},
		{"*?*", "", false}, {"*?*", "x", true}, {"a?*?b", "a12b", true}, {"a?*?b", "a1b", false}, {"*aab", "aaab", true},
		{"kms:*Key*", "kms:GenerateDataKeyPair", true}, {"***a***", "bab", true}, {"?*", "", false}, {"*ab?d*", "xxabcdyy", true},
	} {
		if got := CompileWildcard(c.pattern).Match(c.s); got != c.want {
			t.Errorf("CompileWildcard(%q).Match(%q) = %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

func TestWildcardAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringOfN(rapid.RuneFrom([]rune("ab*?é:")), 0, 14, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.RuneFrom([]rune("abé:")), 0, 20, -1).Draw(t, "s")
		w := CompileWildcard(p)
		if got, want := w.Match(s), naive([]rune(p), []rune(s)); got != want {
			t.Fatalf("CompileWildcard(%q).Match(%q) = %v, want %v", p, s, got, want)
		}
		// The same pattern cut into parts is the same pattern.
		cut := rapid.IntRange(0, len(p)).Draw(t, "cut")
		for cut > 0 && cut < len(p) && p[cut]&0xc0 == 0x80 {
			cut--
		}
		parts := CompileParts(Part{Text: p[:cut]}, Part{Text: p[cut:]})
		if got, want := parts.Match(s), w.Match(s); got != want {
			t.Fatalf("%q cut at %d matches %q: %v, want %v", p, cut, s, got, want)
		}
	})
}

func TestLiteralPartsMatchThemselvesOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lit := rapid.StringOfN(rapid.RuneFrom([]rune("a*?")), 0, 6, -1).Draw(t, "literal")
		s := rapid.StringOfN(rapid.RuneFrom([]rune("a*?")), 0, 6, -1).Draw(t, "s")
		w := CompileParts(Part{Text: lit, Literal: true})
		if got, want := w.Match(s), s == lit; got != want {
			t.Fatalf("literal %q matches %q: %v, want %v", lit, s, got, want)
		}
	})
}

func TestLongPieceAcrossWords(t *testing.T) {
	piece := strings.Repeat("a?", 100) + "b"
	w := CompileWildcard("*" + piece + "*x")
	s := strings.Repeat("a", 500) + "b"
	if !w.Match(s + "-x") {
		t.Errorf("a piece of 201 characters was not found")
	}
	if w.Match(strings.Repeat("a", 500) + "-x") {
		t.Errorf("a piece of 201 characters was found where its last is missing")
	}
}

// Patterns that make backtracking matchers take forever must not.
func TestNoBlowup(t *testing.T) {
	s := strings.Repeat("a", 1<<16)
	for _, p := range []string{
		strings.Repeat("*a", 1000) + "*b", strings.Repeat("a*", 1000) + "b", "*" + strings.Repeat("a?", 500) + "b*c", strings.Repeat("*", 5000) + "b",
	} {
		start := time.Now()
		if CompileWildcard(p).Match(s) {
			t.Errorf("%.20q… matches", p)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%.20q… took %v", p, d)
		}
	}
}

func FuzzWildcard(f *testing.F) {
	f.Add("a*b?c", "aXXbYc")
	f.Add("*\xff?", "é\xff\x80")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 64 || len(s) > 256 {
			return
		}
		w := CompileWildcard(p)
		if w.Match(s) && strings.Trim(p, "*") != "" && s == "" {
			t.Errorf("%q matches the empty string", p)
		}
		if !strings.ContainsAny(p, "*?") && w.Match(s) != (p == s) {
			t.Errorf("literal %q matches %q: %v", p, s, w.Match(s))
		}
		if strings.ToValidUTF8(p, "") == p && strings.ToValidUTF8(s, "") == s {
			if got, want := w.Match(s), naive([]rune(p), []rune(s)); got != want {
				t.Errorf("CompileWildcard(%q).Match(%q) = %v, want %v", p, s, got, want)
			}
		}
	})
}

func BenchmarkWildcard(b *testing.B) {
	w := CompileWildcard("arn:aws:kms:*:111122223333:key/*")
	b.ReportAllocs()
	for b.Loop() {
		if !w.MatchString("arn:aws:kms:us-west-2:111122223333:key/1234abcd") {
			b.Fatal("no match")
		}
	}
}
