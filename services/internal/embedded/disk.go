package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The engine's layout below its directory: meta.json, topics.json, groups.log
// and others, and partitions/TOPIC-INDEX/OFFSET.dat with record batches as
// they travel, each with an OFFSET.idx that we do not need.

// segment is one file of a partition's log.
type segment struct {
	base    int64 // offset of its first record
	size    int64 // bytes
	written time.Time
	path    string
}

// totalSize returns the bytes of segments.
func totalSize(segments []segment) (n int64) {
	for _, s := range segments {
		n += s.size
	}
	return n
}

func partitionsDir(root string) string { return filepath.Join(root, "partitions") }

func partitionDir(root string, p partition) string {
	return filepath.Join(partitionsDir(root), fmt.Sprintf("%s-%d", url.PathEscape(p.topic), p.index))
}

// parsePartitionDir is the inverse of the last element of partitionDir.
func parsePartitionDir(name string) (partition, error) {
	dash := strings.LastIndexByte(name, '-')
	if dash < 0 {
		return partition{}, fmt.Errorf("%q is not a partition's directory", name)
	}
	topic, err := url.PathUnescape(name[:dash])
	if err != nil {
		return partition{}, fmt.Errorf("%q is not a partition's directory: %w", name, err)
	}
	index, err := strconv.ParseInt(name[dash+1:], 10, 32)
	if err != nil {
		return partition{}, fmt.Errorf("%q is not a partition's directory: %w", name, err)
	}
	return partition{topic, int32(index)}, nil
}

// listSegments returns the segments in dir by rising offset.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []segment
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".dat")
		if !ok {
			continue
		}
		base, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue // the engine ignores it as well
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // trimmed meanwhile
		}
		if err != nil {
			return nil, err
		}
		segments = append(segments, segment{base, info.Size(), info.ModTime(), filepath.Join(dir, e.Name())})
	}
	slices.SortFunc(segments, func(a, b segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	return segments, nil
}

// listLog returns the segments of every partition on disk.
func listLog(root string) (map[partition][]segment, error) {
	entries, err := os.ReadDir(partitionsDir(root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parts := make(map[partition][]segment, len(entries))
	for _, e := range entries {
		p, err := parsePartitionDir(e.Name())
		if err != nil {
			return nil, err
		}
		segments, err := listSegments(filepath.Join(partitionsDir(root), e.Name()))
		if err != nil {
			return nil, err
		}
		parts[p] = segments
	}
	return parts, nil
}

// diskUsage returns the bytes of all files below root.
func diskUsage(root string) (n int64, err error) {
	err = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				n += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // trimmed or replaced meanwhile
		}
		return err
	})
	return n, err
}

// topicInfo is what the engine's list says of a topic.
type topicInfo struct {
	Name       string            `json:"name"`
	Partitions int               `json:"partitions"`
	Configs    map[string]string `json:"configs"`
}

func (t topicInfo) compacted() bool { return strings.Contains(t.Configs["cleanup.policy"], "compact") }

// knownTopics returns the engine's list of topics by name.
func knownTopics(root string) (map[string]topicInfo, error) {
	raw, err := os.ReadFile(filepath.Join(root, "topics.json"))
	if err != nil {
		return nil, err
	}
	var file struct {
		Topics []topicInfo `json:"topics"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("read list of topics: %w", err)
	}
	topics := make(map[string]topicInfo, len(file.Topics))
	for _, t := range file.Topics {
		topics[t.Name] = t
	}
	return topics, nil
}

// writeDurable replaces path by data so that a crash leaves the old or the
// new content, and only the new once it has returned.
func writeDurable(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncTree syncs every file and directory below root.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && (e.IsDir() || e.Type().IsRegular()) {
			err = syncDir(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}
