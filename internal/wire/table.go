package wire

import (
	"embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

//go:embed tables/*.txt
var tableFiles embed.FS

// A table is what the models say about one service: its operations, shapes
// and errors. It is parsed on first use of the service.
type table struct {
	ops    map[string]*OperationModel
	shapes map[string]*shape
	errors map[string]errorRow // by wire code
}

type errorRow struct {
	shape  string
	code   string
	status int
}

type shapeKind uint8

const (
	shapeScalar shapeKind = iota
	shapeStruct
	shapeList
	shapeMap
)

// A shape is one row T, V, L or H of a table. Strings point into the embedded
// file.
type shape struct {
	name      string
	kind      shapeKind
	members   map[string]*member // struct, by Go field name
	payload   string             // struct: member sent as the body
	elem, key string             // list, map: names of shapes
	item      string             // list: element name when not "item" or "member"
	typ       string             // scalar: the model's type
	min, max  string             // "" means none
	enum      string             // comma separated
	pattern   string
	sensitive bool

	minN, maxN float64
	patternOne sync.Once
	match      func(string) bool // of the pattern
}

type member struct {
	name     string // as in the model
	shape    string // "" when the shape says nothing
	required bool
	loc      byte   // h header, q query string, u label, s status code, 0 body
	locName  string // of the header, parameter, label; or the JSON name
	in, out  string // EC2 names where they differ from the rule
}

func (s *Service) table() *table {
	s.once.Do(func() {
		t, err := parseTable(s)
		if err != nil {
			panic(err) // an embedded file of ours is broken
		}
		s.tab = t
	})
	return s.tab
}

func parseTable(s *Service) (*table, error) {
	raw, err := tableFiles.ReadFile("tables/" + s.Name + ".txt")
	if err != nil {
		return nil, fmt.Errorf("read the table of %s: %w", s.Name, err)
	}
	text := string(raw)
	t := &table{
		ops:    make(map[string]*OperationModel, strings.Count(text, "\nO\t")),
		shapes: make(map[string]*shape, strings.Count(text, "\nT\t")+strings.Count(text, "\nV\t")),
		errors: map[string]errorRow{},
	}
	var current *shape
	var cols [8]string
	line := 0
	for text != "" {
		line++
		var row string
		row, text, _ = strings.Cut(text, "\n")
		if row == "" || row[0] == '#' {
			continue
		}
		n := 0
		for rest, more := row, true; more && n < len(cols); n++ {
			if n == len(cols)-1 {
				cols[n], more = rest, false
			} else {
				cols[n], rest, more = strings.Cut(rest, "\t")
			}
		}
		for i := n; i < len(cols); i++ {
			cols[i] = ""
		}
		switch cols[0] {
		case "O":
			code, err := strconv.Atoi(cols[6])
			if err != nil {
				return nil, fmt.Errorf("table of %s, line %d: status %q", s.Name, line, cols[6])
			}
			op := &OperationModel{Service: s, Name: cols[1], Method: cols[4], URI: cols[5], Status: code,
				NoAuth: cols[7] == "noauth", input: shapeName(cols[2]), output: shapeName(cols[3])}
			op.parseURI()
			t.ops[op.Name] = op
		case "E":
			status, err := strconv.Atoi(cols[3])
			if err != nil {
				return nil, fmt.Errorf("table of %s, line %d: status %q", s.Name, line, cols[3])
			}
			t.errors[cols[2]] = errorRow{shape: cols[1], code: cols[2], status: status}
		case "T":
			current = &shape{name: cols[1], kind: shapeStruct, payload: cols[2], members: map[string]*member{},
				sensitive: strings.Contains(cols[3], "s")}
			t.shapes[current.name] = current
		case "M":
			if current == nil {
				return nil, fmt.Errorf("table of %s, line %d: member outside of a structure", s.Name, line)
			}
			m := &member{name: cols[1], shape: shapeName(cols[2]), required: cols[3] == "r"}
			for bind := range strings.FieldsSeq(cols[4]) {
				kind, name, ok := strings.Cut(bind, ":")
				if !ok {
					return nil, fmt.Errorf("table of %s, line %d: binding %q", s.Name, line, bind)
				}
				switch kind {
				case "i":
					m.in = name
				case "o":
					m.out = name
				case "n":
					m.locName = name
				case "h", "q", "u", "s":
					m.loc, m.locName = kind[0], name
				default:
					return nil, fmt.Errorf("table of %s, line %d: binding %q", s.Name, line, bind)
				}
			}
			current.members[upperFirst(m.name)] = m
		case "L":
			t.shapes[cols[1]] = &shape{name: cols[1], kind: shapeList, elem: shapeName(cols[2]), min: cols[3], max: cols[4],
				sensitive: cols[5] != "", item: cols[6]}
		case "H":
			t.shapes[cols[1]] = &shape{name: cols[1], kind: shapeMap, key: shapeName(cols[2]), elem: shapeName(cols[3]),
				min: cols[4], max: cols[5], sensitive: cols[6] != ""}
		case "V":
			t.shapes[cols[1]] = &shape{name: cols[1], typ: cols[2], min: cols[3], max: cols[4], sensitive: cols[5] != "",
				enum: cols[6], pattern: cols[7]}
		default:
			return nil, fmt.Errorf("table of %s, line %d: row %q", s.Name, line, row)
		}
	}
	for _, sh := range t.shapes {
		for _, b := range []struct {
			text string
			n    *float64
		}{{sh.min, &sh.minN}, {sh.max, &sh.maxN}} {
			if b.text == "" {
				continue
			}
			if *b.n, err = strconv.ParseFloat(b.text, 64); err != nil {
				return nil, fmt.Errorf("table of %s, shape %s: bound %q", s.Name, sh.name, b.text)
			}
		}
	}
	return t, nil
}

func shapeName(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

// constrained tells whether the shape restricts values.
func (sh *shape) constrained() bool {
	return sh != nil && (sh.min != "" || sh.max != "" || sh.enum != "" || sh.pattern != "")
}

func upperFirst(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}

func lowerFirst(s string) string {
	if s == "" || s[0] < 'A' || s[0] > 'Z' {
		return s
	}
	return string(s[0]-'A'+'a') + s[1:]
}
