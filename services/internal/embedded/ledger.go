package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ledger is what was durable at the last retention pass: the ends of all
// partitions and the offsets of all groups. The next Open holds the log
// against it, and nothing is trimmed beyond the offsets in it.
type ledger struct {
	Version int                `json:"version"`
	Ends    map[string][]int64 `json:"ends"` // by topic and partition
	Commits []commit           `json:"commits"`
}

const (
	ledgerName    = "durable.json"
	ledgerVersion = 1
)

// readLedger returns an empty ledger where there is none yet.
func readLedger(dir string) (ledger, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ledgerName))
	if errors.Is(err, os.ErrNotExist) {
		return ledger{Version: ledgerVersion}, nil
	}
	var l ledger
	if err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err == nil && l.Version != ledgerVersion {
		err = fmt.Errorf("version %d, this program knows %d", l.Version, ledgerVersion)
	}
	if err != nil {
		return ledger{}, fmt.Errorf("read %s in %s: restore it from a backup, or delete it to go without its check: %w", ledgerName, dir, err)
	}
	return l, nil
}

func (l ledger) ends() map[partition]int64 {
	ends := make(map[partition]int64)
	for topic, list := range l.Ends {
		for i, end := range list {
			ends[partition{topic, int32(i)}] = end
		}
	}
	return ends
}

// record stores what is durable now and returns it. The order matters: ends
// and offsets are read first, and synced before the ledger names them.
func (b *Broker) record(ctx context.Context) (ledger, error) {
	topics, err := knownTopics(b.root())
	if err != nil {
		return ledger{}, err
	}
	commits, err := b.admin.commits(ctx)
	if err != nil {
		return ledger{}, err
	}
	ends, err := b.admin.ends(ctx, topics)
	if err != nil {
		return ledger{}, err
	}
	if b.cfg.Sync {
		if err := b.sync.flush(); err != nil {
			return ledger{}, err
		}
	}
	l := ledger{Version: ledgerVersion, Ends: make(map[string][]int64), Commits: commits}
	for name, info := range topics {
		l.Ends[name] = make([]int64, info.Partitions)
		for i := range info.Partitions {
			l.Ends[name][i] = ends[partition{name, int32(i)}]
		}
	}
	return l, b.writeLedger(l)
}

func (b *Broker) writeLedger(l ledger) error {
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if string(raw) == string(b.recorded) {
		return nil
	}
	if err := writeDurable(filepath.Join(b.cfg.Dir, ledgerName), raw); err != nil {
		return fmt.Errorf("write %s: %w", ledgerName, err)
	}
	b.recorded = raw
	return nil
}

// reconcile holds the groups' offsets against the log and the ledger. An
// offset beyond the end of its partition would silently skip the records to
// come; one that the ledger knows and the engine lost is put back.
func (b *Broker) reconcile(ctx context.Context, l ledger) error {
	commits, err := b.admin.commits(ctx)
	if err != nil {
		return err
	}
	topics, err := knownTopics(b.root())
	if err != nil {
		return err
	}
	ends, err := b.admin.ends(ctx, topics)
	if err != nil {
		return err
	}
	stored := make(map[commit]commit, len(commits))
	for _, c := range commits {
		stored[c.key()] = c
	}
	for _, c := range l.Commits {
		if _, ok := ends[partition{c.Topic, c.Partition}]; ok && stored[c.key()].Offset < c.Offset {
			b.log.Warn("putting back a group's offset that the log had lost", "group", c.Group, "topic", c.Topic, "partition", c.Partition, "offset", c.Offset)
			stored[c.key()] = c
			if err := b.admin.setCommit(ctx, c); err != nil {
				return err
			}
		}
	}
	var beyond []error
	for _, c := range stored {
		end := ends[partition{c.Topic, c.Partition}]
		if c.Offset <= end {
			continue
		}
		beyond = append(beyond, fmt.Errorf("group %s has read %s/%d up to offset %d, but it ends at %d", c.Group, c.Topic, c.Partition, c.Offset, end))
		if b.cfg.AllowCorrupt {
			c.Offset = end
			if err := b.admin.setCommit(ctx, c); err != nil {
				return err
			}
		}
	}
	if len(beyond) == 0 {
		return nil
	}
	if b.cfg.AllowCorrupt {
		b.log.Error("groups were ahead of the log and are set back to its end", "error", errors.Join(beyond...))
		return nil
	}
	return fmt.Errorf("the log in %s lost records that were already read, and new ones would be skipped: "+
		"restore the directory from a backup, or start once with --allow-corrupt to set the groups back to the end of the log:\n%w", b.cfg.Dir, errors.Join(beyond...))
}
