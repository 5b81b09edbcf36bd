package history

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
)

// DeadFilter chooses dead letters; what is empty chooses all.
type DeadFilter struct {
	Topic, Stage string
	// Reason is a part of the reason, in any case.
	Reason string
}

// Dead is a record that could not be processed.
type Dead struct {
	*dlqv1.DeadLetter
	// ID names it: the same however often it was written.
	ID string
	// Whole is false where the record itself is not kept here.
	Whole bool
	// Buried is when it was put into dlq.
	Buried time.Time
}

// deadPartitions is how many dlq has.
const deadPartitions = 1

// DeadLetters lists what of a tenant could not be processed.
func (h *History) DeadLetters(ctx context.Context, tenant string, f DeadFilter, limit int, cursor string) (Page[Dead], error) {
	reason := strings.ToLower(f.Reason)
	return walk(ctx, h, &query[Dead]{
		topic: bus.TopicDLQ, partitions: deadPartitions, name: queryName(bus.TopicDLQ, tenant, f), limit: limit,
		show: func(r *bus.Record) (Dead, string, bool) {
			d, ok := readDead(r, tenant)
			if !ok || f.Topic != "" && f.Topic != d.GetTopic() || f.Stage != "" && f.Stage != d.GetStage() ||
				reason != "" && !strings.Contains(strings.ToLower(d.GetReason()), reason) {
				return d, "", false
			}
			return d, d.ID, true
		},
	}, cursor)
}

// readDead decodes a tenant's dead letter. Records that say of no tenant whose
// they are belong to none.
func readDead(r *bus.Record, tenant string) (Dead, bool) {
	d, whole, ok := bus.ReadDeadLetter(r)
	if !ok || tenant == "" || d.GetTenant() != tenant {
		return Dead{}, false
	}
	return Dead{d, fmt.Sprintf("%s-%d-%d", d.GetTopic(), d.GetPartition(), d.GetOffset()), whole, r.Time}, true
}

// deadID takes an id apart.
func deadID(id string) (key string, ok bool) {
	m := regexp.MustCompile(`^([a-z]{1,32})-([0-9]{1,4})-([0-9]{1,18})$`).FindStringSubmatch(id)
	if m == nil {
		return "", false
	}
	partition, _ := strconv.Atoi(m[2])          // as the pattern has it
	offset, _ := strconv.ParseInt(m[3], 10, 64) // as the pattern has it
	return bus.DeadKey(m[1], partition, offset), true
}

// DeadLetter looks up one. The record is read where it stood, if it is still
// there and was too large to be kept.
func (h *History) DeadLetter(ctx context.Context, tenant, id string) (Dead, error) {
	key, ok := deadID(id)
	if !ok {
		return Dead{}, ErrNotFound
	}
	r, err := h.dead.find(ctx, h.log, key, h.budget())
	if err != nil {
		return Dead{}, err
	}
	d, ok := readDead(r, tenant)
	if !ok {
		return Dead{}, ErrNotFound
	}
	if !d.Whole {
		if err := h.recover(ctx, &d); err != nil {
			return Dead{}, err
		}
	}
	return d, nil
}

func (h *History) recover(ctx context.Context, d *Dead) error {
	offset := d.GetOffset()
	t := &tape{log: h.log, topic: d.GetTopic(), partition: int(d.GetPartition()), forward: true, lo: offset, hi: offset + 1}
	records, _, err := t.fetch(ctx, offset)
	if _, gone := errors.AsType[*bus.OutOfRangeError](err); gone {
		return nil
	}
	if err != nil {
		return err
	}
	if len(records) == 0 || records[0].Offset != offset {
		return nil // no longer there
	}
	d.Key, d.Value, d.Whole = records[0].Key, records[0].Value, true
	for _, hd := range records[0].Headers {
		d.Headers = append(d.Headers, &dlqv1.Header{Key: hd.Key, Value: hd.Value})
	}
	return nil
}

// Header is the last header of that name of the record that died.
func (d *Dead) Header(name string) (value string) {
	for _, h := range d.GetHeaders() {
		if h.GetKey() == name {
			value = string(h.GetValue())
		}
	}
	return value
}
