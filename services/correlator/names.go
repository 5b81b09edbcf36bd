package correlator

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stormbell/stormbell/services/correlator/window"
)

// names are what groups of the store have in common: their specs, which are read
// once, and the texts of their names. They only save work.
type names struct {
	specs   map[string]*window.Spec // by what an identity begins with
	texts   map[string]string
	tallies map[[3]string]string
}

func newNames() *names {
	return &names{specs: make(map[string]*window.Spec), texts: make(map[string]string), tallies: make(map[[3]string]string)}
}

// maxNames bounds each of them.
const maxNames = 4096

// identity is parseIdentity; the spec is that of all groups that have an equal one,
// and never changes.
func (n *names) identity(b []byte) (*window.Spec, groupName, error) {
	size := specSize(b)
	name, ok := n.name(b[size:])
	if ok {
		if spec := n.specs[string(b[:size])]; spec != nil {
			return spec, name, nil
		}
	}
	spec, parsed, err := parseIdentity(b)
	if err != nil {
		return nil, groupName{}, err
	}
	if !ok {
		return &spec, parsed, nil
	}
	if len(n.specs) >= maxNames {
		clear(n.specs)
	}
	n.specs[string(b[:size])] = &spec
	return &spec, name, nil
}

// specSize is how many bytes of an identity come before its name.
func specSize(b []byte) int {
	if len(b) == 0 || b[0] != identityVersion {
		return len(b)
	}
	for at := 1; at < len(b); {
		tag, kind, n := protowire.ConsumeTag(b[at:])
		if n < 0 || tag >= tagTenant && tag <= tagGroup {
			return at
		}
		value := protowire.ConsumeFieldValue(tag, kind, b[at+n:])
		if value < 0 {
			return at
		}
		at += n + value
	}
	return len(b)
}

// name reads the rest of an identity; ok is false where it is not just a name.
func (n *names) name(b []byte) (name groupName, ok bool) {
	for len(b) > 0 {
		tag, kind, size := protowire.ConsumeTag(b)
		if size < 0 || kind != protowire.BytesType {
			return groupName{}, false
		}
		v, length := protowire.ConsumeBytes(b[size:])
		if length < 0 {
			return groupName{}, false
		}
		b = b[size+length:]
		switch tag {
		case tagTenant:
			name.tenant = n.text(v)
		case tagCorrelation:
			name.correlation = n.text(v)
		case tagRevision:
			name.revision = n.text(v)
		case tagGroup:
			name.group = append(name.group, string(v))
		default:
			return groupName{}, false
		}
	}
	return name, true
}

func (n *names) text(b []byte) string {
	if s, ok := n.texts[string(b)]; ok {
		return s
	}
	if len(n.texts) >= maxNames {
		clear(n.texts)
	}
	s := string(b)
	n.texts[s] = s
	return s
}

// tallyKey is tallyKey, which hashes.
func (n *names) tallyKey(tenant, correlation, revision string) string {
	of := [3]string{tenant, correlation, revision}
	key, ok := n.tallies[of]
	if !ok {
		if len(n.tallies) >= maxNames {
			clear(n.tallies)
		}
		key = tallyKey(tenant, correlation, revision)
		n.tallies[of] = key
	}
	return key
}
