package sigma_test

import (
	"fmt"

	"github.com/stormbell/stormbell/services/sigma"
)

const rootLogin = `title: Root without MFA
id: root-login
level: high
logsource:
    product: aws
    service: cloudtrail
detection:
    selection:
        eventName: ConsoleLogin
        userIdentity.type: Root
    filter_mfa:
        additionalEventData.MFAUsed|contains: 'yes'
    condition: selection and not 1 of filter_*
`

const rootEvent = `{"eventName":"ConsoleLogin","userIdentity":{"type":"Root"},"additionalEventData":{"MFAUsed":"No"}}`

func Example() {
	docs, problems := sigma.Parse([]byte(rootLogin), "root.yml")
	set, more := sigma.Compile(docs, sigma.Options{})
	for _, p := range append(problems, more...) {
		fmt.Println(p)
	}
	m := set.Matcher()
	trail := sigma.LogSource{Product: "aws", Service: "cloudtrail"}
	for _, rule := range m.Match(sigma.Event{Raw: []byte(rootEvent), LogSource: trail, Strict: true}, nil) {
		fmt.Println(rule.Level, rule.Title)
	}
	// Output: high Root without MFA
}

func ExampleParse() {
	_, problems := sigma.Parse([]byte("title: Odd\nlogsource: {product: aws}\ndetection:\n    s:\n        eventName|contans: Login\n    condition: s\n"), "odd.yml")
	fmt.Println(problems[0])
	// Output: odd.yml:5: detection.s.eventName|contans: unknown modifier "contans"
}

func ExampleMatcher_Extract() {
	src := rootLogin + `---
title: Root logs in again and again
id: root-again
correlation:
    type: value_count
    rules: [root-login]
    group-by: [recipientAccountId]
    timespan: 1h
    condition: {field: sourceIPAddress, gte: 3}
`
	docs, _ := sigma.Parse([]byte(src), "root.yml")
	set, _ := sigma.Compile(docs, sigma.Options{})
	event := []byte(`{"eventName":"ConsoleLogin","userIdentity":{"type":"Root"},"recipientAccountId":"123","sourceIPAddress":"192.0.2.7"}`)
	m := set.Matcher()
	for _, rule := range m.Match(sigma.Event{Raw: event}, nil) {
		for _, c := range rule.Correlations {
			values, counted := m.Extract(event, c, rule.ID)
			fmt.Println(c.ID, values.Group, values.Fields, counted)
		}
	}
	// Output: root-again [123] [192.0.2.7] true
}

func ExampleLint() {
	docs, _ := sigma.Parse([]byte(`title: Never
logsource: {product: aws}
detection:
    selection: {eventName: ConsoleLogin}
    filter: {eventName|startswith: Console}
    condition: selection and not filter
`), "never.yml")
	for _, p := range sigma.Lint(docs, sigma.Options{}) {
		fmt.Println(p)
	}
	// Output: never.yml:4: detection: warning: no event can match this rule: the conditions on "eventName" exclude all that they demand
}

func ExampleParsePipelines() {
	pipelines, _ := sigma.ParsePipelines([]byte(`name: Our names
transformations:
    - type: field_name_mapping
      mapping: {eventName: event.action, userIdentity.type: user.kind}
`), "ours.yml")
	docs, _ := sigma.Parse([]byte(rootLogin), "root.yml")
	set, _ := sigma.Compile(docs, sigma.Options{Pipelines: pipelines})
	for _, rule := range set.Matcher().Match(sigma.Event{Raw: []byte(`{"event":{"action":"ConsoleLogin"},"user":{"kind":"Root"}}`)}, nil) {
		fmt.Println(rule.Title)
	}
	// Output: Root without MFA
}
