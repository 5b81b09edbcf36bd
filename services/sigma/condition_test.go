package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// conditionRule has the search identifiers a, b, c, which hold where the field
// of that name is 1, a filter of two fields and some with special names.
func conditionRule(condition string) string {
	return ruleWith(`a:
    a: 1
b:
    b: 1
c:
    c: 1
sel_x:
    x: 1
sel_y:
    y: 1
sel_z:
    z: 1
filter_one:
    u: 1
    v: 1
_hidden:
    h: 1
_hidden_too:
    i: 1
not-a_Word1:
    w: 1
condition: ` + condition)
}

// event holds 1 in each named field.
func event(fields string) string {
	var parts []string
	for f := range strings.FieldsSeq(fields) {
		parts = append(parts, `"`+f+`":1`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

type conditionCase struct {
	name, condition string
	yes, no         []string // fields that are 1
}

func conditionCases() []conditionCase {
	return []conditionCase{
		{"name", "a", []string{"a", "a b"}, []string{"", "b"}},
		{"name with digits, dash, underscore", "not-a_Word1", []string{"w"}, []string{""}},
		{"and", "a and b", []string{"a b"}, []string{"a", "b", ""}},
		{"or", "a or b", []string{"a", "b", "a b"}, []string{"c", ""}},
		{"not", "not a", []string{"", "b"}, []string{"a"}},
		{"not not", "not not a", []string{"a"}, []string{""}},
		{"and binds more than or", "a or b and c", []string{"a", "b c"}, []string{"b", "c"}},
		{"and binds more than or, from the left", "a and b or c", []string{"a b", "c"}, []string{"a", "b"}},
		{"not binds more than and", "not a and b", []string{"b"}, []string{"a b", "a", ""}},
		{"not binds more than or", "not a or b", []string{"", "a b"}, []string{"a"}},
		{"brackets", "(a or b) and c", []string{"a c", "b c"}, []string{"a", "c", "a b"}},
		{"brackets without blanks", "not(a or b)and(c)", []string{"c"}, []string{"a c", ""}},
		{"nested brackets", "((a) and (not (b or (c))))", []string{"a"}, []string{"a b", "a c"}},
		{"reserved words in any case", "a AND NOT (b Or c)", []string{"a"}, []string{"a b", "a c"}},
		{"quantifier in any case", "ALL OF sel_* aNd 1 Of a*", []string{"x y z a"}, []string{"x y z", "x y a"}},
		{"1 of pattern", "1 of sel_*", []string{"x", "y", "x z"}, []string{"a", ""}},
		{"any of pattern", "any of sel_*", []string{"x", "y"}, []string{""}},
		{"all of pattern", "all of sel_*", []string{"x y z"}, []string{"x y", "x z", ""}},
		{"2 of pattern", "2 of sel_*", []string{"x y", "x z", "x y z"}, []string{"x", "y", ""}},
		{"3 of 3", "3 of sel_*", []string{"x y z"}, []string{"x y"}},
		{"1 of a whole name", "1 of sel_x", []string{"x"}, []string{"y"}},
		{"star in front", "1 of *_x", []string{"x"}, []string{"y"}},
		{"star in the middle", "all of s*_y", []string{"y"}, []string{"x"}},
		{"several stars", "1 of *el*_z*", []string{"z"}, []string{"x"}},
		{"star alone", "1 of *", []string{"a", "w"}, []string{"h", "i", ""}},
		{"names are exact", "a and not 1 of SEL_x or b", nil, nil},
		{"1 of them", "1 of them", []string{"a", "z", "w"}, []string{"", "h"}},
		{"all of them", "all of them", []string{"a b c x y z u v w"}, []string{"a b c x y z u w", "a"}},
		{"hidden by name", "_hidden", []string{"h"}, []string{"i"}},
		{"hidden by a pattern that begins so", "all of _hidden*", []string{"h i"}, []string{"h", "i"}},
		{"hidden from other patterns", "1 of *hidden*", nil, nil},
		{"quantifier binds more than not", "a and not 1 of filter_*", []string{"a", "a u", "a v"}, []string{"a u v", "u v"}},
		{"not all of", "not all of sel_*", []string{"x y", ""}, []string{"x y z"}},
		{"list is or", "[a, b and c]", []string{"a", "b c"}, []string{"b", "c"}},
	}
}

func TestConditions(t *testing.T) {
	for _, c := range conditionCases() {
		t.Run(c.name, func(t *testing.T) {
			if c.yes == nil {
				require.NotEmpty(t, reject(conditionRule(c.condition), sigma.Options{}))
				return
			}
			set := compile(t, conditionRule(c.condition), sigma.Options{})
			for _, e := range c.yes {
				require.True(t, matches(t, set, event(e)), "%s should match %q", c.condition, e)
			}
			for _, e := range c.no {
				require.False(t, matches(t, set, event(e)), "%s should not match %q", c.condition, e)
			}
		})
	}
}

type conditionFault struct{ name, condition, want string }

func conditionFaults() []conditionFault {
	return []conditionFault{
		{"empty", "''", "ends where"},
		{"empty list", "[]", "is empty"},
		{"number", "1", "must be text"},
		{"unknown name", "a and nothing", `no search identifier "nothing"`},
		{"name in another case", "A", `no search identifier "A"`},
		{"pattern of nothing", "1 of nothing*", `no search identifier matches "nothing*"`},
		{"pattern without quantifier", "sel_*", "needs \"1 of\""},
		{"more than there are", "4 of sel_*", "only 3 match"},
		{"none of", "0 of sel_*", "a number is expected"},
		{"unknown quantifier", "most of sel_*", "a number is expected"},
		{"quantifier without pattern", "1 of", "needs them or a pattern"},
		{"quantifier before a bracket", "1 of (a)", "needs them or a pattern"},
		{"two names", "a b", "is not expected here"},
		{"operator first", "and a", "is not expected here"},
		{"operator last", "a or", "ends where"},
		{"operators side by side", "a and or b", "is not expected here"},
		{"not alone", "not", "ends where"},
		{"open bracket", "(a and b", "closing bracket is missing"},
		{"closing bracket", "a and b)", "is not expected here"},
		{"empty brackets", "()", "is not expected here"},
		{"them alone", "them", "is not expected here"},
		{"aggregation", "a | count() by x > 5", "correlation rule"},
		{"near", "a | near b", "correlation rule"},
		{"other characters", "a & b", "unexpected character"},
		{"beyond ASCII", "ä", "unexpected character 'ä'"},
		{"too deep", strings.Repeat("(", 200) + "a" + strings.Repeat(")", 200), "nests deeper"},
		{"too many nots", strings.Repeat("not ", 200) + "a", "nests deeper"},
		{"too long", "a" + strings.Repeat(" or a", 3000), "is longer than"},
	}
}

// TestConditionFaults holds that a condition which means nothing is refused.
func TestConditionFaults(t *testing.T) {
	for _, c := range conditionFaults() {
		t.Run(c.name, func(t *testing.T) {
			found := reject(conditionRule(c.condition), sigma.Options{})
			require.Len(t, found, 1)
			require.Contains(t, found[0], "test.yml:27: detection.condition: ")
			require.Contains(t, found[0], c.want)
		})
	}
}

func TestUnusedIdentifiersAreSaid(t *testing.T) {
	_, problems := sigma.Parse([]byte(conditionRule("a and b")), "test.yml")
	require.Empty(t, errorsOf(problems))
	said := warningsOf(problems)
	require.Len(t, said, 8)
	require.Equal(t, "test.yml:10: detection.c: warning: is not used by the condition", said[0])
}
