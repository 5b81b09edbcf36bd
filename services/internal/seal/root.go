package seal

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

const (
	keyBytes     = 32
	maxRootFile  = 64 << 10
	maxRootKeys  = 100
	rootIDLabel  = "stormbell root key id v1"
	rootFileHead = "# Root keys of Stormbell, one per line; the last one is used for new secrets.\n" +
		"# Whoever has this file can read every stored secret; without it none can be read.\n"
)

// Root holds the versions of the root key. It prints as "[redacted]". Its
// methods are safe for concurrent use.
type Root struct {
	current atomic.Pointer[versions]
}

// versions are never changed once they are in a Root.
type versions struct {
	keys map[string][]byte // by id
	last string
}

// Replace puts the versions of another root in the place of these: its file has
// changed.
func (r *Root) Replace(by *Root) { r.current.Store(by.current.Load()) }

// Last is the id of the version that wraps new keys. It says nothing of the key.
func (r *Root) Last() string { return r.current.Load().last }

// Has reports whether a version is known by its id.
func (r *Root) Has(id string) bool { return r.key(id) != nil }

func (r *Root) key(id string) []byte { return r.current.Load().keys[id] }

// String implements fmt.Stringer.
func (r *Root) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (r *Root) GoString() string { return redacted }

// ParseRoot reads root keys: one per line, 32 bytes in standard base64; empty
// lines and lines that begin with "#" are skipped. The last one wraps new
// keys. Errors hold nothing of the text.
func ParseRoot(text string) (*Root, error) {
	v := &versions{keys: make(map[string][]byte)}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("root key in line %d is not 32 bytes in base64: make one with `openssl rand -base64 32`", n)
		}
		if err := v.add(key); err != nil {
			return nil, fmt.Errorf("root key in line %d: %w", n, err)
		}
	}
	if v.last == "" {
		return nil, errors.New("no root key: make one with `openssl rand -base64 32`")
	}
	r := new(Root)
	r.current.Store(v)
	return r, nil
}

func (v *versions) add(key []byte) error {
	if len(v.keys) == maxRootKeys {
		return fmt.Errorf("more than %d keys", maxRootKeys)
	}
	// The id says which key a value needs and nothing about the key.
	id, err := hkdf.Key(sha256.New, key, nil, rootIDLabel, 8)
	if err != nil {
		return fmt.Errorf("derive id: %w", err)
	}
	v.last = hex.EncodeToString(id)
	v.keys[v.last] = key
	return nil
}

// LoadRoot reads a root key file. It refuses a file that others than its owner
// can read or write.
func LoadRoot(path string) (*Root, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open root key file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("check root key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("root key file %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("root key file %s has mode %#o, so others may read it: run `chmod 600` on it", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRootFile+1))
	if err != nil {
		return nil, fmt.Errorf("read root key file: %w", err)
	}
	if len(text) > maxRootFile {
		return nil, fmt.Errorf("root key file %s has more than %d bytes", path, maxRootFile)
	}
	root, err := ParseRoot(string(text))
	if err != nil {
		return nil, fmt.Errorf("root key file %s: %w", path, err)
	}
	return root, nil
}

// CreateRoot makes a new root key in a file with mode 0600 that must not exist
// yet, and returns once it is on stable storage. Only `stormbell up` calls it:
// anywhere else a missing key is a mistake that a new key would make worse.
func CreateRoot(path string) (*Root, error) {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	text := rootFileHead + base64.StdEncoding.EncodeToString(key) + "\n"
	if err := WriteNew(path, []byte(text)); err != nil {
		return nil, fmt.Errorf("create root key file: %w", err)
	}
	return ParseRoot(text)
}

// WriteNew creates a file with mode 0600 that must not exist yet, and returns
// once the whole file is on stable storage. It never leaves a part of a file.
func WriteNew(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil { // unlike a rename it never replaces
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
