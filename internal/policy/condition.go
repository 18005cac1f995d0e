package policy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/arn"
)

// operator is what a condition does with one value of the request and one of
// the document. The negated operators are the same with condition.negated.
type operator uint8

const (
	stringEquals operator = iota
	stringEqualsFold
	stringLike
	numericEquals
	numericLess
	numericLessEq
	numericGreater
	numericGreaterEq
	dateEquals
	dateLess
	dateLessEq
	dateGreater
	dateGreaterEq
	boolean
	binaryEquals
	ipAddress
	arnLike
	null
)

// operators by lower-case name.
// Source: IAM User Guide, "IAM JSON policy elements: Condition operators".
var operators = map[string]struct {
	op      operator
	negated bool
}{
	"stringequals": {stringEquals, false}, "stringnotequals": {stringEquals, true},
	"stringequalsignorecase": {stringEqualsFold, false}, "stringnotequalsignorecase": {stringEqualsFold, true},
	"stringlike": {stringLike, false}, "stringnotlike": {stringLike, true},
	"numericequals": {numericEquals, false}, "numericnotequals": {numericEquals, true},
	"numericlessthan": {numericLess, false}, "numericlessthanequals": {numericLessEq, false},
	"numericgreaterthan": {numericGreater, false}, "numericgreaterthanequals": {numericGreaterEq, false},
	"dateequals": {dateEquals, false}, "datenotequals": {dateEquals, true},
	"datelessthan": {dateLess, false}, "datelessthanequals": {dateLessEq, false},
	"dategreaterthan": {dateGreater, false}, "dategreaterthanequals": {dateGreaterEq, false},
	"bool": {boolean, false}, "binaryequals": {binaryEquals, false},
	"ipaddress": {ipAddress, false}, "notipaddress": {ipAddress, true},
	"arnequals": {arnLike, false}, "arnlike": {arnLike, false}, "arnnotequals": {arnLike, true}, "arnnotlike": {arnLike, true},
	"null": {null, false},
}

var operatorNames = []string{
	"StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike",
	"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals",
	"DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals",
	"Bool", "BinaryEquals", "IpAddress", "NotIpAddress", "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike", "Null",
}

// set is how a condition quantifies over the values of the request.
type set uint8

const (
	noSet set = iota
	forAny
	forAll
)

// condition is one key of one operator; all conditions of a statement must hold.
type condition struct {
	name     string // the operator as written
	op       operator
	negated  bool
	ifExists bool
	set      set
	key      keyRef
	want     []operand
}

// operand is one value in the document.
type operand struct {
	raw    string
	vars   *template
	glob   arn.Wildcard // stringLike
	fields *[6]operandField
	all    bool // arnLike: "*"
	num    number
	when   time.Time
	bytes  []byte
	prefix netip.Prefix
}

// operandField is a field of an ARN pattern.
type operandField struct {
	glob arn.Wildcard
	vars template
}

func (p *parser) condition(s *Statement, v *value) error {
	if err := p.want(v, isObject, "Condition"); err != nil {
		return err
	}
	for i := range v.members {
		m := &v.members[i]
		if !p.kind.hasPrincipal() && m.value.kind == isObject && len(m.value.members) == 0 {
			continue // IAM takes any name for an operator without keys
		}
		c, err := p.operator(m)
		if err != nil {
			return err
		}
		if err := p.want(&m.value, isObject, "the condition operator "+m.name); err != nil {
			return err
		}
		for j := range m.value.members {
			k := &m.value.members[j]
			one := c
			if err := p.conditionKey(s, &one, k); err != nil {
				return err
			}
			s.conditions = append(s.conditions, one)
		}
	}
	return nil
}

func (p *parser) operator(m *member) (condition, error) {
	c := condition{name: m.name}
	name := strings.ToLower(m.name)
	if rest, ok := strings.CutPrefix(name, "forallvalues:"); ok {
		c.set, name = forAll, rest
	} else if rest, ok := strings.CutPrefix(name, "foranyvalue:"); ok {
		c.set, name = forAny, rest
	}
	if rest, ok := strings.CutSuffix(name, "ifexists"); ok {
		c.ifExists, name = true, rest
	}
	o, ok := operators[name]
	if !ok {
		if n := nearest(name, operatorNames); n != "" {
			return c, p.fail(m.pos, syntaxErrors, "unknown condition operator %q; did you mean %q?", m.name, n)
		}
		return c, p.fail(m.pos, syntaxErrors, "unknown condition operator %q; the operators are %s, with ForAllValues: or ForAnyValue: in front and IfExists behind", m.name, strings.Join(operatorNames, ", "))
	}
	if o.op == null && (c.ifExists || c.set != noSet) {
		return c, p.fail(m.pos, syntaxErrors, "%s: Null takes neither IfExists nor a set operator", m.name)
	}
	c.op, c.negated = o.op, o.negated
	return c, nil
}

func (p *parser) conditionKey(s *Statement, c *condition, k *member) error {
	vendor, rest, ok := strings.Cut(k.name, ":")
	if (!ok || vendor == "" || rest == "") && p.kind.hasPrincipal() {
		// IAM takes any key in what it attaches to identities; no request has it.
		// Keys of OpenID providers have the host in front: accounts.google.com:aud.
		return p.fail(k.pos, noVendor, "the condition key %q has no service prefix such as aws: or kms:", k.name)
	}
	if strings.ContainsAny(vendor, "*? ") {
		return p.fail(k.pos, "Vendor "+vendor+" is not valid", "wildcards are not for condition keys (%q)", k.name)
	}
	c.key = makeKey(k.name)
	p.keys.add(k.name)
	if p.kind == Key && s.Effect == Allow && c.set == forAll && !c.negated && strings.HasPrefix(strings.ToLower(k.name), "kms:encryptioncontext:") {
		return p.fail(k.pos, "OverlyPermissiveCondition: ForAllValues with "+k.name+" allows requests that have no encryption context.",
			"kms:EncryptionContext:… has one value; write %q", strings.TrimPrefix(c.name, c.name[:strings.IndexByte(c.name, ':')+1]))
	}
	list := []value{k.value}
	if k.value.kind == isArray {
		list = k.value.items
	}
	for i := range list {
		switch list[i].kind {
		case isString, isNumber, isBool:
		default:
			return p.fail(list[i].pos, syntaxErrors, "the value of %s in %s must be a string, or a list of strings, not %s", k.name, c.name, list[i].kind)
		}
		o, err := p.operand(c, &list[i])
		if err != nil {
			return err
		}
		c.want = append(c.want, o)
	}
	return nil
}

func (p *parser) operand(c *condition, v *value) (o operand, err error) {
	o.raw = v.text
	bad := func(want string) error {
		message := syntaxErrors
		if c.op >= dateEquals && c.op <= dateGreaterEq {
			message = legacyParsing
		}
		return p.fail(v.pos, message, "%q is no value for %s; want %s", v.text, c.name, want)
	}
	if p.hasVariables(v.text) {
		switch c.op {
		case stringEquals, stringEqualsFold, stringLike, arnLike:
			t, err := p.template(v.text, v.pos)
			if err != nil {
				return o, err
			}
			o.vars = &t
		default:
			return o, p.fail(v.pos, syntaxErrors, "%s takes no policy variables; they are for the String and Arn operators", c.name)
		}
	}
	ok := true
	switch c.op {
	case stringLike:
		if o.vars == nil {
			o.glob = arn.CompileWildcard(v.text)
		}
	case arnLike:
		return o, p.arnOperand(&o, v, bad)
	case numericEquals, numericLess, numericLessEq, numericGreater, numericGreaterEq:
		if o.num, ok = parseNumber(v.text); !ok {
			return o, bad("a number")
		}
	case dateEquals, dateLess, dateLessEq, dateGreater, dateGreaterEq:
		if o.when, ok = parseDate(v.text); !ok {
			return o, bad("an ISO 8601 date such as 2026-01-31T00:00:00Z, or seconds since 1970")
		}
	case boolean, null:
		if !strings.EqualFold(v.text, "true") && !strings.EqualFold(v.text, "false") {
			return o, bad("true or false")
		}
	case binaryEquals:
		if o.bytes, ok = parseBinary(v.text); !ok {
			return o, bad("base64")
		}
	case ipAddress:
		if o.prefix, ok = parsePrefix(v.text); !ok {
			return o, bad("an IP address or range such as 203.0.113.0/24 or 2001:db8::/32")
		}
	}
	return o, nil
}

// arnOperand compiles the pattern of an Arn operator: each of the six fields is
// matched by itself.
func (p *parser) arnOperand(o *operand, v *value, bad func(string) error) error {
	if v.text != "" && strings.Trim(v.text, "*") == "" {
		o.all = true
		return nil
	}
	fields, ok := splitFields(v.text, p.variables)
	if !ok {
		if o.vars != nil {
			return nil // the whole ARN comes out of a variable
		}
		return bad("an ARN, arn:partition:service:region:account:resource, with wildcards within the fields")
	}
	o.fields = new([6]operandField)
	for i, f := range fields {
		if p.hasVariables(f) {
			t, err := p.template(f, v.pos)
			if err != nil {
				return err
			}
			o.fields[i].vars = t
			continue
		}
		o.fields[i].glob = arn.CompileWildcard(f)
	}
	return nil
}

// holds tells whether the condition is true of the request.
// Sources: IAM User Guide, "Condition operators", "Set operators for multivalued
// context keys".
func (c *condition) holds(e *env) bool {
	got, present := e.lookup(&c.key)
	if c.op == null {
		for i := range c.want {
			if strings.EqualFold(c.want[i].raw, "true") != present {
				return true
			}
		}
		return false
	}
	if !present {
		switch {
		case c.ifExists || c.set == forAll:
			return true
		case c.set == forAny:
			return false
		}
		return c.negated
	}
	if c.set != noSet {
		// "A null dataset, such as an empty string": no value to quantify over.
		empty := true
		for i := range got.len() {
			empty = empty && got.at(i) == ""
		}
		if empty {
			return c.set == forAll
		}
		for i := range got.len() {
			if holds := c.matches(e, got.at(i)) != c.negated; holds != (c.set == forAll) {
				return holds
			}
		}
		return c.set == forAll
	}
	for i := range got.len() {
		if c.matches(e, got.at(i)) {
			return !c.negated
		}
	}
	return c.negated
}

// matches tells whether the value equals (is like, is less than …) any of those
// in the document.
func (c *condition) matches(e *env, got string) bool {
	switch c.op {
	case stringEquals, stringEqualsFold:
		for i := range c.want {
			want := c.want[i].raw
			if t := c.want[i].vars; t != nil {
				var ok bool
				if want, ok = t.text(e); !ok {
					continue
				}
			}
			if got == want || c.op == stringEqualsFold && strings.EqualFold(got, want) {
				return true
			}
		}
	case stringLike:
		for i := range c.want {
			w := &c.want[i]
			if w.vars == nil {
				if w.glob.MatchString(got) {
					return true
				}
				continue
			}
			if parts, ok := w.vars.expand(e); ok && arn.CompileParts(parts...).Match(got) {
				return true
			}
		}
	case arnLike:
		n := makeName(got)
		for i := range c.want {
			if c.want[i].matchARN(e, &n) {
				return true
			}
		}
	case numericEquals, numericLess, numericLessEq, numericGreater, numericGreaterEq:
		v, ok := parseNumber(got)
		if !ok {
			return false
		}
		for i := range c.want {
			if ordered(c.op-numericEquals, v.compare(c.want[i].num)) {
				return true
			}
		}
	case dateEquals, dateLess, dateLessEq, dateGreater, dateGreaterEq:
		v, ok := parseDate(got)
		if !ok {
			return false
		}
		for i := range c.want {
			if ordered(c.op-dateEquals, v.Compare(c.want[i].when)) {
				return true
			}
		}
	case boolean:
		for i := range c.want {
			if strings.EqualFold(got, c.want[i].raw) {
				return true
			}
		}
	case binaryEquals:
		v, ok := parseBinary(got)
		if !ok {
			return false
		}
		for i := range c.want {
			if bytes.Equal(v, c.want[i].bytes) {
				return true
			}
		}
	case ipAddress:
		ip, err := netip.ParseAddr(got)
		if err != nil {
			return false
		}
		ip = ip.WithZone("").Unmap()
		for i := range c.want {
			if c.want[i].prefix.Contains(ip) {
				return true
			}
		}
	}
	return false
}

func (o *operand) matchARN(e *env, n *name) bool {
	if o.all {
		return true
	}
	if !n.isARN {
		return false
	}
	if o.fields == nil {
		parts, ok := o.vars.expand(e)
		return ok && arn.CompileParts(parts...).Match(n.s)
	}
	for i := 5; i >= 0; i-- {
		f := &o.fields[i]
		if f.vars.parts != nil {
			parts, ok := f.vars.expand(e)
			if !ok || !arn.CompileParts(parts...).Match(n.fields[i]) {
				return false
			}
			continue
		}
		if !f.glob.MatchString(n.fields[i]) {
			return false
		}
	}
	return true
}

// ordered tells whether a comparison satisfies =, <, <=, >, >= (in the order of the operators).
func ordered(op operator, cmp int) bool {
	switch op {
	case 0:
		return cmp == 0
	case 1:
		return cmp < 0
	case 2:
		return cmp <= 0
	case 3:
		return cmp > 0 && cmp != incomparable
	}
	return cmp >= 0 && cmp != incomparable
}

const incomparable = 2

// number is exact for integers of 64 bits and a float for the rest.
type number struct {
	i     int64
	f     float64
	isInt bool
}

func parseNumber(s string) (number, bool) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return number{i, float64(i), true}, true
	}
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return number{}, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return number{}, false
	}
	return number{f: f}, true
}

func (n number) compare(m number) int {
	if n.isInt && m.isInt {
		switch {
		case n.i < m.i:
			return -1
		case n.i > m.i:
			return 1
		}
		return 0
	}
	switch {
	case n.f < m.f:
		return -1
	case n.f > m.f:
		return 1
	case n.f == m.f:
		return 0
	}
	return incomparable
}

// isoDate is a date, with or without its last parts: 2026, 2026-01-31,
// 2026-01-31T08:00Z, 2026-1-31t8:00:00.5+02.
var isoDate = regexp.MustCompile(`^(\d{1,6})(?:-(\d\d?)(?:-(\d\d?))?)?` +
	`(?:[Tt](?:(\d\d?)(?::(\d\d?)(?::(\d\d?)(?:\.(\d+))?)?)?)?(?:[Zz]|([+-]\d\d)(?::?(\d\d))?)?)?$`)

// parseDate reads the W3C profile of ISO 8601 or seconds since 1970; four
// digits are a year.
func parseDate(s string) (time.Time, bool) {
	if len(s) != 4 {
		if n, ok := parseNumber(s); ok && math.Abs(n.f) < 1<<40 {
			if n.isInt {
				return time.Unix(n.i, 0).UTC(), true
			}
			sec, frac := math.Modf(n.f)
			return time.Unix(int64(sec), int64(frac*1e9)).UTC(), true
		}
	}
	if t, err := time.Parse("20060102T150405Z", s); err == nil {
		return t, true
	}
	m := isoDate.FindStringSubmatch(s)
	if m == nil {
		return time.Time{}, false
	}
	part := func(i, without int) int {
		if m[i] == "" {
			return without
		}
		n, _ := strconv.Atoi(m[i]) // digits, by the expression
		return n
	}
	year, month, day, hour, minute, second := part(1, 0), part(2, 1), part(3, 1), part(4, 0), part(5, 0), part(6, 0)
	nanos, _ := strconv.Atoi((m[7] + "000000000")[:9])
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if t.Month() != time.Month(month) || t.Day() != day || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	east := time.Duration(part(9, 0)) * time.Minute
	if strings.HasPrefix(m[8], "-") {
		east = -east
	}
	return t.Add(-time.Duration(part(8, 0))*time.Hour - east), true
}

func parseBinary(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return p, false
		}
		if a := p.Addr(); a.Is4In6() {
			if p.Bits() < 96 {
				return p, false
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), true
}

// String is the condition in words, for explanations.
func (c *condition) String() string {
	want := make([]string, len(c.want))
	for i := range c.want {
		want[i] = strconv.Quote(c.want[i].raw)
	}
	return fmt.Sprintf("%s %s [%s]", c.name, c.key.name, strings.Join(want, ", "))
}
