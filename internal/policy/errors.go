package policy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Quotas on the size of documents. IAM counts the characters that are no white
// space; KMS counts bytes.
// Sources: IAM User Guide, "IAM and AWS STS quotas"; KMS Developer Guide,
// "Resource quotas"; STS API Reference, AssumeRole.
const (
	MaxManagedPolicy    = 6144   // a managed policy
	MaxUserInline       = 2048   // all inline policies of one user together
	MaxGroupInline      = 5120   // of one group
	MaxRoleInline       = 10240  // of one role
	MaxTrustPolicy      = 2048   // a role trust policy, by default
	MaxTrustPolicyLimit = 8192   // the most that trust policy quota can be raised to
	MaxSessionPolicy    = 2048   // plain text of inline and ARNs of managed session policies
	MaxKeyPolicy        = 32768  // bytes of a KMS key policy
	MaxDocument         = 131072 // bytes that Parse looks at: the models' limit for any document
)

// Size is the length of a document as IAM's quotas count it: characters without
// white space.
func Size(text string) int {
	n := 0
	for _, c := range text {
		if !unicode.IsSpace(c) {
			n++
		}
	}
	return n
}

// Position is a place in a document's text; both count from 1. Columns count
// characters.
type Position struct{ Line, Column int }

// positionAt is the place of the byte at offset pos.
func positionAt(text string, pos int) Position {
	pos = min(pos, len(text))
	before := text[:pos]
	p := Position{Line: 1 + strings.Count(before, "\n")}
	p.Column = 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return p
}

// ParseError says why a text is not a policy document. Services answer it as
// MalformedPolicyDocument (IAM, STS) or MalformedPolicyDocumentException (KMS),
// with Text as the message.
type ParseError struct {
	// Message is the sentence AWS answers and clients match on:
	// "Syntax errors in policy."
	Message string
	// Detail says what is wrong and what would be right; Position where.
	Detail string
	Position
}

// Text is the message for the client: AWS's sentence, then ours.
func (e *ParseError) Text() string {
	if e.Detail == "" {
		return fmt.Sprintf("%s (line %d, column %d)", e.Message, e.Line, e.Column)
	}
	return fmt.Sprintf("%s (line %d, column %d: %s)", e.Message, e.Line, e.Column, e.Detail)
}

// Error is the text with the error code in front.
func (e *ParseError) Error() string { return "MalformedPolicyDocument: " + e.Text() }

const (
	syntaxErrors  = "Syntax errors in policy."
	legacyParsing = "The policy failed legacy parsing"
)

// nearest is the word of list closest to word, for "did you mean", or "".
func nearest(word string, list []string) string {
	best, most := "", 3
	for _, w := range list {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < most {
			best, most = w, d
		}
	}
	return best
}

func distance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 99
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := last
			if a[i] != b[j] {
				d = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
