package tiltfile_test

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"sigs.k8s.io/yaml"

	"github.com/stormbell/stormbell/tools/manifests"
)

// A kubeDeclaration is what a Tiltfile says of a cluster.
type kubeDeclaration struct {
	contexts []string
	registry string
	yaml     string
	parallel int
	images   map[string]*imageBuild
	grouped  map[string]*kubeResource // by the name of the resource
}

// An imageBuild is what one call of custom_build declares.
type imageBuild struct {
	cmd, deps, ignore []string
	pushes            bool
}

// A kubeResource is what one call of k8s_resource declares.
type kubeResource struct {
	name            string
	objects         []string // empty: the workload of the same name
	forwards        map[int]int
	hosts           []string
	links           map[string]string
	needs, labels   []string
	manual, renamed bool
}

// kubernetes are the built-ins for clusters.
func (e *evaluation) kubernetes() starlark.StringDict {
	e.found.kube.images, e.found.kube.grouped = map[string]*imageBuild{}, map[string]*kubeResource{}
	all := starlark.StringDict{"port_forward": starlark.NewBuiltin("port_forward", record("local_port", "container_port", "name", "host"))}
	for name, f := range map[string]builtinFunc{
		"allow_k8s_contexts": e.into(func(text string) { e.found.kube.contexts = append(e.found.kube.contexts, text) }),
		"default_registry":   e.into(func(text string) { e.found.kube.registry = text }),
		"update_settings":    e.updateSettings,
		"k8s_yaml":           e.into(func(text string) { e.found.kube.yaml += text }),
		"kustomize":          e.kustomize,
		"blob":               same,
		"decode_yaml_stream": decodeYAML,
		"custom_build":       e.customBuild,
		"k8s_resource":       e.kubeResource,
	} {
		all[name] = starlark.NewBuiltin(name, f)
	}
	return all
}

// into is a built-in that takes one text.
func (e *evaluation) into(take func(string)) builtinFunc {
	return func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		var one string
		if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &one); err != nil {
			return nil, err
		}
		take(one)
		return starlark.None, nil
	}
}

func (e *evaluation) updateSettings(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return starlark.None, starlark.UnpackArgs(b.Name(), args, kwargs, "max_parallel_updates", &e.found.kube.parallel) //nolint:wrapcheck // a test compares it
}

func same(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var one starlark.Value
	err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &one)
	return one, err //nolint:wrapcheck // a test compares it
}

func (e *evaluation) kustomize(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var dir string
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &dir); err != nil {
		return nil, err
	}
	set, err := manifests.Render(filepath.Join(e.dir, dir))
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the directory
	}
	return starlark.String(set.YAML), nil
}

func decodeYAML(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var stream string
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &stream); err != nil {
		return nil, err
	}
	var list []starlark.Value
	for doc := range strings.SplitSeq(stream, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
		value, err := toStarlark(o)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return starlark.NewList(list), nil
}

// toStarlark takes what YAML is read into.
func toStarlark(v any) (starlark.Value, error) {
	switch v := v.(type) {
	case nil:
		return starlark.None, nil
	case string:
		return starlark.String(v), nil
	case bool:
		return starlark.Bool(v), nil
	case float64:
		return starlark.Float(v), nil
	case []any:
		var list []starlark.Value
		for _, one := range v {
			value, err := toStarlark(one)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return starlark.NewList(list), nil
	case map[string]any:
		d := starlark.NewDict(len(v))
		for key, one := range v {
			value, err := toStarlark(one)
			if err == nil {
				err = d.SetKey(starlark.String(key), value)
			}
			if err != nil {
				return nil, err
			}
		}
		return d, nil
	default:
		return nil, fmt.Errorf("a value of type %T", v)
	}
}

func (e *evaluation) customBuild(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	var cmd starlark.Value
	var deps, ignore *starlark.List
	i := &imageBuild{}
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "ref", &name, "command", &cmd, "deps", &deps, "ignore?", &ignore, "skips_local_docker?", &i.pushes); err != nil {
		return nil, err
	}
	i.cmd, i.deps, i.ignore = words(cmd), words(deps), words(ignore)
	if e.found.kube.images[name] != nil {
		return nil, fmt.Errorf("image %s: is built twice", name)
	}
	e.found.kube.images[name] = i
	return starlark.None, nil
}

func (e *evaluation) kubeResource(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	r := &kubeResource{forwards: map[int]int{}, links: map[string]string{}}
	var named, trigger string
	var objects, forwards, links, needs, labels *starlark.List
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "workload?", &r.name, "new_name?", &named, "port_forwards?", &forwards, "objects?", &objects,
		"resource_deps?", &needs, "trigger_mode?", &trigger, "labels?", &labels, "links?", &links); err != nil {
		return nil, err
	}
	if named != "" {
		r.name, r.renamed = named, true
	}
	r.manual = trigger == "manual"
	r.objects, r.needs, r.labels = words(objects), words(needs), words(labels)
	for i := range length(forwards) {
		f := forwards.Index(i).(*starlarkstruct.Struct)
		r.forwards[number(attribute(f, "local_port"))] = number(attribute(f, "container_port"))
		r.hosts = append(r.hosts, text(attribute(f, "host")))
	}
	for i := range length(links) {
		l := links.Index(i).(*starlarkstruct.Struct)
		r.links[text(attribute(l, "name"))] = text(attribute(l, "url"))
	}
	if e.found.kube.grouped[r.name] != nil {
		return nil, fmt.Errorf("resource %s: is declared twice", r.name)
	}
	e.found.kube.grouped[r.name] = r
	return starlark.None, nil
}
