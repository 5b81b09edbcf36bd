// Package services_test holds the rules between the rooms of the house:
//
//	cmd → services → sigma, formats, internal/* → proto
//
// Services never import each other: topics are their only door. Pure rooms do
// no I/O and never read the clock. Only cmd/stormbell and tests know that there
// is an embedded broker.
package services_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root = "github.com/stormbell/stormbell/services"

	maxMethods   = 3  // of an interface
	maxMainLines = 40 // of a cmd/*/main.go
)

// services lists the rooms that ship as a service of their own.
func services() []string { return []string{"gateway", "correlator", "notifier", "archive", "agent"} }

// pure lists the rooms that compute and do nothing else, with all beneath them.
func pure() []string {
	return []string{"sigma", "formats", "correlator/window", "internal/event"}
}

// ioPackages lists the packages that a pure room must not import: they reach files,
// networks, processes, or the clock.
func ioPackages() []string {
	return []string{
		"os", "os/exec", "os/signal", "os/user", "io/ioutil", "path/filepath", "syscall",
		"net", "net/http", "net/rpc", "net/smtp", "crypto/tls", "database/sql", "log", "log/syslog", "plugin",
		"math/rand", "math/rand/v2", "crypto/rand",
		"github.com/segmentio/kafka-go", "github.com/redis/go-redis/v9", "github.com/gin-gonic/gin",
	}
}

// clock lists the names of package time that read the clock or wait for it.
func clock() []string {
	return []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
}

// A listed package is one line of what `go list -json` prints.
type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestRooms(t *testing.T) {
	pkgs := list(t, ".", os.Environ())
	require.NotEmpty(t, pkgs)
	require.Empty(t, violations(pkgs), "see the rule between rooms at the top of this file")
	require.Empty(t, syntax(t, pkgs))
}

// TestProgramsLinkTheirOwn: what a program links beyond its own service makes it
// larger, and slower to build after each edit. A gateway runs the correlator's
// code over the past and asks it which rules it takes.
func TestProgramsLinkTheirOwn(t *testing.T) {
	for name, others := range map[string][]string{"gateway": {"correlator"}, "correlator": nil, "notifier": nil} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/"+name).Output()
			require.NoError(t, err)
			linked := map[string]bool{}
			for line := range strings.Lines(string(out)) {
				room, ours := strings.CutPrefix(strings.TrimSpace(line), root+"/")
				if of := service(room); ours && of != "" && !isSettings(room) {
					linked[of] = true
				}
			}
			require.ElementsMatch(t, append(others, name), slices.Collect(maps.Keys(linked)))
		})
	}
}

// TestClientStaysInside: a type whose methods mention the client of Redis, hidden
// ones too, has the compiler put that client's 1,500 functions into each package
// that sees the type. That took seconds of each build after an edit.
func TestClientStaysInside(t *testing.T) {
	const client, most = "github.com/redis/go-redis/v9", 2000
	out, err := exec.CommandContext(t.Context(), "go", "list", "-export", "-f", "{{.ImportPath}} {{.Export}}",
		"./internal/state", "./cmd/internal/...", "./correlator", "./gateway", "./notifier").Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		room, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		compiled, err := os.ReadFile(file)
		require.NoError(t, err)
		mentions := bytes.Count(compiled, []byte(client))
		if room == root+"/internal/state" {
			require.Greater(t, mentions, most, "where the client belongs, it is seen")
			continue
		}
		require.Less(t, mentions, most, "%s has the client compiled into it: which type that it sees has methods with it?", room)
	}
}

// isSettings is true for what a service can be told: one file may serve a whole
// cluster, and each process reads it whole.
func isSettings(room string) bool { return path.Base(room) == "settings" }

// TestRoomsNotice seeds a module with one breach of each rule: a check that
// finds nothing there would find nothing anywhere.
func TestRoomsNotice(t *testing.T) {
	alone := append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	tests := []struct {
		name, file, source, want string
	}{
		{"service imports service", "gateway/g.go", `package gateway; import _ "` + root + `/notifier"`, "services/gateway imports"},
		{"service's test imports service", "gateway/g_test.go", `package gateway; import _ "` + root + `/notifier"`, "services/gateway (test) imports"},
		{"internal imports service", "internal/bus/b.go", `package bus; import _ "` + root + `/notifier"`, "services/internal/bus imports"},
		{"internal imports cmd", "internal/bus/b.go", `package bus; import _ "` + root + `/cmd/stormbell/up"`, "services/internal/bus imports"},
		{"pure imports internal", "sigma/s.go", `package sigma; import _ "` + root + `/internal/embedded"`, "services/sigma imports"},
		{"pure imports files", "formats/elb/e.go", `package elb; import _ "os"`, "services/formats/elb imports os"},
		{"pure imports network", "correlator/window/w.go", `package window; import _ "net/http"`, "services/correlator/window imports net/http"},
		{"pure reads clock", "sigma/s.go", `package sigma; import "time"; var T = time.Now()`, "reads the clock: time.Now"},
		{"pure reads clock by another name", "internal/event/e.go", `package event; import t "time"; var T = t.Since`, "reads the clock: time.Since"},
		{"pure reads clock without name", "internal/event/e.go", `package event; import . "time"; var T = Now()`, "dot import"},
		{"service imports embedded", "gateway/g.go", `package gateway; import _ "` + root + `/internal/embedded"`, "services/gateway imports"},
		{"other command imports embedded", "cmd/gateway/main.go", `package main; import _ "` + root + `/internal/embedded"; func main() {}`, "services/cmd/gateway imports"},
		{"code imports test support", "gateway/g.go", `package gateway; import _ "` + root + `/internal/embedded/embeddedtest"`, "services/gateway imports"},
		{"wide interface", "gateway/g.go", `package gateway; type Store interface { A(); B(); C(); D() }`, "Store has 4 methods"},
		{"long main", "cmd/gateway/main.go", "package main\n\nfunc main() {\n" + strings.Repeat("\t_ = 1\n", maxMainLines) + "}\n", "lines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := seeded(t, map[string]string{tt.file: tt.source})
			pkgs := list(t, dir, alone)
			found := append(violations(pkgs), syntax(t, pkgs)...)
			require.Len(t, found, 1)
			require.Contains(t, found[0], tt.want)
		})
	}
	t.Run("nothing wrong", func(t *testing.T) {
		pkgs := list(t, seeded(t, map[string]string{
			"gateway/g.go":      `package gateway; import (_ "os"; _ "time"; _ "` + root + `/sigma")`,
			"gateway/g_test.go": `package gateway; import _ "` + root + `/internal/embedded/embeddedtest"`,
			"sigma/s_test.go":   `package sigma; import ("os"; "time"); var _, _ = time.Now, os.Args`,
			"sigma/s.go":        `package sigma; import "time"; const T = time.Second; var now int; var _ = now`,
		}), alone)
		require.Empty(t, violations(pkgs))
		require.Empty(t, syntax(t, pkgs))
	})
}

// seeded writes a module in which all is well, and files on top of it.
func seeded(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"go.mod":                              "module " + root + "\n\ngo 1.26\n",
		"notifier/n.go":                       "package notifier",
		"sigma/zero.go":                       "package sigma",
		"internal/embedded/e.go":              "package embedded",
		"cmd/stormbell/up/up.go":              `package up; import _ "` + root + `/internal/embedded"`,
		"cmd/stormbell/main.go":               `package main; import _ "` + root + `/cmd/stormbell/up"; func main() {}`,
		"gateway/zero.go":                     "package gateway",
		"internal/event/zero.go":              "package event",
		"cmd/gateway/zero.go":                 "package main",
		"internal/bus/zero.go":                "package bus",
		"formats/elb/zero.go":                 "package elb",
		"correlator/window/z.go":              "package window",
		"correlator/c.go":                     `package correlator; import _ "` + root + `/correlator/window"`,
		"correlator/c_test.go":                `package correlator; import _ "` + root + `/internal/embedded"`,
		"internal/embedded/embeddedtest/e.go": `package embeddedtest; import _ "` + root + `/internal/embedded"`,
	}
	maps.Copy(all, files)
	for name, text := range all {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o700))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	}
	return dir
}

// list asks the go command for the packages of the module in dir.
func list(t *testing.T, dir string, env []string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		require.NoError(t, err)
		pkgs = append(pkgs, p)
	}
}

// violations returns one line for each import that crosses a wall.
func violations(pkgs []listed) []string {
	var found []string
	for _, p := range pkgs {
		room := strings.TrimPrefix(p.ImportPath, root+"/")
		for _, imp := range p.Imports {
			if why := forbidden(room, imp, isTestSupport(room)); why != "" {
				found = append(found, fmt.Sprintf("services/%s imports %s: %s", room, imp, why))
			}
		}
		tests := slices.Concat(p.TestImports, p.XTestImports)
		slices.Sort(tests)
		for _, imp := range slices.Compact(tests) {
			if why := forbidden(room, imp, true); why != "" {
				found = append(found, fmt.Sprintf("services/%s (test) imports %s: %s", room, imp, why))
			}
		}
	}
	return found
}

// forbidden says why code in room must not import imp, or nothing. Tests may
// use what is real: files, sockets, the clock, the embedded broker.
func forbidden(room, imp string, test bool) string {
	if !test && in(room, pure()) && slices.Contains(ioPackages(), imp) {
		return "a pure room does no I/O"
	}
	target, ours := strings.CutPrefix(imp, root+"/")
	if !ours {
		return ""
	}
	from, to := service(room), service(target)
	switch {
	case to != "" && from != "" && from != to:
		return "services never import each other: topics are their only door"
	case test:
		return ""
	case isTestSupport(target):
		return "only tests import test support"
	case in(target, []string{"cmd"}) && !in(room, []string{"cmd"}):
		return "nothing imports a command"
	case in(room, pure()) && !in(target, pure()):
		return "a pure room imports pure rooms only"
	case in(room, []string{"internal"}) && to != "" && !in(target, pure()):
		return "internal packages do not know the services"
	case in(target, []string{"internal/embedded"}) && !in(room, []string{"internal/embedded", "cmd/stormbell"}):
		return "only cmd/stormbell and tests know the embedded broker"
	}
	return ""
}

// in is true if room is one of rooms or lies beneath one.
func in(room string, rooms []string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return room == r || strings.HasPrefix(room, r+"/") })
}

// service is the service that room belongs to, if any.
func service(room string) string {
	first, _, _ := strings.Cut(room, "/")
	if slices.Contains(services(), first) {
		return first
	}
	return ""
}

// isTestSupport is true for packages made for tests, such as statetest.
func isTestSupport(room string) bool { return strings.HasSuffix(path.Base(room), "test") }

// syntax returns one line for each breach that shows in the source: a clock read
// in a pure room, a wide interface, a main that does more than start something.
func syntax(t *testing.T, pkgs []listed) []string {
	t.Helper()
	var found []string
	for _, p := range pkgs {
		room := strings.TrimPrefix(p.ImportPath, root+"/")
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			require.NoError(t, err)
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path.Join("services", room, name), src, parser.SkipObjectResolution)
			require.NoError(t, err)
			if in(room, pure()) {
				found = append(found, clockReads(fset, file)...)
			}
			if !isTestSupport(room) { // a conformance suite asks for all that its subjects offer
				found = append(found, wideInterfaces(fset, file)...)
			}
			if lines := fset.File(file.Pos()).LineCount(); in(room, []string{"cmd"}) && name == "main.go" && lines > maxMainLines {
				found = append(found, fmt.Sprintf("services/%s/main.go has %d lines: at most %d", room, lines, maxMainLines))
			}
		}
	}
	return found
}

func clockReads(fset *token.FileSet, file *ast.File) []string {
	local := ""
	for _, imp := range file.Imports {
		if p, _ := strconv.Unquote(imp.Path.Value); p != "time" {
			continue
		}
		local = "time"
		if imp.Name != nil {
			local = imp.Name.Name
		}
	}
	if local == "." {
		return []string{fset.Position(file.Pos()).Filename + ": a dot import of time hides the clock"}
	}
	if local == "" || local == "_" {
		return nil
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains(clock(), sel.Sel.Name) {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
			found = append(found, fmt.Sprintf("%s: a pure room reads the clock: time.%s", fset.Position(n.Pos()), sel.Sel.Name))
		}
		return true
	})
	return found
}

func wideInterfaces(fset *token.FileSet, file *ast.File) []string {
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if i, ok := spec.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
			found = append(found, fmt.Sprintf("%s: interface %s has %d methods: at most %d", fset.Position(n.Pos()), spec.Name.Name, i.Methods.NumFields(), maxMethods))
		}
		return true
	})
	return found
}
