package notifier

import (
	"slices"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
)

// targets returns whom an alert goes to, by the subscriptions of its tenant.
func targets(a *alertv1.Alert, subs []*controlv1.Subscription, nowMS int64) []*deliveryv1.Target {
	var out []*deliveryv1.Target
	for _, s := range subs {
		if s.GetTenant() != a.GetTenant() || s.GetDisabled() || expired(s, nowMS) {
			continue
		}
		if only := a.GetOnlyEndpoint(); only != "" && only != s.GetId() || only == "" && !matches(s.GetFilter(), a) {
			continue
		}
		out = append(out, &deliveryv1.Target{EndpointId: s.GetId(), SubscriptionRevision: s.GetRevision()})
	}
	return out
}

func expired(s *controlv1.Subscription, nowMS int64) bool {
	return s.GetExpiresMs() != 0 && s.GetExpiresMs() <= nowMS
}

// matches reports whether every list that is not empty contains a value of
// the alert.
func matches(f *controlv1.Filter, a *alertv1.Alert) bool {
	return wants(f.GetTypes(), alert.TypeOf(a)) && (len(f.GetRuleIds()) == 0 || slices.Contains(f.GetRuleIds(), a.GetRule().GetId())) &&
		alert.Severity(a.GetRule().GetLevel()) >= alert.Severity(f.GetMinLevel()) &&
		(len(f.GetTags()) == 0 || common(f.GetTags(), a.GetRule().GetTags())) &&
		(len(f.GetSources()) == 0 || common(f.GetSources(), a.GetSources()))
}

// wants reports whether a list of types contains one: without a list, alerts are
// wanted and nothing else.
func wants(types []string, kind string) bool {
	return len(types) == 0 && kind == alert.Type || slices.Contains(types, kind)
}

func common(want, have []string) bool {
	return slices.ContainsFunc(want, func(v string) bool { return slices.Contains(have, v) })
}
