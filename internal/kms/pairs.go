package kms

import (
	"encoding/json"
	"sort"
)

// sortedPairs are the encryption context of a stored grant's constraint, sorted by name. They
// are stored as a JSON object; in memory they take a sixth of a map.
type sortedPairs []pair

type pair struct{ name, value string }

func pairsOf(m map[string]string) sortedPairs {
	if len(m) == 0 {
		return nil
	}
	p := make(sortedPairs, 0, len(m))
	for name, value := range m {
		p = append(p, pair{name, value})
	}
	sort.Slice(p, func(i, j int) bool { return p[i].name < p[j].name })
	return p
}

// asMap is a map of its own, nil for no pairs.
func (p sortedPairs) asMap() map[string]string {
	if len(p) == 0 {
		return nil
	}
	m := make(map[string]string, len(p))
	for _, x := range p {
		m[x.name] = x.value
	}
	return m
}

// MarshalJSON writes what it wrote when it was a map.
func (p sortedPairs) MarshalJSON() ([]byte, error) { return json.Marshal(p.asMap()) }

// UnmarshalJSON reads a JSON object.
func (p *sortedPairs) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*p = pairsOf(m)
	return nil
}
