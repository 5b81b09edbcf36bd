package readme_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pages are all Markdown files that people read.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		found = append(found, names...)
	}
	require.Greater(t, len(found), 15)
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			require.FileExists(t, orDir(target), "%s links to %s", page, m[1])
			if anchor != "" {
				require.Contains(t, anchors(t, target), anchor, "%s links to %s", page, m[1])
			}
		}
	}
}

// orDir stands for a directory by something that is a file.
func orDir(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(root, "README.md")
	}
	return path
}

// anchors are those of a page's headings.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	var found []string
	for line := range strings.Lines(string(text)) {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			name := strings.ToLower(strings.TrimSpace(drop.ReplaceAllString(heading, "")))
			found = append(found, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return found
}

// TestDocsNameWhatExists holds that tests, targets, metrics and rooms which the
// pages name are there.
func TestDocsNameWhatExists(t *testing.T) {
	code := sources(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	named := regexp.MustCompile("`([^`\n]+)`")
	test := regexp.MustCompile(`^Test[A-Z]\w+$`)
	metric := regexp.MustCompile(`^stormbell_[a-z_]+$`)
	target := regexp.MustCompile(`^make ([a-z-]+)`)
	room := regexp.MustCompile(`^(services|tools|proto)/[\w./-]+$`)
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			switch name := m[1]; {
			case test.MatchString(name):
				require.Contains(t, code, "func "+name+"(", "%s names a test", page)
			case metric.MatchString(name):
				require.Contains(t, code, `"`+name+`"`, "%s names a metric", page)
			case target.MatchString(name):
				require.Contains(t, string(makefile), "\n"+target.FindStringSubmatch(name)[1]+":", "%s names a target", page)
			case room.MatchString(name) && !strings.HasPrefix(name, "services/rules"):
				_, err := os.Stat(filepath.Join(root, name))
				require.NoError(t, err, "%s names a room", page)
			}
		}
	}
}

// sources is all Go code of the repository, and the rules that ship.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, module := range []string{"services", "tools"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, _ os.DirEntry, err error) error {
			rule := strings.HasSuffix(path, ".yml") && strings.Contains(path, "/services/rules/")
			if err != nil || !rule && !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			if rule { // their names look like metrics
				text = []byte(regexp.MustCompile(`(?m)^name: (\w+)$`).ReplaceAllString(string(text), `name: "$1"`))
			}
			all.Write(text)
			return err
		})
		require.NoError(t, err)
	}
	return all.String()
}
