package tiltfile_test

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// root is the repository, where the Tiltfile lies.
const root = "../.."

// A resource is what one call of local_resource declares.
type resource struct {
	name              string
	cmd, serve        []string
	env, serveEnv     map[string]string
	deps, ignore      []string
	needs             []string // other resources
	labels            []string
	links             map[string]string // by text
	probe             *probe
	autoInit, manual  bool
	allowsConcurrence bool
}

// A probe is how Tilt learns that a resource is ready.
type probe struct {
	host, path string // path is empty for a mere connection
	port       int
	period     int
}

// A declaration is what a Tiltfile says to Tilt.
type declaration struct {
	resources []*resource
	settings  map[string]bool
	kube      kubeDeclaration
}

func (d *declaration) find(t *testing.T, name string) *resource {
	t.Helper()
	for _, r := range d.resources {
		if r.name == name {
			return r
		}
	}
	require.Failf(t, "no such resource", "%s", name)
	return nil
}

// declare evaluates the Tiltfile as `tilt SUBCOMMAND -- ARGS` does.
func declare(t *testing.T, subcommand string, args ...string) *declaration {
	t.Helper()
	d, err := evaluate(t, subcommand, args...)
	require.NoError(t, err)
	return d
}

func evaluate(t *testing.T, subcommand string, args ...string) (*declaration, error) {
	t.Helper()
	dir, err := filepath.Abs(root)
	require.NoError(t, err)
	e := &evaluation{dir: dir, args: args, flags: flag.NewFlagSet("Tiltfile", flag.ContinueOnError), found: &declaration{settings: map[string]bool{}}}
	e.flags.SetOutput(io.Discard)
	module := func(name string, members starlark.StringDict) starlark.Value {
		return &starlarkstruct.Module{Name: name, Members: members}
	}
	builtin := func(name string, f builtinFunc) starlark.Value { return starlark.NewBuiltin(name, f) }
	world := starlark.StringDict{
		"TRIGGER_MODE_AUTO":   starlark.String("auto"),
		"TRIGGER_MODE_MANUAL": starlark.String("manual"),
		"analytics_settings":  builtin("analytics_settings", e.setting("enable")),
		"version_settings":    builtin("version_settings", e.setting("check_updates")),
		"local_resource":      builtin("local_resource", e.localResource),
		"probe":               builtin("probe", record("period_secs", "timeout_secs", "http_get", "tcp_socket")),
		"http_get_action":     builtin("http_get_action", record("port", "host", "path")),
		"tcp_socket_action":   builtin("tcp_socket_action", record("port", "host")),
		"link":                builtin("link", record("url", "name")),
		"os": module("os", starlark.StringDict{"path": module("path", starlark.StringDict{
			"abspath": builtin("abspath", e.abspath),
			"join":    builtin("join", joinPath),
		})}),
		"config": module("config", starlark.StringDict{
			"define_bool":     builtin("define_bool", e.defineBool),
			"define_string":   builtin("define_string", e.defineString),
			"parse":           builtin("parse", e.parse),
			"tilt_subcommand": starlark.String(subcommand),
		}),
	}
	maps.Copy(world, e.kubernetes())
	options := &syntax.FileOptions{TopLevelControl: true}
	_, err = starlark.ExecFileOptions(options, &starlark.Thread{Name: t.Name()}, filepath.Join(dir, "Tiltfile"), nil, world)
	return e.found, err //nolint:wrapcheck // a test compares it
}

type builtinFunc = func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)

// An evaluation is one run of the Tiltfile.
type evaluation struct {
	dir   string
	args  []string
	flags *flag.FlagSet
	found *declaration
}

// setting records a built-in that takes one switch.
func (e *evaluation) setting(name string) builtinFunc {
	return func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		var on bool
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, name, &on); err != nil {
			return nil, err
		}
		e.found.settings[b.Name()+"."+name] = on
		return starlark.None, nil
	}
}

// record returns its arguments as a struct; those of other names are refused.
func record(names ...string) builtinFunc {
	return func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		values := make([]starlark.Value, len(names))
		pairs := make([]any, 0, 2*len(names))
		for i, name := range names {
			pairs = append(pairs, name+"?", &values[i])
		}
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, pairs...); err != nil {
			return nil, err
		}
		fields := starlark.StringDict{}
		for i, name := range names {
			if values[i] != nil {
				fields[name] = values[i]
			}
		}
		return starlarkstruct.FromStringDict(starlark.String(b.Name()), fields), nil
	}
}

func (e *evaluation) abspath(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &path); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(e.dir, path)
	}
	return starlark.String(path), nil
}

func joinPath(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	parts := make([]string, len(args))
	for i, a := range args {
		s, ok := starlark.AsString(a)
		if !ok {
			return nil, fmt.Errorf("os.path.join: %s is no string", a)
		}
		parts[i] = s
	}
	return starlark.String(filepath.Join(parts...)), nil
}

func (e *evaluation) defineBool(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name, usage string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "usage", &usage); err != nil {
		return nil, err
	}
	e.flags.Bool(name, false, usage)
	return starlark.None, nil
}

func (e *evaluation) defineString(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name, usage string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "usage", &usage); err != nil {
		return nil, err
	}
	e.flags.String(name, "", usage)
	return starlark.None, nil
}

// parse is as strict as Tilt: no flag that was not defined, nothing beside flags.
func (e *evaluation) parse(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
	if err := e.flags.Parse(e.args); err != nil {
		return nil, err //nolint:wrapcheck // a test compares it
	}
	if e.flags.NArg() > 0 {
		return nil, fmt.Errorf("positional arguments %q: none are expected", e.flags.Args())
	}
	set := starlark.NewDict(e.flags.NFlag())
	var err error
	e.flags.Visit(func(f *flag.Flag) {
		var value starlark.Value = starlark.String(f.Value.String())
		if getter, ok := f.Value.(flag.Getter); ok {
			if on, isBool := getter.Get().(bool); isBool {
				value = starlark.Bool(on)
			}
		}
		if failed := set.SetKey(starlark.String(f.Name), value); failed != nil {
			err = failed
		}
	})
	return set, err
}

func (e *evaluation) localResource(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	r := &resource{autoInit: true}
	trigger := "auto"
	var cmd, serve, probed starlark.Value
	var deps, ignore, needs, labels, links *starlark.List
	var env, serveEnv *starlark.Dict
	err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &r.name, "cmd?", &cmd, "deps?", &deps, "trigger_mode?", &trigger,
		"resource_deps?", &needs, "ignore?", &ignore, "auto_init?", &r.autoInit, "serve_cmd?", &serve,
		"allow_parallel?", &r.allowsConcurrence, "links?", &links, "labels?", &labels, "env?", &env,
		"serve_env?", &serveEnv, "readiness_probe?", &probed)
	if err != nil {
		return nil, err
	}
	r.manual = trigger == "manual"
	r.cmd, r.serve = words(cmd), words(serve)
	r.deps, r.ignore, r.needs, r.labels = words(deps), words(ignore), words(needs), words(labels)
	r.env, r.serveEnv = texts(env), texts(serveEnv)
	r.links = map[string]string{}
	for i := range length(links) {
		l := links.Index(i).(*starlarkstruct.Struct)
		r.links[text(attribute(l, "name"))] = text(attribute(l, "url"))
	}
	if p, ok := probed.(*starlarkstruct.Struct); ok {
		r.probe = probeOf(p)
	}
	e.found.resources = append(e.found.resources, r)
	return starlark.None, nil
}

func probeOf(p *starlarkstruct.Struct) *probe {
	out := &probe{period: number(attribute(p, "period_secs"))}
	for _, way := range []string{"http_get", "tcp_socket"} {
		if action, ok := attribute(p, way).(*starlarkstruct.Struct); ok {
			out.host, out.path, out.port = text(attribute(action, "host")), text(attribute(action, "path")), number(attribute(action, "port"))
		}
	}
	return out
}

// attribute is nil where a struct lacks it.
func attribute(s *starlarkstruct.Struct, name string) starlark.Value {
	v, err := s.Attr(name)
	if err != nil {
		return nil
	}
	return v
}

func text(v starlark.Value) string {
	s, _ := starlark.AsString(v)
	return s
}

func number(v starlark.Value) int {
	n, err := starlark.AsInt32(v)
	if err != nil {
		return 0
	}
	return n
}

func length(l *starlark.List) int {
	if l == nil {
		return 0
	}
	return l.Len()
}

// words are the members of a list. A command that is a string would go through
// a shell: it counts as one word.
func words(v starlark.Value) []string {
	switch v := v.(type) {
	case starlark.String:
		if v == "" {
			return nil
		}
		return []string{string(v)}
	case *starlark.List:
		var out []string
		for i := range length(v) {
			out = append(out, text(v.Index(i)))
		}
		return out
	default:
		return nil
	}
}

func texts(d *starlark.Dict) map[string]string {
	if d == nil {
		return nil
	}
	out := make(map[string]string, d.Len())
	for _, item := range d.Items() {
		out[text(item[0])] = text(item[1])
	}
	return out
}
