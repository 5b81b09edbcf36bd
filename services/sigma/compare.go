package sigma

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// datePart is what minute, hour … year take from a date.
type datePart uint8

const (
	partNone datePart = iota
	partMinute
	partHour
	partDay
	partWeek
	partMonth
	partYear
)

// name is the modifier that stands for the part.
func (p datePart) name() string {
	return [...]string{partMinute: "minute", partHour: "hour", partDay: "day", partWeek: "week", partMonth: "month", partYear: "year"}[p]
}

// datePartNamed is the part that a modifier stands for, or partNone.
func datePartNamed(modifier string) datePart {
	for p := partMinute; p <= partYear; p++ {
		if p.name() == modifier {
			return p
		}
	}
	return partNone
}

// has reports whether some date's part is this number.
func (p datePart) has(d decimal) bool {
	limits := map[datePart][2]int{partMinute: {0, 59}, partHour: {0, 23}, partDay: {1, 31}, partWeek: {1, 53}, partMonth: {1, 12}, partYear: {0, 9999}}
	least, _ := decimalOf(limits[p][0])
	most, _ := decimalOf(limits[p][1])
	return p == partNone || (d.compare(least) >= 0 && d.compare(most) <= 0 && d.exp >= int64(len(d.digits)))
}

// numberText is a YAML number as JSON would write it: as written where it is a
// decimal number already.
func numberText(v *node) string {
	if _, ok := parseDecimal([]byte(v.value), nil); ok { // 0755 is kept as written, not read as octal
		return v.value
	}
	y := yaml.Node{Kind: yaml.ScalarNode, Tag: v.tag, Value: v.value}
	var i int64
	var f float64
	switch {
	case v.tag == "!!int" && y.Decode(&i) == nil:
		return strconv.FormatInt(i, 10)
	case v.tag == "!!float" && y.Decode(&f) == nil && !math.IsInf(f, 0) && !math.IsNaN(f):
		return strconv.FormatFloat(f, 'g', -1, 64)
	default:
		return v.value
	}
}

func (b *builder) compare(field string, m modifiers, values []*node) (*expr, *fault) {
	if field == "" {
		return nil, faultf(values[0], "", "a comparison needs a field")
	}
	op := m.op
	if op == "" {
		op = EQ
	}
	var bounds []numBound
	for _, v := range values {
		d, ok := boundNumber(v)
		if !ok {
			return nil, faultf(v, "", "a comparison takes a number without quotes, not %s %q", v.what(), v.value)
		}
		if op == EQ && !m.part.has(d) {
			return nil, faultf(v, "", "no date has %s %s", m.part.name(), v.value)
		}
		bounds = append(bounds, numBound{op, d})
	}
	return predExpr(newComparePredicate(field, m.part, bounds)), nil
}

func (n *numBound) holds(d decimal) bool {
	c := d.compare(n.num)
	switch n.op {
	case GT:
		return c > 0
	case GTE:
		return c >= 0
	case LT:
		return c < 0
	case LTE:
		return c <= 0
	default:
		return c == 0
	}
}

func (b *builder) cidr(field string, values []*node) (*expr, *fault) {
	if field == "" {
		return nil, faultf(values[0], "", "cidr needs a field")
	}
	var nets []netip.Prefix
	for _, v := range values {
		if v.kind != yaml.ScalarNode || v.isNull() {
			return nil, faultf(v, "", "cidr takes a network, not %s", v.what())
		}
		p, err := parseNet(v.value)
		if err != "" {
			return nil, faultf(v, "", "%s", err)
		}
		nets = append(nets, p)
	}
	return predExpr(newCIDRPredicate(field, nets)), nil
}

// parseNet reads a network or a bare address, which is a network of one.
func parseNet(s string) (netip.Prefix, string) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, strconv.Quote(s) + " is neither a network nor an address"
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, strconv.Quote(s) + " is not a network: write address/bits"
	}
	if p != p.Masked() {
		return netip.Prefix{}, strconv.Quote(s) + " has bits set beyond its mask: did you mean " + p.Masked().String() + "?"
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, ""
}

// inNets reports whether text is an address in one of the networks.
func inNets(nets []netip.Prefix, text string) bool {
	if len(text) > 64 {
		return false
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	a = a.WithZone("").Unmap()
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// dateLayouts are tried in order; a date without a zone is UTC.
func dateLayouts() [5]string {
	return [...]string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02"}
}

// datePartOf takes the part from a date in the zone written in it. Numbers are
// seconds, milliseconds, microseconds or nanoseconds since 1970, by magnitude.
func datePartOf(part datePart, text string) (int, bool) {
	if len(text) > 64 {
		return 0, false
	}
	t, ok := parseDate(text)
	if !ok {
		return 0, false
	}
	switch part {
	case partMinute:
		return t.Minute(), true
	case partHour:
		return t.Hour(), true
	case partDay:
		return t.Day(), true
	case partWeek:
		_, week := t.ISOWeek()
		return week, true
	case partMonth:
		return int(t.Month()), true
	default:
		return t.Year(), true
	}
}

func parseDate(text string) (time.Time, bool) {
	whole, _, _ := strings.Cut(text, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil {
		switch magnitude := max(n, -n); {
		case magnitude < 1e11:
			return time.Unix(n, 0).UTC(), true
		case magnitude < 1e14:
			return time.UnixMilli(n).UTC(), true
		case magnitude < 1e17:
			return time.UnixMicro(n).UTC(), true
		default:
			return time.Unix(0, n).UTC(), true
		}
	}
	for _, layout := range dateLayouts() {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
