package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/stormbell/stormbell/services/formats/body"
)

// maxEventBytes bounds one line, or one JSON document of a file.
const maxEventBytes = 256 << 20

// inputs are the files of a command line.
type inputs struct {
	paths    []string
	size     int64 // of all files; -1 where it is not known
	stdin    *os.File
	progress func(n int)
	in       io.Reader
}

// openInputs checks that all files are there. No path, and "-", are standard
// input; a directory stands for the event files in it, in order of their names.
func openInputs(in io.Reader, paths []string) (*inputs, error) {
	if len(paths) == 0 {
		paths = []string{"-"}
	}
	i := &inputs{in: in, progress: func(int) {}}
	for _, path := range paths {
		if path == "-" {
			i.paths, i.size = append(i.paths, path), -1
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("open events: %w", err)
		}
		files, size := []string{path}, info.Size()
		if info.IsDir() {
			if files, size, err = filesIn(path); err != nil {
				return nil, err
			}
		}
		i.paths = append(i.paths, files...)
		if i.size >= 0 {
			i.size += size
		}
	}
	return i, nil
}

// maxFiles bounds what a directory stands for.
const maxFiles = 1_000_000

// filesIn returns the event files beneath a directory, hidden ones left out.
func filesIn(dir string) (files []string, size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case entry.IsDir() || !holdsEvents(path):
			return nil
		}
		info, err := os.Stat(path) // through links
		if err != nil {
			return err //nolint:wrapcheck // it names the file
		}
		if info.IsDir() {
			return nil
		}
		if len(files) == maxFiles {
			return fmt.Errorf("%s holds more than %d files of events", dir, maxFiles)
		}
		files, size = append(files, path), size+info.Size()
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("open events: %w", err)
	}
	if len(files) == 0 {
		return nil, 0, fmt.Errorf("%s holds no files of events (*.json, *.jsonl, *.ndjson, also with .gz)", dir)
	}
	return files, size, nil
}

// holdsEvents goes by the name.
func holdsEvents(path string) bool {
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	case ".json", ".jsonl", ".ndjson":
		return true
	}
	return false
}

func (i *inputs) close() {
	if i.stdin != nil {
		_ = i.stdin.Close()
	}
}

// keep makes standard input readable a second time.
func (i *inputs) keep() error {
	f, err := os.CreateTemp("", "stormbell-send-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep standard input: %w", err)
	}
	i.stdin = f
	if err := os.Remove(f.Name()); err != nil { // it lives until it is closed
		return fmt.Errorf("keep standard input: %w", err)
	}
	if _, err := io.Copy(f, i.in); err != nil {
		return fmt.Errorf("keep standard input: %w", err)
	}
	return nil
}

// each calls fn for each event. The event is valid until fn returns, and has no
// line breaks.
func (i *inputs) each(ctx context.Context, fn func(event []byte, at place) error) error {
	for _, path := range i.paths {
		if err := i.file(ctx, path, fn); err != nil {
			return err
		}
	}
	return nil
}

func (i *inputs) file(ctx context.Context, path string, fn func([]byte, place) error) error {
	r := i.in
	name := path
	switch {
	case path == "-" && i.stdin != nil:
		if _, err := i.stdin.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read standard input again: %w", err)
		}
		r, name = i.stdin, "standard input"
	case path == "-":
		name = "standard input"
	default:
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open events: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	n := 0
	err := events(&counted{r, i.progress}, func(event []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n++
		return fn(event, place{name, n})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// counted reports what is read.
type counted struct {
	io.Reader
	progress func(int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.progress(n)
	return n, err
}

// events splits a stream into events: lines that each begin an object, or one
// JSON document after the other, of which arrays and CloudTrail files are
// taken apart.
func events(r io.Reader, fn func([]byte) error) error {
	buf := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := buf.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		zip, err := gzip.NewReader(buf)
		if err != nil {
			return fmt.Errorf("read gzip: %w", err)
		}
		buf = bufio.NewReaderSize(zip, 1<<16)
	}
	lines, err := isLines(buf)
	if err != nil {
		return err
	}
	if lines {
		return eachLine(buf, fn)
	}
	return eachDocument(buf, fn)
}

// isLines reports whether the stream's first line is an event of its own. A
// line that is no JSON at all is one too: the gateway says what is wrong with it.
func isLines(buf *bufio.Reader) (bool, error) {
	if bom, _ := buf.Peek(3); bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = buf.Discard(3)
	}
	for {
		c, err := buf.Peek(1)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
		if c[0] != ' ' && c[0] != '\t' && c[0] != '\r' && c[0] != '\n' {
			break
		}
		_, _ = buf.Discard(1)
	}
	head, _ := buf.Peek(1 << 16)
	line, _, ended := bytes.Cut(head, []byte("\n"))
	if head[0] == '[' {
		return false, nil
	}
	if head[0] != '{' {
		return true, nil
	}
	if !json.Valid(line) {
		// An object over several lines, or a first line that is longer than
		// what was looked at.
		return !ended && len(head) == 1<<16 && !bytes.Contains(head[:64], []byte(`"Records"`)), nil
	}
	var file struct{ Records json.RawMessage }
	_ = json.Unmarshal(line, &file)
	return len(file.Records) == 0 || file.Records[0] != '[', nil
}

func eachLine(buf *bufio.Reader, fn func([]byte) error) error {
	var long []byte
	for {
		line, err := buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long) > maxEventBytes {
				return fmt.Errorf("a line has more than %d bytes", maxEventBytes)
			}
			continue
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := fn(line); err != nil {
				return err
			}
		}
		long = long[:0]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
}

// maxWhole is up to how many bytes a document is split in memory, which takes a
// tenth of the time that decoding it does.
const maxWhole = 64 << 20

func eachDocument(in io.Reader, fn func([]byte) error) error {
	whole, err := io.ReadAll(io.LimitReader(in, maxWhole+1))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if len(whole) <= maxWhole {
		var found records
		limits := body.Limits{Records: math.MaxInt, Depth: math.MaxInt16, Members: math.MaxInt}
		if body.JSON(whole, limits, &found) == nil && !found.odd {
			return found.each(fn)
		}
		// Several documents, or something whose fault the gateway is to name.
	}
	buf := bufio.NewReader(io.MultiReader(bytes.NewReader(whole), in))
	d := json.NewDecoder(buf)
	if c, _ := buf.Peek(1); len(c) == 1 && c[0] == '[' {
		return eachElement(d, fn)
	}
	for {
		var document json.RawMessage
		err := d.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		var file struct{ Records []json.RawMessage }
		if json.Unmarshal(document, &file) != nil || file.Records == nil {
			file.Records = []json.RawMessage{document}
		}
		for _, event := range file.Records {
			if err := compacted(event, fn); err != nil {
				return err
			}
		}
	}
}

// records collects those of a document.
type records struct {
	all [][]byte
	odd bool // one of them is no object
}

func (r *records) Record(record *body.Record) {
	r.all = append(r.all, record.Raw)
	r.odd = r.odd || record.Problem != nil
}

func (r *records) Reset() { r.all, r.odd = nil, false }

func (r *records) each(fn func([]byte) error) error {
	for _, event := range r.all {
		if bytes.IndexByte(event, '\n') < 0 {
			if err := fn(event); err != nil {
				return err
			}
			continue
		}
		if err := compacted(event, fn); err != nil {
			return err
		}
	}
	return nil
}

func eachElement(d *json.Decoder, fn func([]byte) error) error {
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	for d.More() {
		var event json.RawMessage
		if err := d.Decode(&event); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		if err := compacted(event, fn); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return nil
}

func compacted(event []byte, fn func([]byte) error) error {
	var line bytes.Buffer
	if err := json.Compact(&line, event); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return fn(line.Bytes())
}
