// Package rules holds the Sigma rules that come with Stormbell. They are in
// force for all tenants unless `stormbell up --no-default-rules` leaves them
// out. docs/rules.md lists them.
package rules

import (
	"embed"
	"fmt"
	"io/fs"
	"path"

	"github.com/stormbell/stormbell/services/internal/ruleset"
)

//go:embed aws/*.yml host/*.yml correlation/*.yml
var pack embed.FS

// Prefix stands before the names of the rules that come with Stormbell, where a
// rule from disk has its path.
const Prefix = "stormbell:"

// Files returns the rules by name, such as "stormbell:aws/root_sign_in.yml".
func Files() ([]ruleset.File, error) { return read(false) }

// Tests returns the files of tests beside them.
func Tests() ([]ruleset.File, error) { return read(true) }

func read(tests bool) ([]ruleset.File, error) {
	names, err := fs.Glob(pack, path.Join("*", "*.yml"))
	if err != nil {
		return nil, fmt.Errorf("list the rules that come with it: %w", err)
	}
	var files []ruleset.File
	for _, name := range names {
		if ruleset.IsTest(name) != tests {
			continue
		}
		content, err := pack.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the rules that come with it: %w", err)
		}
		files = append(files, ruleset.File{Name: Prefix + name, Content: content})
	}
	return files, nil
}
