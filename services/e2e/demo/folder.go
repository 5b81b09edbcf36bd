package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFiles bounds what a command line can name.
const maxFiles = 10_000

// folderPatience is patience where nobody knows how much there is to read.
const folderPatience = 30 * time.Minute

// folder plays CloudTrail files by the command line, and lists what fired.
func (s *show) folder(ctx context.Context) error {
	files, err := logFiles(s.opts.Data)
	if err != nil {
		return err
	}
	s.head(fmt.Sprintf("Stormbell: %s files of %s", thousands(len(files)), s.opts.Data))
	if err := s.start(ctx); err != nil {
		return err
	}
	s.step("post the files: stormbell send --shift-to-now")
	out, err := s.stage.stormbell(ctx, append([]string{"send", "--shift-to-now", "--source", trail}, files...)...)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	s.step("%s", lines[len(lines)-1])
	if err := s.settle(ctx, folderPatience); err != nil {
		return err
	}
	got, refused := alerts(s.receiver.Deliveries())
	s.step("all of it matched and counted; %s alerts, each delivered", thousands(len(got)))
	s.fired(got)
	if len(refused) > 0 {
		return s.failed(verdict{}, refused)
	}
	s.say("\n  Times were moved so that the newest event is now; late events count as others do in rules that fire at once.")
	s.say("  Rules that wait for a window to close have said nothing yet: `stormbell eval` closes all windows at the end.\n")
	return nil
}

// fired lists alerts by rule, the gravest first.
func (s *show) fired(got []alert) {
	s.head("What fired")
	byRule := map[string][]alert{}
	for _, a := range got {
		byRule[a.Rule.ID] = append(byRule[a.Rule.ID], a)
	}
	ids := slices.SortedFunc(maps.Keys(byRule), func(a, b string) int {
		return cmp.Or(cmp.Compare(weight(byRule[b][0].Rule.Level), weight(byRule[a][0].Rule.Level)), cmp.Compare(len(byRule[b]), len(byRule[a])), cmp.Compare(a, b))
	})
	files := titled(s.opts.Rules)
	for _, id := range ids {
		first := byRule[id][0]
		s.say("  %5d × %s %s %s", len(byRule[id]), s.level(first.Rule.Level), pad(plain(first.Rule.Title), titleWidth), s.dim(files[id]))
		s.say("          %s", s.dim("for instance: "+plain(first.Summary)))
	}
	if len(got) == 0 {
		s.say("  Nothing.")
	}
}

func weight(level string) int {
	return slices.Index([]string{"informational", "low", "medium", "high", "critical"}, level)
}

// logFiles finds CloudTrail files, compressed or not.
func logFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type().IsRegular() && (strings.HasSuffix(path, ".json") || strings.HasSuffix(path, ".json.gz")) {
			files = append(files, path)
		}
		if len(files) > maxFiles {
			return fmt.Errorf("more than %d files: name a folder with fewer", maxFiles)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for CloudTrail files: %w", err)
	}
	if len(files) == 0 {
		return nil, errors.New("no *.json or *.json.gz in " + dir + ": name a folder of CloudTrail files, DATA=DIR")
	}
	return files, nil
}
