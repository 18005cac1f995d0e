package compute

import (
	"fmt"
	"strings"
)

// Key is a key of the keyboard by its QEMU QKeyCode name (QEMU QMP reference, "QKeyCode"): "a", "ret", "ctrl", "alt", "f4".
type Key string

// Chord is keys pressed together, in order, and released in reverse order.
type Chord []Key

// Keys that people need by name.
const (
	KeyCtrl  Key = "ctrl"
	KeyAlt   Key = "alt"
	KeyShift Key = "shift"
	KeyMeta  Key = "meta_l"
	KeyEnter Key = "ret"
	KeyTab   Key = "tab"
	KeyEsc   Key = "esc"
	KeyF4    Key = "f4"
)

// OpenTerminalChord opens a terminal on the desktops that images/ builds.
var OpenTerminalChord = Chord{KeyCtrl, KeyAlt, "t"}

var plainKeys = map[rune]Key{' ': "spc", '\n': "ret", '\t': "tab", '-': "minus", '=': "equal", '[': "bracket_left", ']': "bracket_right",
	';': "semicolon", '\'': "apostrophe", '`': "grave_accent", '\\': "backslash", ',': "comma", '.': "dot", '/': "slash"}

var shiftedKeys = map[rune]Key{'!': "1", '@': "2", '#': "3", '$': "4", '%': "5", '^': "6", '&': "7", '*': "8", '(': "9", ')': "0",
	'_': "minus", '+': "equal", '{': "bracket_left", '}': "bracket_right", ':': "semicolon", '"': "apostrophe", '~': "grave_accent",
	'|': "backslash", '<': "comma", '>': "dot", '?': "slash"}

// TextChords turns text into the chords that type it on a US keyboard. Printable ASCII, newline and tab only.
func TextChords(text string) ([]Chord, error) {
	out := make([]Chord, 0, len(text))
	for i, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			out = append(out, Chord{Key(string(r))})
		case r >= 'A' && r <= 'Z':
			out = append(out, Chord{KeyShift, Key(strings.ToLower(string(r)))})
		case plainKeys[r] != "":
			out = append(out, Chord{plainKeys[r]})
		case shiftedKeys[r] != "":
			out = append(out, Chord{KeyShift, shiftedKeys[r]})
		default:
			return nil, fmt.Errorf("character %q at byte %d of the text is not on a US keyboard", r, i)
		}
	}
	return out, nil
}

// ValidateChords refuses what could not be a key name, so that drivers can pass names on as they are.
func ValidateChords(chords []Chord) error {
	for _, c := range chords {
		if len(c) == 0 || len(c) > 8 {
			return fmt.Errorf("chord %q has %d keys, want 1 to 8", c, len(c))
		}
		for _, k := range c {
			if k == "" || len(k) > 32 || strings.Trim(string(k), "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
				return fmt.Errorf("key %q of chord %q is not a QKeyCode name", k, c)
			}
		}
	}
	return nil
}
