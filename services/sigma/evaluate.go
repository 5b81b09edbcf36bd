package sigma

// test evaluates a predicate over the values of its field.
func (m *Matcher) test(p *predicate) bool {
	v := &m.view
	if p.slot == keywordSlot {
		_ = v.scalars() // Match looks at the error
	}
	i := v.first(p.slot)
	switch p.kind {
	case predExists:
		return (i >= 0) == p.exists
	case predNull:
		if i < 0 {
			return true
		}
		for ; i >= 0; i = v.values[i].next {
			if v.values[i].kind == kindNull {
				return true
			}
		}
		return false
	case predRef:
		return i >= 0 && m.testRef(p, i)
	}
	for ; i >= 0; i = v.values[i].next {
		if kind := v.values[i].kind; kind != kindNull && kind != kindArray && m.testValue(p, i, kind) {
			return true
		}
	}
	return false
}

func (m *Matcher) testValue(p *predicate, i int32, kind valueKind) bool {
	v := &m.view
	switch p.kind {
	case predText:
		return m.testText(p, i, kind)
	case predRegex:
		return m.testRegex(p, i, kind)
	case predCIDR:
		return kind == kindString && inNets(p.nets, viewString(v.textOf(i)))
	default: // predCompare
		return (kind == kindNumber || kind == kindString) && m.testBounds(p, v.textOf(i))
	}
}

func (m *Matcher) testText(p *predicate, i int32, kind valueKind) bool {
	if p.anyValue {
		return true
	}
	v := &m.view
	text := v.textOf(i)
	if !p.cased {
		text = v.foldOf(i)
	}
	if p.exact != nil && p.exact.has(text) {
		return true
	}
	for j := range p.patterns {
		if p.patterns[j].match(text) {
			return true
		}
	}
	switch kind {
	case kindNumber:
		if len(p.numbers) > 0 {
			if canon, ok := m.canonical(v.textOf(i)); ok {
				_, found := p.numbers[string(canon)]
				return found
			}
		}
	case kindObject:
		if p.inner {
			return m.testInner(p, i)
		}
	}
	return false
}

// testInner tests the strings inside an object against the patterns that may
// match anywhere.
func (m *Matcher) testInner(p *predicate, i int32) bool {
	v := &m.view
	v.innerOf(i)
	for j := v.values[i].inner; j < v.values[i].innerEnd; j += 2 {
		text := v.inner[j]
		if !p.cased {
			text = v.inner[j+1]
		}
		for k := range p.patterns {
			if p.patterns[k].inner && p.patterns[k].match(text) {
				return true
			}
		}
	}
	return false
}

func (m *Matcher) testRegex(p *predicate, i int32, kind valueKind) bool {
	v := &m.view
	text := v.textOf(i)
	for j, re := range p.regexes {
		if l := &p.literals[j]; l.text != "" && !containsText(v.foldOf(i), l.text) {
			continue
		}
		if re.Match(text) {
			return true
		}
	}
	if kind != kindObject {
		return false
	}
	v.innerOf(i)
	for j := v.values[i].inner; j < v.values[i].innerEnd; j += 2 {
		for _, re := range p.regexes {
			if re.Match(v.inner[j]) {
				return true
			}
		}
	}
	return false
}

func (m *Matcher) testBounds(p *predicate, text []byte) bool {
	var d decimal
	var ok bool
	if p.part != partNone {
		n, is := datePartOf(p.part, viewString(text))
		if !is {
			return false
		}
		d, ok = decimalOf(n)
	} else {
		d, ok = parseDecimal(text, m.digits)
		if ok {
			m.digits = d.digits
		}
	}
	if !ok {
		return false
	}
	for j := range p.bounds {
		if p.bounds[j].holds(d) {
			return true
		}
	}
	return false
}

// testRef compares each value of the field with each of the other.
func (m *Matcher) testRef(p *predicate, first int32) bool {
	v := &m.view
	for i := first; i >= 0; i = v.values[i].next {
		if k := v.values[i].kind; k == kindNull || k == kindArray {
			continue
		}
		for j := v.first(p.ref.slot); j >= 0; j = v.values[j].next {
			if k := v.values[j].kind; k == kindNull || k == kindArray {
				continue
			}
			a, b := v.textOf(i), v.textOf(j)
			if !p.cased {
				a, b = v.foldOf(i), v.foldOf(j)
			}
			pat := pattern{kind: p.ref.kind, lit: viewString(b)}
			if pat.match(a) {
				return true
			}
		}
	}
	return false
}
