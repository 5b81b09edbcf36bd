package redis

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CutTail removes the last percent (1 to 100) of the append-only file, as a
// failover or a power loss does, and returns the number of bytes removed. The
// server must not be running: Kill, CutTail, Restart.
func (s *Server) CutTail(percent int) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return 0, errors.New("cut append-only file: the server is running: kill it first")
	}
	if percent < 1 || percent > 100 {
		return 0, fmt.Errorf("cut append-only file: %d percent is not between 1 and 100", percent)
	}
	path, err := s.incremental()
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("cut append-only file: %w", err)
	}
	cut := (info.Size()*int64(percent) + 99) / 100
	if err := os.Truncate(path, info.Size()-cut); err != nil {
		return 0, fmt.Errorf("cut append-only file: %w", err)
	}
	return cut, nil
}

// incremental returns the file that the server appends to: the last line of
// type i in the manifest.
func (s *Server) incremental() (string, error) {
	dir := s.path("appendonlydir")
	f, err := os.Open(filepath.Join(dir, "appendonly.aof.manifest"))
	if err != nil {
		return "", fmt.Errorf("find append-only file (was it started with AppendOnly?): %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	name := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// file appendonly.aof.1.incr.aof seq 1 type i
		fields := strings.Fields(sc.Text())
		if len(fields) == 6 && fields[5] == "i" {
			name = fields[1]
		}
	}
	if name == "" {
		return "", errors.New("find append-only file: the manifest names none")
	}
	return filepath.Join(dir, name), nil
}
