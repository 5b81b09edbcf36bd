package ruleset

import (
	"path"
	"strings"
)

// The tests of the rules in name.yml stand beside it in name.test.yml, or
// .yaml. They are no rules.

// IsTest reports whether a file holds tests of rules.
func IsTest(name string) bool {
	_, _, ok := testName(name)
	return ok
}

// TestsOf reports whether tests are those of the rules in a file.
func TestsOf(tests, rules string) bool {
	base, _, ok := testName(tests)
	return ok && base == strings.TrimSuffix(rules, path.Ext(rules))
}

// RuleFile is the file that a file of tests is for.
func RuleFile(tests string) string {
	base, ext, _ := testName(tests)
	return base + ext
}

// TestFile is where the tests of the rules in a file belong.
func TestFile(rules string) string {
	ext := path.Ext(rules)
	return strings.TrimSuffix(rules, ext) + ".test" + ext
}

// testName cuts ".test.yml" off a name.
func testName(name string) (base, ext string, ok bool) {
	ext = path.Ext(name)
	if e := strings.ToLower(ext); e != ".yml" && e != ".yaml" {
		return "", "", false
	}
	base, ok = strings.CutSuffix(strings.TrimSuffix(name, ext), ".test")
	return base, ext, ok
}
