package rulefiles

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/sigma"
)

// WindowsSecurity names the built-in pipeline for rules of the Windows Security
// log about sign-ins.
const WindowsSecurity = "windows-security"

// MaxPipelines is how many pipelines there may be.
const MaxPipelines = 100

// windowsSecurity lets rules that ask for the event ids of sign-ins and for the
// names of the Security log match host events.
const windowsSecurity = `name: windows-security
priority: 10
transformations:
  - type: set_value
    value: success
    rule_conditions: [{type: logsource, product: windows, service: security}]
    field_name_conditions: [{type: include_fields, fields: [EventID]}]
    detection_item_conditions: [{type: match_string, cond: all, pattern: '^4624$'}]
  - type: set_value
    value: failure
    rule_conditions: [{type: logsource, product: windows, service: security}]
    field_name_conditions: [{type: include_fields, fields: [EventID]}]
    detection_item_conditions: [{type: match_string, cond: all, pattern: '^4625$'}]
  - type: field_name_mapping
    mapping: {EventID: Outcome}
    rule_conditions: [{type: logsource, product: windows, service: security}]
    detection_item_conditions: [{type: match_string, cond: all, pattern: '^(success|failure)$'}]
  - type: set_value
    value: login
    rule_conditions: [{type: logsource, product: windows, service: security}]
    field_name_conditions: [{type: include_fields, fields: [EventID]}]
    detection_item_conditions: [{type: match_string, cond: all, pattern: '^462[45]$'}]
  - type: field_name_mapping
    mapping: {EventID: EventType}
    rule_conditions: [{type: logsource, product: windows, service: security}]
    detection_item_conditions: [{type: match_string, cond: all, pattern: '^login$'}]
  - type: field_name_mapping
    mapping:
        TargetUserName: User
        IpAddress: SourceIp
        IpPort: SourcePort
        ProcessName: Process
        Computer: Hostname
    rule_conditions: [{type: logsource, product: windows, service: security}]
  - type: add_condition
    negated: true
    conditions: {EventType|exists: true, EventType|neq: login}
    rule_conditions: [{type: logsource, product: windows, service: security}]
`

// builtin returns the text of a pipeline of ours.
func builtin(name string) (string, bool) {
	switch name {
	case WindowsSecurity:
		return windowsSecurity, true
	case AWSS3Access:
		return awsS3Access, true
	case AWSELB:
		return awsELB, true
	case AWSVPCFlow:
		return awsVPCFlow, true
	}
	return "", false
}

// builtins names all pipelines of ours in a sentence.
const builtins = WindowsSecurity + ", " + AWSS3Access + ", " + AWSELB + ", " + AWSVPCFlow

// PipelineFiles returns those of the names that are files.
func PipelineFiles(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isRule(name) })
}

// Pipelines reads pipelines: built-in ones by their names, others from YAML
// files. The first fault refuses all: rules mean something else without one.
func Pipelines(names ...string) ([]*sigma.Pipeline, error) {
	var all []*sigma.Pipeline
	for _, name := range names {
		file, text := name, []byte(nil)
		if ours, ok := builtin(name); ok {
			file, text = "built-in/"+name, []byte(ours)
		} else if !isRule(name) {
			return nil, fmt.Errorf("pipeline %q: name a YAML file (*.yml, *.yaml) or a built-in one (%s)", name, builtins)
		} else {
			var err error
			if text, err = read(filepath.Clean(name)); err != nil {
				return nil, fmt.Errorf("pipeline: %w", err)
			}
		}
		found, problems := sigma.ParsePipelines(text, file)
		if len(problems) > 0 {
			return nil, fmt.Errorf("pipeline: %s", problems[0])
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("pipeline: %s holds none", file)
		}
		all = append(all, found...)
	}
	if len(all) > MaxPipelines {
		return nil, fmt.Errorf("%d pipelines: at most %d", len(all), MaxPipelines)
	}
	for _, p := range all {
		if len(p.Raw) > control.MaxRuleBytes {
			return nil, fmt.Errorf("pipeline: %s:%d: %d bytes: at most %d can be stored", p.File, p.Line, len(p.Raw), control.MaxRuleBytes)
		}
		if !sigma.IsPipeline(p.Raw) {
			return nil, errors.New("pipeline: " + sigma.Problem{File: p.File, Line: p.Line, Message: "has parts of a rule"}.String())
		}
	}
	return all, nil
}
