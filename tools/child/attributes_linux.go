package child

import "syscall"

// attributes puts the child into a process group of its own, so that an
// interrupt typed at a terminal reaches the parent first, and has the kernel
// kill it when the parent dies without a word.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
