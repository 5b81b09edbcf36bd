//go:build fault

package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// CrashEnv names the point at which a program that was built with the tag
// fault kills itself, and when it is reached for the how many-th time.
const CrashEnv = "STORMBELL_CRASH_AT" // POINT:N

// crashAt says where the process is to die: by SIGKILL, with nothing flushed
// and nothing given back.
func crashAt(world World) func(point string) error {
	at, text, ok := strings.Cut(world.Getenv(CrashEnv), ":")
	nth, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil {
		return nil
	}
	var reached atomic.Int64
	return func(point string) error {
		if point != at || reached.Add(1) != nth {
			return nil
		}
		fmt.Fprintf(world.Stderr, "crash at %s\n", point)
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return fmt.Errorf("crash at %s: %w", point, err)
		}
		select {} // until the signal has come
	}
}
