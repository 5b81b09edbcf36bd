package sigma

// Directly is for tests outside the package: see directly.
func (m *Matcher) Directly() []*Rule { return m.directly() }
