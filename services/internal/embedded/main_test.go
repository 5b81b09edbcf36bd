package embedded

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv holds what a re-executed test binary is to do instead of testing.
const childEnv = "EMBEDDED_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}
