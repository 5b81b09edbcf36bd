package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/stormbell/stormbell/services/sigma"
	"github.com/stormbell/stormbell/tools/ledger"
)

// storyRules are the rules that the story sets off, by their files: the three
// steps that are bad by themselves, and what they add up to.
func storyRules() []string {
	return []string{
		"aws/console_login_without_mfa.yml",
		"aws/access_key_created.yml",
		"correlation/secrets_read_in_bulk.yml",
		"aws/cloudtrail_stopped.yml",
		"correlation/account_takeover.yml",
		"correlation/cloud_and_host_from_one_address.yml",
	}
}

// StoryRules are the ids of the rules, of a pack, that the story sets off.
func StoryRules(pack fs.FS) ([]string, error) {
	rules, err := readRules(pack, storyRules())
	ids := make([]string, 0, len(rules))
	for _, r := range rules {
		ids = append(ids, r.id)
	}
	return ids, err
}

// shown is the alert whose trace and payload are shown: it has passed every stage.
func shown() string { return "correlation/cloud_and_host_from_one_address.yml" }

// A rule is one whose alert is expected.
type rule struct{ file, id, title string }

// readRules reads what the files say of themselves. A rule whose file is not
// there stays expected, and will be missing.
func readRules(pack fs.FS, files []string) ([]rule, error) {
	rules := make([]rule, 0, len(files))
	for _, name := range files {
		text, err := fs.ReadFile(pack, name)
		if errors.Is(err, fs.ErrNotExist) {
			rules = append(rules, rule{file: name, title: "(the rule is not there)"})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read rule: %w", err)
		}
		docs, problems := sigma.Parse(text, name)
		if sigma.Rejected(problems) > 0 || len(docs) == 0 {
			return nil, fmt.Errorf("read rule %s: %v", name, problems)
		}
		at := slices.IndexFunc(docs, func(d sigma.Document) bool { return d.Title != "" })
		if at < 0 {
			return nil, fmt.Errorf("read rule %s: no document has a title", name)
		}
		rules = append(rules, rule{name, docs[at].ID, docs[at].Title})
	}
	return rules, nil
}

// titled finds the file of each rule id of a pack, for alerts that nobody expects.
func titled(dir string) map[string]string {
	files := map[string]string{}
	pack := os.DirFS(dir)
	_ = fs.WalkDir(pack, ".", func(name string, e fs.DirEntry, err error) error { // what cannot be read has no name
		if err != nil || e.IsDir() || path.Ext(name) != ".yml" {
			return nil //nolint:nilerr // see above
		}
		text, err := fs.ReadFile(pack, name)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		docs, _ := sigma.Parse(text, name)
		for i := range docs {
			files[docs[i].ID] = name
		}
		return nil
	})
	return files
}

// An alert is what is read of a delivery.
type alert struct {
	delivery *ledger.Delivery
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Summary  string    `json:"summary"`
	TraceID  string    `json:"trace_id"`
	Count    int       `json:"count"`
	Rule     struct {
		ID    string `json:"id"`
		Title string `json:"title"`
		Level string `json:"level"`
		Type  string `json:"type"`
	} `json:"rule"`
}

// alerts are the verified ones by the time of their first arrival, each once;
// refused are the reasons why others were not taken.
func alerts(got []ledger.Delivery) (all []alert, refused []string) {
	seen := map[string]bool{}
	for i := range got {
		d := &got[i]
		var body struct{ Data alert }
		switch {
		case d.Refused != "":
			refused = append(refused, d.Refused)
		case json.Unmarshal(d.Body, &body) != nil:
			refused = append(refused, "the body is not an alert")
		case !seen[body.Data.ID]:
			seen[body.Data.ID] = true
			body.Data.delivery = d
			all = append(all, body.Data)
		}
	}
	return all, refused
}

// A verdict is how what came compares with what was expected.
type verdict struct {
	missing []rule
	further []alert // of another rule, or a second one of the same
}

func judge(want []rule, got []alert) verdict {
	var v verdict
	left := slices.Clone(want)
	for i := range got {
		at := slices.IndexFunc(left, func(r rule) bool { return r.id != "" && r.id == got[i].Rule.ID })
		if at < 0 {
			v.further = append(v.further, got[i])
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	v.missing = left
	return v
}
