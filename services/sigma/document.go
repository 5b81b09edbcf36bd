package sigma

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Bounds of what is parsed. They are static, so the same sources are accepted
// everywhere.
const (
	// MaxSource is the largest source that Parse reads, in bytes.
	MaxSource = 4 << 20
	// MaxDocument is the largest single rule, in bytes.
	MaxDocument = 512 << 10
	// MaxNodes is how many YAML nodes a rule may have, aliases expanded.
	MaxNodes = 10_000
	// MaxDepth is how deep a rule's YAML may nest.
	MaxDepth = 64
)

// Severity says what a Problem means for its rule.
type Severity uint8

const (
	// Error rejects the rule.
	Error Severity = iota
	// Warning is lint: legal, but surely not what was meant. The rule runs.
	Warning
)

// String is "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Problem is something wrong with a rule, and where.
type Problem struct {
	File string
	// Line counts from 1.
	Line int
	// Field is the dotted path of the attribute, for example
	// "detection.selection.eventName|contains"; empty for the whole document.
	Field    string
	Message  string
	Severity Severity
	// Document is the line on which the rule's document begins, so that File
	// and Document together name one rule.
	Document int
}

// String is "file:line: field: message".
func (p Problem) String() string {
	where := fmt.Sprintf("%s:%d: ", p.File, p.Line)
	if p.Field != "" {
		where += p.Field + ": "
	}
	if p.Severity == Warning {
		where += "warning: "
	}
	return where + p.Message
}

// Rejected counts the documents that at least one error rejects.
func Rejected(problems []Problem) int {
	type place struct {
		file string
		line int
	}
	bad := map[place]bool{}
	for _, p := range problems {
		if p.Severity == Error {
			bad[place{p.File, p.Document}] = true
		}
	}
	return len(bad)
}

// Kind is what a document holds.
type Kind uint8

const (
	// KindDetection is a rule with a `detection` section.
	KindDetection Kind = iota + 1
	// KindCorrelation is a rule with a `correlation` section, or one that
	// `stormbell: type` defines.
	KindCorrelation
	// KindFilter is a filter, which other rules are joined with.
	KindFilter
)

// Document is one YAML document: one rule, checked for form but not yet against
// the others of its set.
type Document struct {
	File string
	// Line is where the document begins, counting from 1.
	Line int
	// Raw is the document's bytes without its "---" line.
	Raw  []byte
	Kind Kind
	// ID is the rule's `id`, else its `name`, else "sha256-" and the first 16
	// hex digits of Hash.
	ID    string
	Name  string
	Title string
	// Pipelines change this rule in place of those of Options; nil: those.
	// Whoever compiles sets them: a set may hold rules from several places.
	Pipelines []*Pipeline
	// Shadow says that its alerts go to nobody (`stormbell: shadow`).
	Shadow bool

	meta        meta
	detection   *detection
	correlation *correlationDoc
	filter      *filterDoc
}

// Hash is the SHA-256 of Raw: the identity of the document's content.
func (d *Document) Hash() [sha256.Size]byte { return sha256.Sum256(d.Raw) }

func contentID(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256-" + hex.EncodeToString(sum[:8])
}
