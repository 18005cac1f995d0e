package iam

import (
	"encoding/base64"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sealdesk/sealdesk/internal/store"
)

const (
	defaultItems = 100
	maxItems     = 1000
)

// page is one page of a list: what to skip and how much to return. A marker is
// base64 of "1", the operation and the key of the last item given, so that one
// operation's marker is refused by another.
type page struct {
	op    string
	after string
	left  int

	marker *string
	more   bool
}

func newPage(op string, marker *string, max *int32) (*page, error) {
	p := &page{op: op, left: defaultItems}
	if max != nil {
		if *max < 1 || *max > maxItems {
			return nil, validation("1 validation error detected: Value '%d' at 'maxItems' failed to satisfy constraint: Member must be between 1 and %d", *max, maxItems)
		}
		p.left = int(*max)
	}
	if marker != nil {
		raw, err := base64.RawURLEncoding.DecodeString(*marker)
		rest, ok := strings.CutPrefix(string(raw), "1\x00"+op+"\x00")
		if err != nil || !ok || rest == "" {
			return nil, validation("Invalid Marker.")
		}
		p.after = rest
	}
	return p, nil
}

// take says whether the item of that key goes on the page, in ascending order of
// keys; stop tells that the page is full and another item is there.
func (p *page) take(key string) (take, stop bool) {
	if key <= p.after {
		return false, false
	}
	if p.left == 0 {
		p.more = true
		p.marker = aws.String(base64.RawURLEncoding.EncodeToString([]byte("1\x00" + p.op + "\x00" + p.after)))
		return false, true
	}
	p.left--
	p.after = key
	return true, false
}

// scanPage lists a table's records under a prefix, those that keep accepts.
func scanPage[R, T any](tx *store.Tx, tab *store.Table[R], prefix string, p *page, keep func(*R) bool, show func(*R) T) []T {
	out := []T{}
	tab.Scan(tx, prefix, p.after, func(k string, r *R) bool {
		if keep != nil && !keep(r) {
			return true
		}
		take, stop := p.take(k)
		if take {
			out = append(out, show(r))
		}
		return !stop
	})
	return out
}

// slicePage cuts a page out of a list that is in ascending order of its keys.
func slicePage[T any](items []T, p *page, keyOf func(T) string) []T {
	out := []T{}
	for _, it := range items {
		take, stop := p.take(keyOf(it))
		if take {
			out = append(out, it)
		}
		if stop {
			break
		}
	}
	return out
}

func underPath(path string, prefix *string) bool {
	return prefix == nil || strings.HasPrefix(path, *prefix)
}
