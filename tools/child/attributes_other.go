//go:build !linux

package child

import "syscall"

// attributes leaves the child in the group of its parent: without a
// parent-death signal, an interrupt at the terminal must reach both.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
