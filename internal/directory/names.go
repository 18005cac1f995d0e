package directory

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// firstRID is the first relative ID given to a created object; those below
// belong to what comes with a domain.
const firstRID = 1103

// newDomainSID draws a domain's SID. Source: MS-DTYP section 2.4.2.4, S-1-5-21.
func newDomainSID() string {
	var b [12]byte
	_, _ = rand.Read(b[:])                                                       // never fails (Go 1.24)
	n := func(i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) | 1<<28 } // never a short number
	return fmt.Sprintf("S-1-5-21-%d-%d-%d", n(0), n(4), n(8))
}

// checkUserName checks a user's sAMAccountName. Source: Microsoft, "SAM-Account-Name
// attribute" and "Naming conventions in Active Directory"; ds-data API, UserName.
func checkUserName(s string) error {
	if len(s) > 20 {
		return errors.New("a user name has at most 20 characters")
	}
	for _, r := range s {
		if r != '_' && r != '-' && r != '.' && (r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r)) {
			return fmt.Errorf("a user name has letters, digits, '_', '-' and '.' only, not %q", r)
		}
	}
	return checkName(s)
}

// checkGroupName checks a group's sAMAccountName.
func checkGroupName(s string) error {
	if utf8.RuneCountInString(s) > 64 {
		return errors.New("a group name has at most 64 characters")
	}
	if i := strings.IndexAny(s, `:;|=+"*?<>/\,[]@`); i >= 0 {
		return fmt.Errorf("a group name cannot have %q in it", s[i])
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("a group name cannot have %q in it", r)
		}
	}
	return checkName(s)
}

func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("a name cannot be empty")
	case !utf8.ValidString(s):
		return errors.New("a name must be UTF-8")
	case strings.Trim(s, ". ") == "":
		return errors.New("a name cannot consist of periods and spaces only")
	case strings.HasSuffix(s, "."):
		return errors.New("a name cannot end with a period")
	case strings.TrimSpace(s) != s:
		return errors.New("a name cannot begin or end with a space")
	}
	return nil
}

// checkDomainName checks a directory's DNS name.
func checkDomainName(s string) error {
	labels := strings.Split(s, ".")
	if len(labels) < 2 || len(s) > 64 {
		return fmt.Errorf("%q is no fully qualified domain name of at most 64 characters, such as corp.example.com", s)
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") {
			return fmt.Errorf("%q is no domain name: the label %q", s, l)
		}
		for _, r := range l {
			if r != '-' && (r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r)) {
				return fmt.Errorf("%q is no domain name: %q in it", s, r)
			}
		}
	}
	return nil
}

// checkShortName checks a NetBIOS name.
func checkShortName(s string) error {
	if s == "" || len(s) > 15 || strings.ContainsAny(s, `\/:*?"<>|. `) || strings.HasPrefix(s, "-") {
		return fmt.Errorf("%q is no NetBIOS name: 1 to 15 characters, none of \\ / : * ? \" < > | . and space", s)
	}
	return nil
}

// shortNameOf is the NetBIOS name when none was given: the first label.
func shortNameOf(domain string) string {
	s, _, _ := strings.Cut(domain, ".")
	return strings.ToUpper(s[:min(len(s), 15)])
}

// checkPassword checks the rules that both AWS (CreateDirectory, Password) and
// Active Directory ("Password must meet complexity requirements") name: 8 to 64
// characters of three of four kinds, without the user's name in it.
func checkPassword(password string, names ...string) error {
	n := utf8.RuneCountInString(password)
	if n < 8 || n > 64 {
		return fmt.Errorf("a password has 8 to 64 characters, this one %d", n)
	}
	var lower, upper, digit, other int
	for _, r := range password {
		switch {
		case unicode.IsLower(r):
			lower = 1
		case unicode.IsUpper(r):
			upper = 1
		case unicode.IsDigit(r):
			digit = 1
		case unicode.IsControl(r):
			return errors.New("a password cannot have control characters")
		default:
			other = 1
		}
	}
	if lower+upper+digit+other < 3 {
		return errors.New("a password needs characters of three of these kinds: lower-case letters, upper-case letters, digits, others")
	}
	folded := strings.ToLower(password)
	for _, name := range names {
		for _, part := range append(strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" ,.-_#\t", r) }), name) {
			if utf8.RuneCountInString(part) > 2 && strings.Contains(folded, strings.ToLower(part)) {
				return errors.New("a password cannot have the user's name, or a part of it, in it")
			}
		}
	}
	return nil
}
