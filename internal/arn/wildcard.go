package arn

import (
	"strings"
	"unicode/utf8"
)

// Wildcard is a compiled pattern: * stands for any number of characters, ? for
// exactly one, everything else for itself. The zero Wildcard matches "" only.
// A Wildcard is immutable and may be shared.
//
// The pattern is cut at its stars. The first piece must begin the string, the
// last must end it, and each piece between is looked for from left to right after
// the one before; taking the leftmost place is always right, so nothing is
// ever tried twice. A piece with ? is looked for with the Shift-And algorithm
// (Baeza-Yates and Gonnet, 1992), 64 characters of pattern a step.
type Wildcard struct {
	kind   kind
	text   string // the pattern of a literal, the piece of a prefix or suffix
	pieces []piece
}

type kind uint8

const (
	literal kind = iota // text
	all                 // *
	prefix              // text*
	suffix              // *text
	general
)

// piece is what stands between two stars.
type piece struct {
	text  string // when it has no ?
	runes []rune // when it has; anyChar is the ?
}

const anyChar = rune(-1)

// Part is a part of a pattern whose characters are either all literal or a pattern.
type Part struct {
	Text    string
	Literal bool // * and ? in Text stand for themselves
}

// CompileWildcard compiles a pattern. Every string is one.
func CompileWildcard(pattern string) Wildcard {
	if strings.IndexByte(pattern, '?') < 0 {
		switch i := strings.IndexByte(pattern, '*'); {
		case i < 0:
			return Wildcard{text: pattern}
		case pattern == "*":
			return Wildcard{kind: all}
		case i == len(pattern)-1:
			return Wildcard{kind: prefix, text: pattern[:i]}
		case i == 0 && strings.IndexByte(pattern[1:], '*') < 0:
			return Wildcard{kind: suffix, text: pattern[1:]}
		}
	}
	return CompileParts(Part{Text: pattern})
}

// CompileParts compiles a pattern given in parts, as after the expansion of
// policy variables, whose values are literal.
func CompileParts(parts ...Part) Wildcard {
	var pieces []piece
	var cur []rune
	question, star := false, false
	flush := func() {
		if question {
			pieces = append(pieces, piece{runes: cur})
		} else {
			pieces = append(pieces, piece{text: runesToString(cur)})
		}
		cur, question = nil, false
	}
	for _, p := range parts {
		for i := 0; i < len(p.Text); {
			r, n := utf8.DecodeRuneInString(p.Text[i:])
			if r == utf8.RuneError && n == 1 {
				r = invalid + rune(p.Text[i]) // keep a byte that is no UTF-8 apart from every character
			}
			i += n
			switch {
			case p.Literal || r != '*' && r != '?':
				cur = append(cur, r)
			case r == '?':
				cur = append(cur, anyChar)
				question = true
			default:
				if !star || len(cur) > 0 || len(pieces) == 0 {
					if star && len(cur) == 0 {
						continue // ** is *
					}
					flush()
				}
				star = true
			}
		}
	}
	flush()
	if len(pieces) == 1 && pieces[0].runes == nil {
		return Wildcard{text: pieces[0].text}
	}
	if len(pieces) == 2 && pieces[0].runes == nil && pieces[1].runes == nil {
		switch {
		case pieces[0].text == "" && pieces[1].text == "":
			return Wildcard{kind: all}
		case pieces[1].text == "":
			return Wildcard{kind: prefix, text: pieces[0].text}
		case pieces[0].text == "":
			return Wildcard{kind: suffix, text: pieces[1].text}
		}
	}
	return Wildcard{kind: general, pieces: pieces}
}

// invalid is where the bytes that are no UTF-8 are put, above all characters.
const invalid = rune(utf8.MaxRune + 1)

func runesToString(rs []rune) string {
	var b strings.Builder
	for _, r := range rs {
		if r >= invalid {
			b.WriteByte(byte(r - invalid))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// All tells whether the pattern is *.
func (w *Wildcard) All() bool { return w.kind == all }

// Literal tells whether the pattern matches one string only.
func (w *Wildcard) Literal() bool { return w.kind == literal }

// Match tells whether the whole of s matches.
func (w Wildcard) Match(s string) bool { return w.MatchString(s) }

// MatchString is Match without copying the pattern.
func (w *Wildcard) MatchString(s string) bool {
	switch w.kind {
	case literal:
		return s == w.text
	case all:
		return true
	case prefix:
		return strings.HasPrefix(s, w.text)
	case suffix:
		return strings.HasSuffix(s, w.text)
	}
	first, last := &w.pieces[0], &w.pieces[len(w.pieces)-1]
	n, ok := first.prefixOf(s)
	if !ok {
		return false
	}
	s = s[n:]
	if len(w.pieces) == 1 {
		return s == ""
	}
	n, ok = last.suffixOf(s)
	if !ok {
		return false
	}
	s = s[:len(s)-n]
	for i := 1; i < len(w.pieces)-1; i++ {
		end := w.pieces[i].find(s)
		if end < 0 {
			return false
		}
		s = s[end:]
	}
	return true
}

// decode is the first character of s and its length in bytes.
func decode(s string) (rune, int) {
	if s[0] < utf8.RuneSelf {
		return rune(s[0]), 1
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return invalid + rune(s[0]), 1
	}
	return r, n
}

// prefixOf is the length in bytes of the piece at the beginning of s.
func (p *piece) prefixOf(s string) (int, bool) {
	if p.runes == nil {
		return len(p.text), strings.HasPrefix(s, p.text)
	}
	at := 0
	for _, want := range p.runes {
		if at == len(s) {
			return 0, false
		}
		r, n := decode(s[at:])
		if want != anyChar && want != r {
			return 0, false
		}
		at += n
	}
	return at, true
}

// suffixOf is the length in bytes of the piece at the end of s.
func (p *piece) suffixOf(s string) (int, bool) {
	if p.runes == nil {
		return len(p.text), strings.HasSuffix(s, p.text)
	}
	// Characters are counted from the front, so that bytes that are no UTF-8 fall
	// the same way whichever end is looked at.
	count := 0
	for i := 0; i < len(s); count++ {
		_, n := decode(s[i:])
		i += n
	}
	skip := count - len(p.runes)
	if skip < 0 {
		return 0, false
	}
	at := 0
	for range skip {
		_, n := decode(s[at:])
		at += n
	}
	n, ok := p.prefixOf(s[at:])
	return n, ok
}

// find is the offset just behind the leftmost place of the piece in s, or -1.
func (p *piece) find(s string) int {
	if p.runes == nil {
		i := strings.Index(s, p.text)
		if i < 0 {
			return -1
		}
		return i + len(p.text)
	}
	// Shift-And: bit j of state is set when the last j+1 characters match the
	// first j+1 of the piece.
	words := (len(p.runes) + 63) / 64
	state := make([]uint64, words)
	masks := map[rune][]uint64{}
	wild := make([]uint64, words)
	for i, r := range p.runes {
		if r == anyChar {
			wild[i/64] |= 1 << (i % 64)
			continue
		}
		m := masks[r]
		if m == nil {
			m = make([]uint64, words)
			masks[r] = m
		}
		m[i/64] |= 1 << (i % 64)
	}
	goal := uint64(1) << ((len(p.runes) - 1) % 64)
	for at := 0; at < len(s); {
		r, n := decode(s[at:])
		at += n
		m := masks[r]
		carry := uint64(1)
		for j := range state {
			next := state[j] >> 63
			mask := wild[j]
			if m != nil {
				mask |= m[j]
			}
			state[j] = (state[j]<<1 | carry) & mask
			carry = next
		}
		if state[words-1]&goal != 0 {
			return at
		}
	}
	return -1
}
