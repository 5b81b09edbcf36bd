package child

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// RequireEnv names the environment variable that turns the skip of a test whose
// real server is missing into a failure; continuous integration sets it to 1.
const RequireEnv = "STORMBELL_REQUIRE_REAL"

// Require skips the test if one of the programs is not installed, or fails it
// where RequireEnv is 1. It also skips under -short.
func Require(tb testing.TB, programs ...string) {
	tb.Helper()
	must := os.Getenv(RequireEnv) == "1"
	if testing.Short() {
		tb.Skip("starts a real server: not under -short")
	}
	missing := Missing(programs...)
	switch {
	case len(missing) == 0:
	case must:
		tb.Fatalf("%s=1, but %s is not installed: run make setup", RequireEnv, strings.Join(missing, ", "))
	default:
		tb.Skipf("%s is not installed: run make setup", strings.Join(missing, ", "))
	}
}

// Missing returns those of the programs that are not on the PATH.
func Missing(programs ...string) []string {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	return missing
}
