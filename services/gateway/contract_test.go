package gateway_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/stormbell/stormbell/services/gateway"
)

const contractFile = "../../docs/reference/openapi.yaml"

// A contract is the OpenAPI document. The schemas of OpenAPI 3.1 are JSON
// Schema 2020-12, and a validator of that reads them where they stand.
type contract struct {
	root     map[string]any
	compiler *jsonschema.Compiler
	all      []operation
}

// object is one of the document, with the JSON pointer at which it stands.
type object struct {
	at     string
	values map[string]any
}

func readContract(t testing.TB) *contract {
	t.Helper()
	text, err := os.ReadFile(contractFile)
	require.NoError(t, err)
	c := &contract{compiler: jsonschema.NewCompiler()}
	require.NoError(t, yaml.Unmarshal(text, &c.root))
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	require.NoError(t, c.compiler.AddResource(contractFile, c.root))
	c.all = c.operations(t)
	return c
}

// child returns a member of o, through a reference if it is one; nil values
// where there is none.
func (c *contract) child(o object, name string) object {
	escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	values, _ := o.values[name].(map[string]any)
	found := object{o.at + "/" + escaped, values}
	ref, ok := values["$ref"].(string)
	if !ok {
		return found
	}
	found = object{"#", c.root}
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		found = c.child(found, name)
	}
	return found
}

// schema compiles the schema at o, so that a broken one fails the test.
func (c *contract) schema(t testing.TB, o object) *jsonschema.Schema {
	t.Helper()
	s, err := c.compiler.Compile(contractFile + o.at)
	require.NoError(t, err)
	return s
}

// An operation is one method of one path of the document.
type operation struct {
	object
	method, path string
	scope        string // empty where no key is needed
	pattern      *regexp.Regexp
}

func (c *contract) operations(t testing.TB) []operation {
	t.Helper()
	var all []operation
	paths := c.child(object{"#", c.root}, "paths")
	for path := range paths.values {
		item := c.child(paths, path)
		for method := range item.values {
			if method == "parameters" {
				continue
			}
			o := operation{object: c.child(item, method), method: strings.ToUpper(method), path: path}
			o.pattern = regexp.MustCompile("^" + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "[^/]+") + "$")
			require.NotEmpty(t, o.values["operationId"], "%s %s", o.method, path)
			needs, ok := o.values["security"].([]any)
			require.True(t, ok, "%s %s says what key it needs", o.method, path)
			for _, need := range needs {
				scopes := need.(map[string]any)["key"].([]any)
				require.Len(t, scopes, 1)
				o.scope = scopes[0].(string)
			}
			all = append(all, o)
		}
	}
	return all
}

// find returns the operation that a request is one of.
func (c *contract) find(req *http.Request) (operation, bool) {
	for _, o := range c.all {
		if o.method == req.Method && o.pattern.MatchString(req.URL.EscapedPath()) {
			return o, true
		}
	}
	return operation{}, false
}

// violations returns what the document does not allow in an answer.
func (c *contract) violations(t testing.TB, o operation, r reply) []string {
	t.Helper()
	response := c.child(c.child(o.object, "responses"), strconv.Itoa(r.status))
	if response.values == nil {
		return []string{"status " + strconv.Itoa(r.status) + " is not described"}
	}
	var found []string
	headers := c.child(response, "headers")
	for name := range headers.values {
		header := c.child(headers, name)
		var value any = r.header.Get(name)
		if value == "" {
			if header.values["required"] == true {
				found = append(found, "header "+name+" is missing")
			}
			continue
		}
		if n, err := strconv.Atoi(r.header.Get(name)); err == nil {
			value = n
		}
		if err := c.schema(t, c.child(header, "schema")).Validate(value); err != nil {
			found = append(found, "header "+name+": "+err.Error())
		}
	}
	content := c.child(response, "content")
	if content.values == nil {
		if r.body != "" {
			found = append(found, "there is a body where none is described")
		}
		return found
	}
	media, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	described := c.child(content, media)
	if described.values == nil {
		return append(found, "content type "+media+" is not described")
	}
	parts := []string{r.body}
	if strings.HasSuffix(media, "ndjson") { // the schema is that of a line
		parts = slices.Collect(strings.Lines(r.body))
	}
	for _, part := range parts {
		var body any = part
		if strings.HasSuffix(media, "json") {
			var err error
			body, err = jsonschema.UnmarshalJSON(strings.NewReader(part))
			require.NoError(t, err)
		}
		if err := c.schema(t, c.child(described, "schema")).Validate(body); err != nil {
			found = append(found, err.Error())
		}
	}
	return found
}

// check holds an answer against the document.
func (c *contract) check(t testing.TB, req *http.Request, r reply) {
	t.Helper()
	require.NotEmpty(t, r.header.Get("X-Request-Id"))
	if r.status >= http.StatusBadRequest {
		require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
		require.EqualValues(t, r.status, r.json["status"])
		require.Equal(t, http.StatusText(r.status), r.json["title"])
		require.Equal(t, r.header.Get("X-Request-Id"), r.json["request_id"])
		problem := c.child(c.child(c.child(object{"#", c.root}, "components"), "schemas"), "Problem")
		require.NoError(t, c.schema(t, problem).Validate(r.value(t)))
	}
	o, ok := c.find(req)
	if !ok {
		require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, r.status, "%s %s is not described", req.Method, req.URL.Path)
		return
	}
	require.Empty(t, c.violations(t, o, r), "%s %s: %d: %s", req.Method, req.URL.Path, r.status, r.body)
}

func (r reply) value(t testing.TB) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(r.body))
	require.NoError(t, err)
	return v
}

func TestContractNamesEveryRoute(t *testing.T) {
	c := readContract(t)
	var documented, served []string
	ids := map[any]bool{}
	for _, o := range c.all {
		documented = append(documented, o.method+" "+o.path)
		require.False(t, ids[o.values["operationId"]], "%v is there twice", o.values["operationId"])
		ids[o.values["operationId"]] = true
	}
	params := regexp.MustCompile(`:([a-z]+)`)
	for _, r := range gateway.Routes(newWorld(t).gateway().Service) {
		served = append(served, r.Method+" "+params.ReplaceAllString(r.Path, "{$1}"))
	}
	slices.Sort(documented)
	slices.Sort(served)
	require.Equal(t, served, documented, "docs/reference/openapi.yaml and the router")
}

// TestContractIsWhole follows every reference and compiles every schema.
func TestContractIsWhole(t *testing.T) {
	c := readContract(t)
	used := map[string]bool{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for i, e := range v {
				walk(at+"/"+strconv.Itoa(i), e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				used[ref] = true
				target := c.child(object{"", map[string]any{"x": v}}, "x")
				require.NotNil(t, target.values, "%s refers to %s, which is not there", at, ref)
				require.Len(t, v, 1, "%s: nothing stands beside a reference", at)
			}
			for name, e := range v {
				require.NotNil(t, e, "%s/%s: a value without quotes ends at a comma", at, name)
				walk(at+"/"+name, e)
			}
		}
	}
	walk("#", c.root)
	components := c.child(object{"#", c.root}, "components")
	for _, kind := range []string{"headers", "responses", "schemas"} {
		all := c.child(components, kind)
		for name := range all.values {
			require.True(t, used["#/components/"+kind+"/"+name], "%s %s is not used", kind, name)
			if kind == "schemas" {
				c.schema(t, c.child(all, name))
			}
		}
	}
}

// TestContractNotices holds the check itself: an answer that the document does
// not allow is found.
func TestContractNotices(t *testing.T) {
	c := readContract(t)
	e := newWorld(t).gateway()
	req := e.request(http.MethodGet, "/v1/status", "")
	good := e.send(req)
	o, ok := c.find(req)
	require.True(t, ok)
	require.Empty(t, c.violations(t, o, good))
	for name, body := range map[string]string{
		"member that is not described": strings.Replace(good.body, `"ready"`, `"x":1,"ready"`, 1),
		"member that is missing":       strings.Replace(good.body, `"tenant":"acme",`, ``, 1),
		"another type":                 strings.Replace(good.body, `"partitions":4`, `"partitions":"4"`, 1),
		"nothing":                      "null",
	} {
		bad := good
		bad.body = body
		require.NotEqual(t, good.body, bad.body, name)
		require.NotEmpty(t, c.violations(t, o, bad), name)
	}
	bad := good
	bad.status = http.StatusTeapot
	require.NotEmpty(t, c.violations(t, o, bad), "a status that is not described")
	bad = good
	bad.status, bad.header = http.StatusUnauthorized, http.Header{"Content-Type": {"application/problem+json"}}
	require.Contains(t, c.violations(t, o, bad), "header WWW-Authenticate is missing")
}

// TestContractListsEveryCode reads the codes off the source: each is in the
// document, and no other.
func TestContractListsEveryCode(t *testing.T) {
	c := readContract(t)
	schemas := c.child(c.child(object{"#", c.root}, "components"), "schemas")
	for name, files := range map[string][]string{
		"Problem":   {"problem.go"},
		"Rejection": {"batch.go", "../formats/body/body.go"},
	} {
		var coded, documented []string
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, m := range regexp.MustCompile(`(?mi)^\tcode\w+ += "(\w+)"`).FindAllSubmatch(text, -1) {
				coded = append(coded, string(m[1]))
			}
		}
		code := c.child(c.child(c.child(schemas, name), "properties"), "code")
		for _, v := range code.values["enum"].([]any) {
			documented = append(documented, v.(string))
		}
		slices.Sort(coded)
		slices.Sort(documented)
		require.Equal(t, coded, documented, name)
	}
}
