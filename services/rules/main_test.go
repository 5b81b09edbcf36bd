package rules_test

import (
	"flag"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write docs/reference/rules.md and the figures in docs/rules.md")
	m.Run()
}

func updating() bool { return flag.Lookup("update").Value.String() == "true" }
