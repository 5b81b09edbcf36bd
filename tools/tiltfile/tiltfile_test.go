package tiltfile_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// modes are the ways to run.
func modes() map[string][]string {
	return map[string][]string{"cluster": nil, "embedded": {"--embedded"}, "kubernetes": {"--k8s"}}
}

// describe says of a resource what its users see.
func describe(r *resource) string {
	way := "auto"
	switch {
	case r.manual && r.autoInit:
		way = "once"
	case r.manual:
		way = "button"
	}
	out := fmt.Sprintf("%s %s %s", strings.Join(r.labels, "+"), r.name, way)
	if r.probe != nil {
		out += fmt.Sprintf(" probe=%s:%d%s", r.probe.host, r.probe.port, r.probe.path)
	}
	if len(r.needs) > 0 {
		out += " after=" + strings.Join(r.needs, ",")
	}
	return out
}

func TestResources(t *testing.T) {
	tests := []struct {
		name, subcommand string
		args, want       []string
	}{
		{"cluster", "up", nil, []string{
			"infrastructure redis auto probe=127.0.0.1:8084",
			"infrastructure kafka auto probe=127.0.0.1:8085",
			"infrastructure keys auto after=kafka,stormbell",
			"services gateway auto probe=127.0.0.1:8081/readyz after=kafka,keys",
			"services correlator auto probe=127.0.0.1:8082/readyz after=kafka,redis,keys",
			"services notifier auto probe=127.0.0.1:8083/readyz after=kafka,redis,keys",
			"build stormbell auto",
			"actions push-rules auto after=gateway,correlator,notifier",
			"actions send-events button after=gateway,correlator,notifier",
			"actions listen button after=gateway,correlator,notifier",
			"actions journey button after=gateway,correlator,notifier,push-rules",
		}},
		{"embedded", "up", []string{"--embedded", "--port", "9000"}, []string{
			"services stormbell auto probe=127.0.0.1:9001/readyz",
			"actions push-rules auto after=stormbell",
			"actions send-events button after=stormbell",
			"actions listen button after=stormbell",
			"actions journey button after=stormbell,push-rules",
		}},
		{"kubernetes", "up", []string{"--k8s"}, []string{
			"build images auto",
			"infrastructure keys auto after=namespace,stormbell",
			"build stormbell auto",
			"actions push-rules auto after=gateway,correlator-detect,correlator-correlate,notifier,setup",
			"actions send-events button after=gateway,correlator-detect,correlator-correlate,notifier,setup",
			"actions listen button after=gateway,correlator-detect,correlator-correlate,notifier,setup",
			"actions journey button after=gateway,correlator-detect,correlator-correlate,notifier,setup,push-rules",
		}},
		{"ci takes the journey by itself", "ci", []string{"--embedded"}, []string{
			"services stormbell auto probe=127.0.0.1:8081/readyz",
			"actions push-rules auto after=stormbell",
			"actions send-events button after=stormbell",
			"actions listen button after=stormbell",
			"actions journey once after=stormbell,push-rules",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := declare(t, tt.subcommand, tt.args...)
			var got []string
			for _, r := range d.resources {
				got = append(got, describe(r))
			}
			require.Equal(t, tt.want, got)
			require.Equal(t, map[string]bool{"analytics_settings.enable": false, "version_settings.check_updates": false}, d.settings)
		})
	}
}

func TestCommandLines(t *testing.T) {
	dir := t.TempDir()
	bin, home := filepath.Join(dir, "bin"), filepath.Join(dir, "cluster")
	tests := []struct {
		name       string
		args       []string
		cmd, serve string
	}{
		{"redis", nil, "go build -C tools -buildvcs=false -ldflags=-w -o BIN/ ./cmd/redis", "BIN/redis -port 8084 -dir HOME/redis"},
		{"kafka", nil, "go build -C tools -buildvcs=false -ldflags=-w -o BIN/ ./cmd/kafka", "BIN/kafka -port 8085 -dir HOME/kafka"},
		{"stormbell", nil, "go build -C services -buildvcs=false -ldflags=-w -o BIN/ ./cmd/stormbell", ""},
		{"keys", nil, "sh tools/tiltfile/keys.sh HOME BIN/stormbell", ""},
		{
			"gateway", nil, "go build -C services -buildvcs=false -ldflags=-w -o BIN/ ./cmd/gateway",
			"BIN/gateway --admin 127.0.0.1:8081 --listen 127.0.0.1:8080",
		},
		{"gateway", []string{"--debug"}, "go build -C services -buildvcs=false -o BIN/ ./cmd/gateway", "BIN/gateway --admin 127.0.0.1:8081 --listen 127.0.0.1:8080"},
		{"correlator", nil, "go build -C services -buildvcs=false -ldflags=-w -o BIN/ ./cmd/correlator", "BIN/correlator --admin 127.0.0.1:8082"},
		{"notifier", nil, "go build -C services -buildvcs=false -ldflags=-w -o BIN/ ./cmd/notifier", "BIN/notifier --admin 127.0.0.1:8083"},
		{"push-rules", nil, "BIN/stormbell rules push docs/examples/rules --key-file HOME/api-key", ""},
		{"push-rules", []string{"--rules", "mine"}, "BIN/stormbell rules push mine --key-file HOME/api-key", ""},
		{"listen", nil, "", "BIN/stormbell webhooks listen --key-file HOME/api-key"},
		{"journey", nil, "sh tools/tiltfile/journey.sh cluster BIN/stormbell --key-file HOME/api-key", ""},
		{"images", []string{"--k8s"}, "go build -C tools -buildvcs=false -ldflags=-w -o BIN/ ./cmd/images", ""},
		{"keys", []string{"--k8s"}, "sh tools/tiltfile/kubekeys.sh HOME BIN/stormbell", ""},
		{"listen", []string{"--k8s"}, "", "sh tools/tiltfile/reached.sh BIN/stormbell webhooks listen --key-file HOME/api-key"},
		{"journey", []string{"--k8s"}, "sh tools/tiltfile/journey.sh kubernetes BIN/stormbell --key-file HOME/api-key", ""},
		{
			"stormbell",
			[]string{"--embedded"},
			"go build -C services -buildvcs=false -ldflags=-w -o BIN/ ./cmd/stormbell",
			"BIN/stormbell --admin 127.0.0.1:8081 up --listen 127.0.0.1:8080 --data HOME",
		},
	}
	for _, tt := range tests {
		t.Run(strings.Join(append([]string{tt.name}, tt.args...), " "), func(t *testing.T) {
			at := home
			for flag, other := range map[string]string{"--embedded": "embedded", "--k8s": "kubernetes"} {
				if slices.Contains(tt.args, flag) {
					at = filepath.Join(dir, other)
				}
			}
			short := strings.NewReplacer(bin, "BIN", at, "HOME").Replace
			r := declare(t, "up", append([]string{"--data", dir}, tt.args...)...).find(t, tt.name)
			require.Equal(t, tt.cmd, short(strings.Join(r.cmd, " ")))
			require.Equal(t, tt.serve, short(strings.Join(r.serve, " ")))
		})
	}
}

// TestSampleIsNewEachTime: what the button sends makes an alert each time it is
// pressed, so its events are of another user than before.
func TestSampleIsNewEachTime(t *testing.T) {
	r := declare(t, "up").find(t, "send-events")
	require.GreaterOrEqual(t, len(r.cmd), 5)
	cmd := exec.CommandContext(t.Context(), r.cmd[0], append(slices.Clone(r.cmd[1:4]), "cat")...) // cat in place of stormbell
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `^(\{"action":"login_failed","user":"dev-\d{6}","src_ip":"198\.51\.100\.7"\}\n){5}$`, string(out))
}

// TestEverythingWatched holds the watched paths against the imports: what a
// program is made of, and is not watched, would be served stale.
func TestEverythingWatched(t *testing.T) {
	dir, err := filepath.Abs(root)
	require.NoError(t, err)
	for mode, args := range modes() {
		for _, r := range declare(t, "up", args...).resources {
			if len(r.cmd) == 0 || r.cmd[0] != "go" {
				continue
			}
			t.Run(mode+"/"+r.name, func(t *testing.T) {
				for _, d := range r.deps {
					_, err := os.Stat(filepath.Join(dir, d))
					require.NoError(t, err, "watched, but not there")
				}
				apart := siblings()[r.name]
				if mode == "embedded" {
					apart = nil
				}
				require.Empty(t, missed(t, dir, r, r.deps, apart), "add them to the Tiltfile")
				require.Equal(t, []string{"**/*_test.go", "**/testdata", "**/*.md"}, r.ignore)
				require.Equal(t, "off", r.env["GOWORK"])
			})
		}
	}
}

// siblings are what a program links of others and is not built again for. A gateway
// runs the correlator's code over the past alone; the command beside a cluster is
// built for its own code and what is shared.
func siblings() map[string][]string {
	return map[string][]string{
		"gateway":   {"services/correlator"},
		"stormbell": {"services/gateway", "services/correlator", "services/notifier"},
	}
}

// missed are the rooms of a program that are neither watched nor apart.
func missed(t *testing.T, dir string, r *resource, watched, apart []string) []string {
	t.Helper()
	var found []string
	for _, room := range rooms(t, dir, r) {
		covers := func(d string) bool { return room == d || strings.HasPrefix(room, d+"/") }
		if !slices.ContainsFunc(watched, covers) && !slices.ContainsFunc(apart, covers) {
			found = append(found, room)
		}
	}
	return found
}

// rooms are the directories of this repository whose packages a program is made of.
func rooms(t *testing.T, dir string, r *resource) []string {
	t.Helper()
	module := r.cmd[slices.Index(r.cmd, "-C")+1]
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", r.cmd[len(r.cmd)-1])
	cmd.Dir = filepath.Join(dir, module)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(out)) {
		if room, ours := strings.CutPrefix(strings.TrimSpace(line), "github.com/stormbell/stormbell/"); ours {
			found = append(found, room)
		}
	}
	require.Greater(t, len(found), 1)
	return found
}

// TestPorts: each mode's ports are on loopback, differ, and move together.
func TestPorts(t *testing.T) {
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)|-port (\d+)`)
	for mode, args := range modes() {
		t.Run(mode, func(t *testing.T) {
			seen := map[string]string{}
			d := declare(t, "up", append(args, "--port", "31000")...)
			for _, r := range d.resources {
				for _, m := range port.FindAllStringSubmatch(strings.Join(r.serve, " "), -1) {
					number := m[1] + m[2]
					require.Regexp(t, `^3100[0-5]$`, number)
					require.Empty(t, seen[number], "%s has the port of another", r.name)
					seen[number] = r.name
				}
				for _, url := range r.links {
					require.Contains(t, url, "http://127.0.0.1:3100")
				}
			}
			for _, r := range d.kube.grouped {
				for local := range r.forwards {
					require.Regexp(t, `^3100[0-6]$`, strconv.Itoa(local))
					require.Empty(t, seen[strconv.Itoa(local)], "%s has the port of another", r.name)
					seen[strconv.Itoa(local)] = r.name
				}
			}
			require.NotEmpty(t, seen)
		})
	}
}

func TestServicesAreProbedAndLinked(t *testing.T) {
	for mode, args := range modes() {
		for _, r := range declare(t, "up", args...).resources {
			if len(r.serve) == 0 || r.name == "listen" {
				continue
			}
			t.Run(mode+"/"+r.name, func(t *testing.T) {
				require.NotNil(t, r.probe)
				require.Equal(t, 1, r.probe.period)
				require.Equal(t, "127.0.0.1", r.probe.host)
				require.Equal(t, filepath.Base(r.serve[0]), r.name, "it serves what it builds")
				require.Contains(t, strings.Join(r.serve, " "), fmt.Sprint(r.probe.port), "it serves where it is probed")
				if r.labels[0] != "services" {
					return
				}
				require.False(t, r.allowsConcurrence, "builds of services take turns")
				admin := fmt.Sprintf("http://127.0.0.1:%d", r.probe.port)
				require.Equal(t, map[string]string{
					"ready?": admin + "/readyz", "metrics": admin + "/metrics", "pprof": admin + "/debug/pprof/",
				}, r.links)
			})
		}
	}
}

// TestSettingsExist holds environment variables against the reference, where
// secrets are marked: those must not be in a Tiltfile, nor keys in arguments.
func TestSettingsExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/reference/config.md"))
	require.NoError(t, err)
	known := map[string]string{"STORMBELL_URL": "text", "STORMBELL_CONFIG": "text"} // of commands
	for _, m := range regexp.MustCompile("(?m)^\\| `[a-z_.]+` \\| ([a-z ]+) \\|.*\\| `(STORMBELL_[A-Z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		known[m[2]] = m[1]
	}
	require.Equal(t, "secret", known["STORMBELL_SEAL_ROOT_KEY"])
	for mode, args := range modes() {
		if mode != "kubernetes" {
			args = append(args, "--config", "my.yaml")
		}
		for _, r := range declare(t, "up", args...).resources {
			for _, env := range []map[string]string{r.env, r.serveEnv} {
				for _, name := range slices.Sorted(maps.Keys(env)) {
					if name == "GOWORK" || name == "GOGC" || name == "GOMEMLIMIT" {
						continue // the go command's
					}
					require.Contains(t, known, name, "%s/%s", mode, r.name)
					require.NotEqual(t, "secret", known[name], "%s/%s: %s", mode, r.name, name)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"unknown flag", []string{"--nonsense"}, "nonsense"},
		{"argument", []string{"gateway"}, "gateway"},
		{"port no number", []string{"--port", "http"}, "--port http: use a number"},
		{"port of the system", []string{"--port", "80"}, "--port 80: use a number"},
		{"port too high", []string{"--port", "65530"}, "--port 65530: use a number"},
		{"two modes", []string{"--k8s", "--embedded"}, "--embedded: not with --k8s"},
		{"settings that a cluster has elsewhere", []string{"--k8s", "--config", "my.yaml"}, "--config: not with --k8s"},
		{"a registry for no cluster", []string{"--registry", "localhost:5000"}, "--registry: only with --k8s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := evaluate(t, "up", tt.args...)
			require.ErrorContains(t, err, tt.want)
		})
	}
}
