package kms

import (
	"encoding/base64"
	"strings"

	"github.com/sealdesk/sealdesk/internal/api"
)

// page walks an ordered list. A marker is base64url of "1 NUL operation NUL
// account/region NUL last key"; one that was made for another list is refused.
type page struct {
	prefix, after string // after: table key to go on from
	head          string
	limit, n      int
	last          string
	truncated     bool
}

// newPage starts where the marker says. prefix is what every key of this list
// begins with.
func newPage(c *api.Call, operation, prefix string, limit *int32, normal, most int, marker *string) (*page, error) {
	p := &page{prefix: prefix, head: "1\x00" + operation + "\x00" + c.Account + "/" + c.Region + "\x00", limit: normal}
	if limit != nil {
		if *limit < 1 || int(*limit) > most {
			return nil, errValidation("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and %d", *limit, most)
		}
		p.limit = int(*limit)
	}
	if marker != nil {
		b, err := base64.RawURLEncoding.DecodeString(*marker)
		if err != nil {
			return nil, errMarker()
		}
		after, ok := strings.CutPrefix(string(b), p.head)
		if !ok || after == "" || !strings.HasPrefix(after, prefix) {
			return nil, errMarker()
		}
		p.after = after
	}
	return p, nil
}

// more tells whether the item under key still fits on the page.
func (p *page) more(key string) bool {
	if p.n == p.limit {
		p.truncated = true
		return false
	}
	p.n++
	p.last = key
	return true
}

func (p *page) next() (marker *string, truncated bool) {
	if !p.truncated {
		return nil, false
	}
	return ptr(base64.RawURLEncoding.EncodeToString([]byte(p.head + p.last))), true
}
