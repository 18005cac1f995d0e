package wire

import (
	"regexp"
	"strconv"
	"strings"
)

// matches tells whether a string satisfies the shape's pattern as a whole.
func (sh *shape) matches(s string) bool {
	sh.patternOne.Do(func() {
		m, err := compilePattern(sh.pattern)
		if err != nil {
			// TestTables compiles every pattern of every table.
			m = func(string) bool { return true }
		}
		sh.match = m
	})
	return sh.match(s)
}

var (
	reUnicode = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)
	reNested  = regexp.MustCompile(`(\{\d+\})\{0,\d*\}`) // rbin: a repetition of a repetition, meant as a length
	reRepeat  = regexp.MustCompile(`\{(\d+)(,?)(\d*)\}`)
)

// compilePattern turns an expression of a model, which is Java's, into a
// predicate: \uXXXX escapes become \x{XXXX}, a surrogate range becomes the supplementary
// planes, Java's own classes become RE2's, and repetition above RE2's limit of 1000 is left open
// (the length constraint of the shape bounds it), as is the repetition of a repetition. Patterns that look ahead,
// which RE2 cannot, are taken apart in lookahead.
func compilePattern(p string) (func(string) bool, error) {
	if m, ok := lookahead[p]; ok {
		return m, nil
	}
	if rest, ok := strings.CutPrefix(p, "^(?=.{20,2048}$)"); ok {
		re, err := compile(rest)
		if err != nil {
			return nil, err
		}
		return func(s string) bool { return len(s) >= 20 && len(s) <= 2048 && re.MatchString(s) }, nil
	}
	re, err := compile(p)
	if err != nil {
		return nil, err
	}
	return re.MatchString, nil
}

func compile(p string) (*regexp.Regexp, error) {
	p = strings.NewReplacer(`\t`, "\t", `\n`, "\n", `\r`, "\r", `\p{LD}`, `[\p{L}\p{Nd}]`, `\p{Punct}`, `[[:punct:]]`).Replace(p)
	p = reRepeat.ReplaceAllStringFunc(p, func(r string) string {
		s := reRepeat.FindStringSubmatch(r)
		lo, _ := strconv.Atoi(s[1])
		hi, _ := strconv.Atoi(s[3])
		if lo <= 1000 && hi <= 1000 {
			return r
		}
		return "{" + strconv.Itoa(min(lo, 1000)) + ",}"
	})
	p = reNested.ReplaceAllString(p, `$1`)
	for _, surrogates := range []string{`\uD800\uDC00-\uDBFF\uDFFF`, `\ud800\udc00-\udbff\udfff`} {
		p = strings.ReplaceAll(p, surrogates, `\x{10000}-\x{10FFFF}`)
	}
	p = reUnicode.ReplaceAllString(p, `\x{$1}`)
	return regexp.Compile(`\A(?:` + p + `)\z`)
}

// lookahead has the patterns with assertions, each as what it says.
var lookahead = map[string]func(string) bool{
	// ds: not like a directory ID
	`^(?!D-|d-)([\da-zA-Z]+)([-]*[\da-zA-Z])*`: func() func(string) bool {
		re := regexp.MustCompile(`\A[\da-zA-Z]+(-*[\da-zA-Z])*\z`)
		return func(s string) bool {
			return !strings.HasPrefix(s, "D-") && !strings.HasPrefix(s, "d-") && re.MatchString(s)
		}
	}(),
	// ds: none of the characters that a SAM account name may not have
	`^(?!.*\\|.*"|.*\/|.*\[|.*\]|.*:|.*;|.*\||.*=|.*,|.*\+|.*\*|.*\?|.*<|.*>|.*@).*$`: func(s string) bool {
		return !strings.ContainsAny(s, "\\\"/[]:;|=,+*?<>@\n\r")
	},
	// ds: 8 to 64 characters of three kinds
	`(?=^.{8,64}$)((?=.*\d)(?=.*[A-Z])(?=.*[a-z])|(?=.*\d)(?=.*[^A-Za-z0-9\s])(?=.*[a-z])|(?=.*[^A-Za-z0-9\s])(?=.*[A-Z])(?=.*[a-z])|(?=.*\d)(?=.*[A-Z])(?=.*[^A-Za-z0-9\s]))^.*`: func(s string) bool {
		if n := stringLength(s); n < 8 || n > 64 || strings.ContainsAny(s, "\n\r") {
			return false
		}
		var lower, upper, digit, other int
		for _, r := range s {
			switch {
			case r >= 'a' && r <= 'z':
				lower = 1
			case r >= 'A' && r <= 'Z':
				upper = 1
			case r >= '0' && r <= '9':
				digit = 1
			case !strings.ContainsRune(" \t\n\v\f\r", r):
				other = 1
			}
		}
		return lower+upper+digit+other >= 3
	},
	// iam: no two hyphens in a row
	`^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`: func() func(string) bool {
		re := regexp.MustCompile(`\A[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\z`)
		return func(s string) bool { return re.MatchString(s) && !strings.Contains(s, "--") }
	}(),
}
