package alert

import (
	"fmt"
	"strings"
	"time"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
)

// summary is one sentence: who did what, from where, how often.
func summary(a *alertv1.Alert, how string) string {
	var b strings.Builder
	b.WriteString(some(a.GetPrincipals(), "principals", "An unknown principal"))
	verb := " did "
	if o := a.GetOutcomes(); len(o) == 1 && o[0] == "failure" {
		verb = " failed at "
	}
	switch actions := a.GetActions(); len(actions) {
	case 0:
		b.WriteString(verb + "something")
	case 1, 2, 3:
		b.WriteString(verb + strings.Join(actions, ", "))
	default:
		fmt.Fprintf(&b, "%s%d kinds of actions", verb, len(actions))
	}
	b.WriteString(onHosts(a.GetResources()))
	if ips := a.GetSourceIps(); len(ips) > 0 {
		b.WriteString(" from " + some(ips, "addresses", ""))
	}
	if how == "" {
		how = howOften(a)
	}
	b.WriteString(how)
	if accounts := a.GetAccounts(); len(accounts) == 1 {
		b.WriteString(" in account " + accounts[0])
	}
	if t := a.GetRule().GetTitle(); t != "" {
		b.WriteString(": " + strings.TrimRight(t, "."))
	}
	return cut(oneLine(b.String()), 2*maxText) + "."
}

// onHosts names the hosts among the resources: what is no ARN.
func onHosts(resources []string) string {
	var hosts []string
	for _, r := range resources {
		if !strings.HasPrefix(r, "arn:") {
			hosts = append(hosts, r)
		}
	}
	if len(hosts) == 0 {
		return ""
	}
	return " on " + some(hosts, "hosts", "")
}

func howOften(a *alertv1.Alert) string {
	least := ""
	if a.GetAtLeast() {
		least = "at least "
	}
	span := time.Duration(a.GetWindow().GetEndMs()-a.GetWindow().GetStartMs()) * time.Millisecond
	if TypeOf(a) == TypeUpdated {
		least, span = "in all "+least, time.Duration(a.GetLastTimeMs()-a.GetFirstTimeMs())*time.Millisecond
	}
	switch a.GetRule().GetType() {
	case "", "detection":
		return ""
	case "event_count":
		if a.GetCount() == 1 {
			return "" // as of an event alone
		}
		return fmt.Sprintf(", %s%d times within %s", least, a.GetCount(), human(span))
	case "value_count":
		return fmt.Sprintf(", with %s%d different values within %s", least, a.GetCount(), human(span))
	default:
		return fmt.Sprintf(", %s%d steps within %s", strings.TrimSuffix(least, "at least "), a.GetCount(), human(span))
	}
}

func some(list []string, plural, none string) string {
	switch len(list) {
	case 0:
		return none
	case 1:
		return list[0]
	case 2:
		return list[0] + " and " + list[1]
	default:
		return fmt.Sprintf("%d %s (%s, …)", len(list), plural, list[0])
	}
}

// Span writes a span as summaries do.
func Span(d time.Duration) string { return human(d) }

// human writes a span without zero parts: 5m, 1h30m, 7d.
func human(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}
