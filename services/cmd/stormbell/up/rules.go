package up

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	pack "github.com/stormbell/stormbell/services/rules"
	"github.com/stormbell/stormbell/services/sigma"
)

// everyone is the scope of rules that hold for all tenants.
const everyone = ""

// settle is how long files must rest before they are read: editors write in
// several steps.
const settle = 250 * time.Millisecond

// rules keeps the rules of all tenants: those that come with Stormbell, and
// those of the directories.
type rules struct {
	*up
	paths []string
	log   *slog.Logger
}

// load reads all rules and puts them in force. Rules that are rejected are
// reported; the version before them stays in force.
func (r *rules) load(ctx context.Context) (*process.RuleCount, error) {
	files, err := rulefiles.Read(r.paths...)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	current, _ := r.Control.Manifests("")
	before, _, err := ruleset.Documents(ctx, r.Control, current)
	if err != nil {
		return nil, fmt.Errorf("read the rules in force: %w", err)
	}
	opts := gatewayproc.Sigma(&r.Settings)
	if opts.Pipelines, err = rulefiles.Pipelines(r.Settings.Rules.Pipelines...); err != nil {
		return nil, fmt.Errorf("rules.pipelines: %w", err)
	}
	var defaults []ruleset.File
	if !r.opts.NoDefaultRules {
		if defaults, err = pack.Files(); err != nil {
			return nil, err //nolint:wrapcheck // it says what failed
		}
	}
	plan, replaced := ruleset.ReplaceBeside(defaults, before, files, opts)
	for _, title := range replaced {
		r.log.InfoContext(ctx, "rule takes the place of one that comes with stormbell", "rule_title", title)
	}
	for _, problem := range plan.Problems {
		log := r.log.With("at", fmt.Sprintf("%s:%d", problem.File, problem.Line), "field", problem.Field, "reason", problem.Message)
		if problem.Severity == sigma.Error {
			log.ErrorContext(ctx, "rule rejected")
		} else {
			log.WarnContext(ctx, "rule could be better")
		}
	}
	if len(plan.Documents) > 0 || len(current) > 0 {
		if _, err := r.Control.PushRules(ctx, everyone, plan.Documents); err != nil {
			return nil, fmt.Errorf("put rules in force: %w", err)
		}
	}
	r.log.Info("rules in force", "ok", plan.OK, "rejected", plan.Rejected, "kept", plan.Kept, "files", len(files), "default_rules", !r.opts.NoDefaultRules)
	return &process.RuleCount{OK: plan.OK, Rejected: plan.Rejected}, nil
}

// watch reads the rules again when files change or the operator asks for it.
func (r *rules) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.log.Warn("rules are not watched: send SIGHUP after a change", "error", err)
		watcher = &fsnotify.Watcher{} // its channels never say anything
	} else {
		defer func() { _ = watcher.Close() }()
		r.follow(watcher)
	}
	rest := time.NewTimer(time.Hour)
	rest.Stop()
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.opts.Reload:
			rest.Reset(0)
		case <-watcher.Events:
			rest.Reset(settle)
		case err := <-watcher.Errors:
			r.log.Warn("changes of rules may have been missed", "error", err)
			rest.Reset(settle)
		case <-rest.C:
			if err == nil {
				r.follow(watcher)
			}
			if _, err := r.load(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("rules are not read, those in force stay", "error", err)
			}
		}
	}
}

// follow watches all directories that there are by now.
func (r *rules) follow(watcher *fsnotify.Watcher) {
	dirs, err := rulefiles.Directories(slices.Concat(r.paths, rulefiles.PipelineFiles(r.Settings.Rules.Pipelines...))...)
	if err != nil {
		r.log.Warn("rules are not watched until they can be read", "error", err)
		return
	}
	for _, dir := range dirs {
		if err := watcher.Add(dir); err != nil {
			r.log.Warn("directory is not watched: send SIGHUP after a change", "path", dir, "error", err)
		}
	}
}
