//go:build linux || darwin

package embedded

import "syscall"

// freeBytes returns the space that this user may still fill on the file
// system of dir.
func freeBytes(dir string) (free int64, known bool, err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, false, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), true, nil //nolint:unconvert // the types differ between systems
}
