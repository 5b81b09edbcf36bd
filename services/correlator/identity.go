package correlator

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
)

// A group's identity is its spec and, for whoever looks into the store, its
// name. The spec is kept so that a group can be closed after its rule is gone.
//
// It is a byte of version and tagged fields, of which those that are zero are
// left out; a tag is never given another meaning. Version 1, without tags, is
// still read.
const identityVersion = 2

// Tags of an identity.
const (
	tagKind protowire.Number = iota + 1
	tagTimespan
	tagLateness
	tagMin
	tagRules
	tagTies
	tagSuppress
	tagOp1
	tagNumber1
	tagOp2
	tagNumber2
	tagExpr
	tagShape
	tagGap
	tagPercentile
	tagAnyAge

	tagLevel protowire.Number = 30

	tagTenant      protowire.Number = 20
	tagCorrelation protowire.Number = 21
	tagRevision    protowire.Number = 22
	tagGroup       protowire.Number = 23 // one for each value

	tagForget      protowire.Number = 40
	tagHistory     protowire.Number = 41
	tagLearn       protowire.Number = 42
	tagBaseline    protowire.Number = 43
	tagRatio       protowire.Number = 44
	tagMedian      protowire.Number = 45
	tagMaxSpeed    protowire.Number = 46
	tagMinDistance protowire.Number = 47
	tagTactics     protowire.Number = 70
	tagUpdates     protowire.Number = 90

	tagBefore protowire.Number = 100
	tagAfter  protowire.Number = 101

	tagOwnLateness protowire.Number = 110
)

// specInts and specTexts say where the fields of a spec are, by their tags.
func specInts(s *window.Spec) []taggedInt {
	return []taggedInt{
		{tagKind, intOf(&s.Kind)},
		{tagTimespan, intOf(&s.Timespan)},
		{tagLateness, intOf(&s.Lateness)},
		{tagMin, intOf(&s.Min)},
		{tagRules, intOf(&s.Rules)},
		{tagTies, boolOf(&s.StrictTies)},
		{tagSuppress, intOf(&s.Suppress)},
		{tagOp1, intOf(&s.Bounds[0].Op)},
		{tagOp2, intOf(&s.Bounds[1].Op)},
		{tagShape, intOf(&s.Shape)},
		{tagGap, intOf(&s.Gap)},
		{tagAnyAge, boolOf(&s.AnyAge)},
		{tagLevel, intOf(&s.Level)},
		{tagForget, intOf(&s.Extension.Forget)},
		{tagHistory, intOf(&s.Extension.History)},
		{tagLearn, intOf(&s.Extension.Learn)},
		{tagBaseline, intOf(&s.Extension.Baseline)},
		{tagRatio, intOf(&s.Extension.Ratio)},
		{tagMedian, boolOf(&s.Extension.Median)},
		{tagMaxSpeed, intOf(&s.Extension.MaxSpeed)},
		{tagMinDistance, intOf(&s.Extension.MinDistance)},
		{tagTactics, intOf(&s.Extension.Tactics)},
		{tagUpdates, boolOf(&s.Updates)},
		{tagBefore, intOf(&s.Before)},
		{tagAfter, intOf(&s.After)},
		{tagOwnLateness, boolOf(&s.OwnLateness)},
	}
}

func specTexts(s *window.Spec) []taggedText {
	return []taggedText{
		{tagNumber1, &s.Bounds[0].Number}, {tagNumber2, &s.Bounds[1].Number}, {tagExpr, &s.Expr}, {tagPercentile, &s.Percentile},
	}
}

type taggedInt struct {
	tag protowire.Number
	at  place64
}

type taggedText struct {
	tag protowire.Number
	at  *string
}

// place64 is an integer or truth value of any type, as 64 bits.
type place64 struct {
	get func() int64
	// set reports false where the value does not fit.
	set func(v int64) bool
}

func intOf[T ~int | ~int64 | ~uint8 | ~uint32](at *T) place64 {
	return place64{
		get: func() int64 { return int64(*at) },
		set: func(v int64) bool { *at = T(v); return int64(*at) == v },
	}
}

func boolOf(at *bool) place64 {
	return place64{
		get: func() int64 {
			if *at {
				return 1
			}
			return 0
		},
		set: func(v int64) bool { *at = v == 1; return v == 0 || v == 1 },
	}
}

func identity(s *window.Spec, d *detectionv1.Detection) []byte {
	b := []byte{identityVersion}
	for _, f := range specInts(s) {
		if v := f.at.get(); v != 0 {
			b = protowire.AppendTag(b, f.tag, protowire.VarintType)
			b = protowire.AppendVarint(b, protowire.EncodeZigZag(v))
		}
	}
	for _, f := range specTexts(s) {
		if *f.at != "" {
			b = appendText(b, f.tag, *f.at)
		}
	}
	b = appendText(b, tagTenant, d.GetTenant())
	b = appendText(b, tagCorrelation, d.GetCorrelationId())
	b = appendText(b, tagRevision, d.GetCorrelationRevision())
	for _, v := range d.GetGroup() {
		b = appendText(b, tagGroup, v)
	}
	return b
}

func appendText(b []byte, tag protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, tag, protowire.BytesType), v)
}

var errIdentity = errors.New("damaged group in the store: flush it, the log rebuilds it")

// groupName is what a group is of.
type groupName struct {
	tenant, correlation, revision string
	group                         []string
}

// parseIdentity reads a group's spec and name.
func parseIdentity(b []byte) (s window.Spec, name groupName, err error) {
	switch {
	case len(b) > 0 && b[0] == identityVersion:
		err = parseTagged(b[1:], &s, &name)
	case len(b) > 0 && b[0] == 1:
		err = parseUntagged(b[1:], &s, &name)
	default:
		err = errIdentity
	}
	if err != nil {
		return window.Spec{}, groupName{}, err
	}
	if err := s.Validate(); err != nil {
		return window.Spec{}, groupName{}, fmt.Errorf("%w: %w", errIdentity, err)
	}
	return s, name, nil
}

func parseTagged(b []byte, s *window.Spec, name *groupName) error {
	ints, texts := specInts(s), specTexts(s)
	texts = append(texts, taggedText{tagTenant, &name.tenant}, taggedText{tagCorrelation, &name.correlation}, taggedText{tagRevision, &name.revision})
	for len(b) > 0 {
		tag, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errIdentity
		}
		b = b[n:]
		known := false
		switch kind {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errIdentity
			}
			b = b[n:]
			for _, f := range ints {
				known = known || f.tag == tag && f.at.set(protowire.DecodeZigZag(v))
			}
		case protowire.BytesType:
			v, n := protowire.ConsumeString(b)
			if n < 0 {
				return errIdentity
			}
			b = b[n:]
			if known = tag == tagGroup; known {
				name.group = append(name.group, v)
			}
			for _, f := range texts {
				if f.tag == tag {
					*f.at, known = v, true
				}
			}
		default:
		}
		if !known {
			return fmt.Errorf("%w: field %d of its identity is not known to this correlator", errIdentity, tag)
		}
	}
	return nil
}

// parseUntagged reads version 1: the first seven fields of the spec in a row,
// then the texts of the name.
func parseUntagged(b []byte, s *window.Spec, name *groupName) error {
	for _, f := range specInts(s)[:7] {
		v, n := binary.Varint(b)
		if n <= 0 || !f.at.set(v) {
			return errIdentity
		}
		b = b[n:]
	}
	var texts []string
	for len(b) > 0 {
		v, n := protowire.ConsumeString(b)
		if n < 0 {
			return errIdentity
		}
		texts, b = append(texts, v), b[n:]
	}
	if len(texts) < 3 {
		return errIdentity
	}
	*name = groupName{texts[0], texts[1], texts[2], texts[3:]}
	return nil
}
