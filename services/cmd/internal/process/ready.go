package process

import (
	"encoding/json"
	"fmt"
)

// readyLine is the one line on standard output by which scripts know that
// requests are served and where.
type readyLine struct {
	Message string     `json:"msg"`
	Listen  string     `json:"listen,omitempty"`
	Admin   string     `json:"admin,omitempty"`
	Rules   *RuleCount `json:"rules,omitempty"`
}

// RuleCount is how many rules are in force and how many were rejected.
type RuleCount struct {
	OK       int `json:"ok"`
	Rejected int `json:"rejected"`
}

// Listens notes where requests are served, which AnnounceReady tells.
func (p *Process) Listens(addr string) { p.ready.Listen = addr }

// AnnounceReady prints the line; rules may be nil.
func (p *Process) AnnounceReady(rules *RuleCount) error {
	line := p.ready
	line.Message, line.Admin, line.Rules = "ready", p.admin, rules
	return p.Print(line)
}

// Print writes a value as one line of JSON on standard output.
func (p *Process) Print(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if _, err := p.World.Stdout.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
