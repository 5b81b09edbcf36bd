// Package config reads a component's settings: defaults from code, then one
// YAML file, then STORMBELL_… environment variables. It knows no component: it
// fills whatever struct it is given, by the struct's yaml, env and envPrefix
// tags. Command-line flags come last and are the caller's.
//
// A key that no component knows is an error with its line, so that a mistyped
// setting cannot be silently ignored. Secrets have the type seal.Secret, which
// does not print.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
	"go.yaml.in/yaml/v3"
)

// EnvPrefix begins the name of every environment variable that is a setting.
const EnvPrefix = "STORMBELL_"

const maxFileBytes = 1 << 20

// A Validator reports settings that cannot work.
type Validator interface {
	Validate() error
}

// Load overrides the settings in into, a pointer to a struct that holds the
// defaults, by the file at path, if path is not empty, and then by environ, in
// the form of os.Environ. It validates nothing.
func Load(into any, path string, environ []string) error {
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open configuration: %w", err)
		}
		defer func() { _ = f.Close() }() // only read
		data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		if err := Decode(into, data); err != nil {
			return fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	return Environment(into, environ)
}

// Decode overrides settings by one YAML document. Errors name the line, and
// nothing of a value.
func Decode(into any, data []byte) error {
	if len(data) > maxFileBytes {
		return fmt.Errorf("more than %d bytes", maxFileBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	err := decoder.Decode(into)
	if errors.Is(err, io.EOF) {
		return nil // empty, or comments alone
	}
	if err != nil {
		return clean(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document: keep the first and remove the others")
	}
	return nil
}

// clean rewords errors of the YAML decoder: it takes out Go's type names, and
// values, which may be secrets.
func clean(err error) error {
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, 0, len(typed.Errors))
	for _, line := range typed.Errors {
		line = regexp.MustCompile(`field (\S+) not found in type \S+`).ReplaceAllString(line, `unknown key "$1"`)
		line = regexp.MustCompile("(?s)cannot unmarshal (\\S+) `.*` into (\\S+)").ReplaceAllString(line, "a value of type $2 is needed here")
		line = regexp.MustCompile(`already set in type \S+`).ReplaceAllString(line, "is set twice")
		line = strings.NewReplacer("!!", "", "time.Duration", "duration (such as 10s or 5m)").Replace(line)
		lines = append(lines, line)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// Environment overrides settings by environment variables, in the form of
// os.Environ. A variable that is empty overrides nothing.
func Environment(into any, environ []string) error {
	vars := make(map[string]string)
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" && strings.HasPrefix(name, EnvPrefix) {
			vars[name] = value
		}
	}
	err := env.ParseWithOptions(into, env.Options{Environment: vars, Prefix: EnvPrefix})
	if err == nil {
		return nil
	}
	var all env.AggregateError
	if !errors.As(err, &all) {
		return fmt.Errorf("environment: %w", err)
	}
	var errs []error
	for _, e := range all.Errors {
		if parse, ok := errors.AsType[env.ParseError](e); ok { // its own text quotes the value
			e = fmt.Errorf("environment: setting %s takes a value of type %s", parse.Name, parse.Type)
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// Unknown returns, sorted, the names of the variables of environ, in the form of
// os.Environ, that look like settings of what defaults points to and are none: mistyped, most
// likely. They are no error, since Kubernetes sets such for services that begin
// like ours.
func Unknown(defaults any, environ []string) ([]string, error) {
	fields, err := env.GetFieldParamsWithOptions(defaults, env.Options{Environment: map[string]string{}, Prefix: EnvPrefix})
	if err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	known := make(map[string]bool)
	for _, f := range fields {
		known[f.Key] = true
	}
	var names []string
	for _, entry := range environ {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, EnvPrefix) && !known[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Print writes settings as YAML. Secrets come out as "[redacted]".
func Print(w io.Writer, settings any) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(settings), encoder.Close()); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}

// A Setting is one line of the reference.
type Setting struct {
	// Key is the path in the file, such as gateway.tls.cert_file.
	Key string
	// Env is the environment variable, or empty.
	Env     string
	Type    string
	Default string
	// Package, Struct and Field say where it is declared.
	Package, Struct, Field string
}

// Settings lists the settings of a struct in the order of their declaration.
// Elements of lists stand behind their list with [] in the key.
func Settings(defaults any) []Setting {
	return settings(reflect.ValueOf(defaults), "", EnvPrefix, true)
}

func settings(v reflect.Value, path, prefix string, inEnv bool) []Setting {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.New(v.Type().Elem())
		}
		v = v.Elem()
	}
	var out []Setting
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(field.Name)
		}
		key := path + name
		if strings.Contains(options, "inline") {
			out = append(out, settings(v.Field(i), path, prefix+field.Tag.Get("envPrefix"), inEnv)...)
			continue
		}
		if nested(field.Type) {
			out = append(out, settings(v.Field(i), key+".", prefix+field.Tag.Get("envPrefix"), inEnv && field.Tag.Get("envPrefix") != "")...)
			continue
		}
		s := Setting{
			Key: key, Type: typeName(field.Type), Default: fmt.Sprintf("%v", v.Field(i).Interface()),
			Package: v.Type().PkgPath(), Struct: v.Type().Name(), Field: field.Name,
		}
		if tag, _, _ := strings.Cut(field.Tag.Get("env"), ","); inEnv && tag != "" {
			s.Env = prefix + tag
		}
		if v.Field(i).IsZero() || s.Default == "[]" || s.Default == "map[]" {
			s.Default = zero(field.Type)
		}
		out = append(out, s)
		if field.Type.Kind() == reflect.Slice && nested(field.Type.Elem()) {
			out = append(out, settings(reflect.New(field.Type.Elem()), key+"[].", "", false)...)
		}
	}
	return out
}

// nested reports whether a type is a group of settings and not a setting.
func nested(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	_, text := reflect.PointerTo(t).MethodByName("UnmarshalText")
	_, own := reflect.PointerTo(t).MethodByName("UnmarshalYAML")
	return !text && !own
}

func typeName(t reflect.Type) string {
	switch {
	case t.String() == "time.Duration":
		return "duration"
	case t.String() == "seal.Secret":
		return "secret"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "map of " + typeName(t.Elem())
	case t.Kind() == reflect.Struct:
		return "group"
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "number"
	default:
		return "integer"
	}
}

func zero(t reflect.Type) string {
	switch {
	case t.String() == "time.Duration":
		return "0s"
	case t.Kind() == reflect.Bool:
		return "false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64:
		return "0"
	}
	return ""
}
