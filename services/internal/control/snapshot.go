package control

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// snapshot is one state of the topic. It is never changed once published.
type snapshot struct {
	tenants       map[string]*controlv1.Tenant
	keks          map[string]map[uint32]*controlv1.TenantKey
	keys          map[string]apiKey
	subscriptions map[string][]*controlv1.Subscription // by tenant, sorted by id
	silences      map[string][]*controlv1.Silence      // by tenant, sorted by id
	rules         map[string]*controlv1.Rule           // by hash
	manifests     map[string]scope                     // by scope
	byHash        map[string]*controlv1.Manifest
}

// apiKey is a verifier with what Authenticate answers for it.
type apiKey struct {
	*controlv1.APIKey
	identity Identity
}

// scope holds the manifests of one scope in the order of the log; the last one
// is in force.
type scope []ranked

type ranked struct {
	offset   int64
	manifest *controlv1.Manifest
}

// draft collects changes on top of a snapshot. It copies each map once, when
// that map first changes.
type draft struct {
	snapshot
	copied  map[string]bool
	changed bool
}

func newDraft(base *snapshot) *draft {
	return &draft{snapshot: *base, copied: make(map[string]bool)}
}

// own makes the map behind m writable.
func own[K comparable, V any](d *draft, kind string, m *map[K]V) map[K]V {
	if !d.copied[kind] {
		d.copied[kind] = true
		if *m = maps.Clone(*m); *m == nil {
			*m = make(map[K]V)
		}
	}
	d.changed = true
	return *m
}

// put stores an object as of an offset.
func (d *draft) put(object *controlv1.Control, offset int64) {
	switch o := object.GetObject().(type) {
	case *controlv1.Control_Tenant:
		own(d, "tenant", &d.tenants)[o.Tenant.GetId()] = o.Tenant
	case *controlv1.Control_TenantKey:
		d.putKEK(o.TenantKey.GetTenant(), o.TenantKey.GetVersion(), o.TenantKey)
	case *controlv1.Control_ApiKey:
		own(d, "key", &d.keys)[o.ApiKey.GetId()] = apiKey{APIKey: o.ApiKey, identity: identityOf(o.ApiKey)}
	case *controlv1.Control_Subscription:
		m := own(d, "subscription", &d.subscriptions)
		m[o.Subscription.GetTenant()] = replace(m[o.Subscription.GetTenant()], o.Subscription.GetId(), o.Subscription)
	case *controlv1.Control_Silence:
		m := own(d, "silence", &d.silences)
		m[o.Silence.GetTenant()] = replace(m[o.Silence.GetTenant()], o.Silence.GetId(), o.Silence)
	case *controlv1.Control_Rule:
		own(d, "rule", &d.rules)[string(o.Rule.GetHash())] = o.Rule
	case *controlv1.Control_Manifest:
		name := o.Manifest.GetScope()
		m := own(d, "manifest", &d.manifests)
		m[name] = append(m[name].without(o.Manifest.GetHash()), ranked{offset, o.Manifest})
		own(d, "hash", &d.byHash)[string(o.Manifest.GetHash())] = o.Manifest
	}
}

func (d *draft) putKEK(tenant string, version uint32, key *controlv1.TenantKey) {
	versions := maps.Clone(d.keks[tenant])
	if versions == nil {
		versions = make(map[uint32]*controlv1.TenantKey)
	}
	if versions[version] = key; key == nil {
		delete(versions, version)
	}
	own(d, "kek", &d.keks)[tenant] = versions
}

// remove drops the object under a key. A key of an unknown kind is ignored.
func (d *draft) remove(key string) {
	kind, rest, _ := strings.Cut(key, "/")
	first, second, _ := strings.Cut(rest, "/")
	switch kind {
	case "tenant":
		delete(own(d, kind, &d.tenants), first)
	case "kek":
		for version := range d.keks[first] {
			if KEKKey(first, version) == key {
				d.putKEK(first, version, nil)
			}
		}
	case "key":
		delete(own(d, kind, &d.keys), first)
	case "subscription":
		m := own(d, kind, &d.subscriptions)
		m[first] = replace(m[first], second, nil)
	case "silence":
		m := own(d, kind, &d.silences)
		m[first] = replace(m[first], second, nil)
	case "rule":
		for hash := range d.rules {
			if RuleKey([]byte(hash)) == key {
				delete(own(d, kind, &d.rules), hash)
			}
		}
	case "manifest":
		d.removeManifest(first, key)
	}
}

func (d *draft) removeManifest(name, key string) {
	for _, r := range d.manifests[name] {
		hash := r.manifest.GetHash()
		if ManifestKey(name, hash) != key {
			continue
		}
		own(d, "manifest", &d.manifests)[name] = d.manifests[name].without(hash)
		byHash := own(d, "hash", &d.byHash)
		delete(byHash, string(hash))
		for _, others := range d.manifests { // another scope may have the same
			for _, other := range others {
				byHash[string(other.manifest.GetHash())] = other.manifest
			}
		}
	}
}

// without returns a copy that lacks a manifest.
func (s scope) without(hash []byte) scope {
	out := make(scope, 0, len(s)+1)
	for _, r := range s {
		if string(r.manifest.GetHash()) != string(hash) {
			out = append(out, r)
		}
	}
	return out
}

// current returns the manifest in force, or nil.
func (s scope) current() *controlv1.Manifest {
	if len(s) == 0 {
		return nil
	}
	return s[len(s)-1].manifest
}

type identified interface {
	comparable
	GetId() string
}

// replace returns a copy of a list sorted by id in which the object with that
// id is v, or is missing if v is nil.
func replace[T identified](list []T, id string, v T) []T {
	var none T
	out := slices.DeleteFunc(slices.Clone(list), func(o T) bool { return o.GetId() == id })
	if v == none {
		return out
	}
	i, _ := slices.BinarySearchFunc(out, id, func(o T, id string) int { return cmp.Compare(o.GetId(), id) })
	return slices.Insert(out, i, v)
}
