package control

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// A backup is text: a head, one line for each object in the order in which
// they were written last, and a foot by which a file that was cut short or
// changed is told. What is secret in it is sealed, as in the topic.

const (
	backupFormat  = "stormbell-control"
	backupVersion = 1
	// maxBackupLine holds a record of a topic, in base64.
	maxBackupLine = 2 << 20
	maxBackup     = 1_000_000 // records
)

// ErrBackup is wrapped by errors for a file that is no whole backup.
var ErrBackup = errors.New("not a whole backup of control")

// ErrNotEmpty is wrapped by errors of Restore for a topic that holds something
// else.
var ErrNotEmpty = errors.New("control is in use")

type backupHead struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

type backupLine struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

type backupFoot struct {
	Records int    `json:"records"`
	SHA256  string `json:"sha256"`
}

// Snapshot reads the topic up to where it ends now: the last record of each
// object that there is, in their order.
func Snapshot(ctx context.Context, log Log) ([]Record, error) {
	next, end, err := log.Offsets(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the start and end of control: %w", err)
	}
	last := map[string]Record{}
	for next < end {
		var records []Record
		if records, next, err = log.Read(ctx, next); err != nil {
			return nil, fmt.Errorf("read control: %w", err)
		}
		for _, r := range records {
			if r.Value == nil {
				delete(last, r.Key)
			} else {
				last[r.Key] = r
			}
		}
		if len(last) > maxBackup {
			return nil, fmt.Errorf("control holds more than %d objects", maxBackup)
		}
	}
	return slices.SortedFunc(maps.Values(last), func(a, b Record) int { return cmp.Compare(a.Offset, b.Offset) }), nil
}

// WriteBackup writes records as a backup.
func WriteBackup(w io.Writer, records []Record) error {
	sum := sha256.New()
	out := bufio.NewWriter(w)
	lines := []any{backupHead{backupFormat, backupVersion}}
	for _, r := range records {
		lines = append(lines, backupLine{r.Key, r.Value})
	}
	for _, line := range lines {
		if err := backupWrite(out, sum, line); err != nil {
			return err
		}
	}
	foot := backupFoot{len(records), hex.EncodeToString(sum.Sum(nil))}
	if err := backupWrite(out, sum, foot); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

func backupWrite(out io.Writer, sum hash.Hash, line any) error {
	text, err := json.Marshal(line)
	if err == nil {
		text = append(text, '\n')
		_, _ = sum.Write(text) // never fails
		_, err = out.Write(text)
	}
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// ReadBackup reads a whole backup and checks each of its records. Errors wrap
// ErrBackup and hold nothing of what is in the file.
func ReadBackup(r io.Reader) ([]Record, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxBackupLine)
	sum := sha256.New()
	var head backupHead
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Format != backupFormat {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrBackup)
	}
	if head.Version != backupVersion {
		return nil, fmt.Errorf("%w: its version is %d, this program reads %d", ErrBackup, head.Version, backupVersion)
	}
	var records []Record
	var previous []byte
	for n := 1; ; n++ {
		previous = append(append(previous[:0], lines.Bytes()...), '\n')
		_, _ = sum.Write(previous) // never fails
		if !lines.Scan() {
			return nil, errors.Join(fmt.Errorf("%w: it ends after line %d without its last line", ErrBackup, n), lines.Err())
		}
		var line struct {
			backupLine
			backupFoot
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil || n > maxBackup {
			return nil, fmt.Errorf("%w: line %d", ErrBackup, n+1)
		}
		if line.SHA256 != "" {
			if line.Records != len(records) || line.SHA256 != hex.EncodeToString(sum.Sum(nil)) || lines.Scan() {
				return nil, fmt.Errorf("%w: it was changed: its sum is another", ErrBackup)
			}
			return records, nil
		}
		if line.Key == "" {
			return nil, fmt.Errorf("%w: line %d has no key", ErrBackup, n+1)
		}
		if _, err := Decode(line.Key, line.Value); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrBackup, n+1, err)
		}
		records = append(records, Record{Key: line.Key, Value: line.Value})
	}
}

// RootIDs are the root keys that the tenants' keys among records are wrapped by.
func RootIDs(records []Record) []string {
	ids := map[string]bool{}
	for _, r := range records {
		object, err := Decode(r.Key, r.Value)
		if k, ok := object.GetObject().(*controlv1.Control_TenantKey); ok && err == nil {
			ids[k.TenantKey.GetRootId()] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// Restore appends the records of a backup to a topic that is empty, or holds
// some of them: one that was interrupted may be repeated. It returns how many
// it wrote, and tells of each part that is acknowledged.
func Restore(ctx context.Context, log Log, records []Record, tell func(written, of int)) (int, error) {
	there, err := Snapshot(ctx, log)
	if err != nil {
		return 0, err
	}
	if len(there) > len(records) {
		return 0, fmt.Errorf("%w: it holds %d objects, the backup %d", ErrNotEmpty, len(there), len(records))
	}
	for i, r := range there { // the same ones in the same order: manifests go by it
		if r.Key != records[i].Key || !bytes.Equal(r.Value, records[i].Value) {
			return 0, fmt.Errorf("%w: it holds %s, which the backup does not, or not there", ErrNotEmpty, r.Key)
		}
	}
	rest := records[len(there):]
	for written := 0; written < len(rest); {
		n := fitting(rest[written:])
		if err := log.Append(ctx, rest[written:written+n]...); err != nil {
			return written, fmt.Errorf("write %s: %w", rest[written].Key, err)
		}
		written += n
		tell(written, len(rest))
	}
	return len(rest), nil
}

// fitting is how many of records go into one append; never none.
func fitting(records []Record) int {
	n, size := 0, 0
	for n < len(records) && (n == 0 || size+len(records[n].Value) <= maxAppendBytes) {
		size += len(records[n].Key) + len(records[n].Value)
		n++
	}
	return n
}
