package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// generator draws rules and events of the same small vocabulary, so that they
// meet often. The same seed draws the same.
type generator struct{ r *rand.Rand }

func newGenerator(seed uint64) *generator {
	return &generator{rand.New(rand.NewPCG(seed, 5))}
}

func (g *generator) of(list ...string) string { return list[g.r.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.r.IntN(100) < percent }

func texts() []string {
	return []string{
		"abc", "ABC", "aXc", "a*c", "a?c", "", "x abc y", `C:\Win\cmd.exe`, `c:\win\CMD.EXE`, "ps -enc foo", "ps /ENC foo", "ps –enc foo", "ps enc",
		"Zm9vYmFy", "YWJj", "AAYWJjAA", "YQBiAGMA", "4625", "true", "100%", "a_c", "äbc", "ÄBC", "-a-b", "/a /b", "foobar", "a\nb", `a\*c`, `a\b`, `\\srv\x`, "it's",
	}
}

func addresses() []string {
	return []string{"10.1.2.3", "10.200.0.1", "192.168.1.9", "192.168.2.9", "172.16.5.4", "8.8.8.8", "fe80::1", "2001:db8::7", "host", ""}
}

func dates() []string {
	return []string{"2024-05-06T03:07:59Z", "2024-12-30T22:00:00Z", "2023-01-01T00:30:00Z", "2024-05-06 13:07:00", "2024-05-06T03:07:59+09:00", "x", ""}
}

// quote writes a value for JSON or for YAML in double quotes.
func quote(s string) string {
	r := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	return `"` + r.Replace(s) + `"`
}

// event draws values of all fields; some are absent, some null.
func (g *generator) event() string {
	fields := map[string]func() string{
		"f": func() string { return quote(g.of(texts()...)) }, "g": func() string { return quote(g.of(texts()...)) },
		"n":  func() string { return g.of("0", "4", "5", "6", "5.5", "-3", "1e3", `"5"`, `"x"`) },
		"b":  func() string { return g.of("true", "false", `"true"`, `"x"`) },
		"ip": func() string { return quote(g.of(addresses()...)) }, "d": func() string { return quote(g.of(dates()...)) },
		"h": func() string { return quote(g.of(texts()...)) },
	}
	var outer, inner []string
	for _, name := range []string{"f", "g", "n", "b", "ip", "d", "h"} {
		value := fields[name]()
		switch {
		case g.chance(18):
			continue
		case g.chance(6):
			value = "null"
		}
		if name == "h" {
			inner = append(inner, `"h":`+value)
			continue
		}
		outer = append(outer, quote(name)+":"+value)
	}
	if inner != nil {
		outer = append(outer, `"o":{`+strings.Join(inner, ",")+"}")
	}
	return "{" + strings.Join(outer, ",") + "}"
}

// text draws a value of a rule: a text, or a part of one, or with wildcards.
func (g *generator) text() string {
	s := g.of(texts()...)
	runes := []rune(s)
	switch n := len(runes); {
	case n > 2 && g.chance(30):
		from := g.r.IntN(n - 1)
		s = string(runes[from : from+1+g.r.IntN(n-from)])
	case n > 2 && g.chance(25):
		at := g.r.IntN(n)
		s = string(runes[:at]) + g.of("*", "?", `\*`, `\?`, `\\*`) + string(runes[min(n, at+1):])
	}
	return s
}

// item draws one field with its modifiers and values, as YAML lines.
func (g *generator) item(field int) string {
	name := g.of("f", "g", "o.h")
	one := func(mods string, values ...string) string { return g.lines(name+mods, values) }
	many := func() []string {
		var out []string
		for range 1 + g.r.IntN(3) {
			out = append(out, quote(g.text()))
		}
		return out
	}
	word := func() string { return quote(g.of("abc", "foobar", "foo", "ab", "äbc", "enc")) }
	switch field + g.r.IntN(20) {
	case 0, 1, 2:
		return one("", many()...)
	case 3, 4:
		return one("|"+g.of("contains", "startswith", "endswith"), many()...)
	case 5:
		return one("|contains|all", slices.Concat(many(), many(), many())...)
	case 6:
		return one("|"+g.of("cased", "contains|cased", "startswith|cased", "endswith|cased"), many()...)
	case 7:
		return one("|"+g.of("neq", "contains|neq"), many()...)
	case 8:
		return one("|windash|contains", quote(g.of(" -enc", " /enc", "-a-b", "/a /b", "-enc", "ps -enc foo")))
	case 9:
		return one("|"+g.of("base64", "base64|contains"), word())
	case 10:
		return one("|"+g.of("base64offset|contains", "wide|base64offset|contains"), word())
	case 11:
		return one("|"+g.of("re", "re|i", "re|m", "re|s"), quote(g.of("a.c", "^a", "c$", "[a-b]bc", "x|y", `\\cmd\.exe$`, "(foo|bar)+", `^\S+$`, "a.b")))
	case 12:
		return one("|exists", g.of("true", "false"))
	case 13:
		return one("", g.of("null", `""`))
	case 14:
		return one("|"+g.of("fieldref", "fieldref|startswith", "fieldref|endswith", "fieldref|contains"), g.of("f", "g", "o.h"))
	case 15, 16:
		name = "n"
		return one(g.of("|gt", "|gte", "|lt", "|lte", "", "|neq"), g.of("5", "0", "5.5", "-3", "1000"))
	case 17:
		name = "ip"
		return one("|cidr", g.of("10.0.0.0/8", "192.168.1.0/24", "172.16.0.0/12", "192.168.0.0/22", "fe80::/10", "2001:db8::/32", "8.8.8.8/32"))
	case 18:
		name = "d"
		return one("|"+g.of("hour", "minute", "day", "month", "year"), g.of("3", "7", "12", "1", "22"))
	default:
		name = "b"
		return one("", g.of("true", "false"))
	}
}

func (g *generator) lines(key string, values []string) string {
	if len(values) == 1 {
		return key + ": " + values[0] + "\n"
	}
	return key + ":\n    - " + strings.Join(values, "\n    - ") + "\n"
}

// selection draws a search identifier.
func (g *generator) selection() string {
	if g.chance(8) {
		var out strings.Builder
		for range 1 + g.r.IntN(2) {
			fmt.Fprintf(&out, "- %s\n", quote(g.of("abc", "FOO", "enc", "cmd", "4625", "a?c")))
		}
		return out.String()
	}
	if g.chance(15) {
		var out strings.Builder
		for range 2 {
			out.WriteString("- " + strings.ReplaceAll(g.item(0), "\n", "\n  "))
			out.WriteString("\n")
		}
		return out.String()
	}
	first := g.item(0)
	if g.chance(50) {
		return first
	}
	second := g.item(0)
	if key, _, _ := strings.Cut(second, ":"); strings.HasPrefix(first, key+":") {
		return first
	}
	return first + second
}

// rule draws a rule of three search identifiers.
func (g *generator) rule() string {
	var b strings.Builder
	b.WriteString("title: Drawn\nlogsource:\n  product: p\ndetection:\n")
	for _, name := range []string{"sel_a", "sel_b", "other"} {
		b.WriteString("  " + name + ":\n")
		for line := range strings.Lines(g.selection()) {
			if strings.TrimSpace(line) != "" {
				b.WriteString("    " + line)
			}
		}
	}
	b.WriteString("  condition: " + g.of(
		"sel_a", "sel_a", "sel_b", "sel_a and sel_b", "sel_a or sel_b", "not sel_a", "sel_a and not other", "1 of sel_*", "all of sel_*", "not 1 of sel_*",
		"1 of them", "all of them", "sel_a or sel_b and not other", "not (sel_a or other) or sel_b",
	) + "\n")
	return b.String()
}
