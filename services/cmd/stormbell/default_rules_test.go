package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules"
)

// startUpAsIs starts `stormbell up` with the rules that come with it.
func startUpAsIs(t *testing.T, data string, args ...string) *instance {
	t.Helper()
	return startUpWith(t, data, slices.DeleteFunc(upArgs(data, args), func(arg string) bool { return arg == "--no-default-rules" }))
}

const stopped = `{"eventVersion":"1.09","eventID":"11111111-2222-4333-8444-555555555555","eventSource":"cloudtrail.amazonaws.com",` +
	`"eventName":"StopLogging","awsRegion":"us-east-1","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/dana"},` +
	`"sourceIPAddress":"203.0.113.77","eventTime":"TIME","recipientAccountId":"123456789012"}`

func TestUpDefaultRules(t *testing.T) {
	pack, err := rules.Files()
	require.NoError(t, err)
	dir, in := t.TempDir(), newInbox(t)
	writeFile(t, dir, "failed.yml", failedLogins)
	data := filepath.Join(t.TempDir(), "data")
	i := startUpAsIs(t, data, "--rules", dir)
	require.Equal(t, len(pack)+2, i.Rules.OK)
	require.Zero(t, i.Rules.Rejected)
	listed := i.must("", "rules", "list")
	require.Contains(t, listed, "stormbell:aws/cloudtrail_stopped.yml:1")
	require.Contains(t, listed, "Many failed logins")

	// They are in force.
	i.must("", "webhooks", "add", in.url)
	i.must(strings.Replace(stopped, "TIME", time.Now().UTC().Format(time.RFC3339), 1), "send", "-")
	shipped := idOf(t, pack, "cloudtrail_stopped")
	require.Equal(t, shipped, in.next(t).body.Data.Rule.ID)

	// One's own takes the place of one of theirs, which comes back when it is gone.
	title := func(want string) func() bool {
		return func() bool {
			return strings.Contains(i.must("", "rules", "list"), want)
		}
	}
	own := "title: My own\nid: " + shipped + "\nname: stormbell_cloudtrail_stopped\nlogsource: {product: aws}\ndetection: {s: {eventName: StopLogging}, condition: s}\n"
	path := writeFile(t, dir, "own.yml", own)
	require.Eventually(t, title("My own"), patience, 20*time.Millisecond)
	i.logged("rule takes the place of one that comes with stormbell", "CloudTrail stopped or deleted")
	require.NotContains(t, i.must("", "rules", "list"), "stormbell:aws/cloudtrail_stopped.yml")
	writeFile(t, dir, "own.yml", strings.Replace(own, "title: My own", "title: Mine, changed", 1))
	require.Eventually(t, title("Mine, changed"), patience, 20*time.Millisecond)
	require.NoError(t, os.Remove(path))
	require.Eventually(t, title("stormbell:aws/cloudtrail_stopped.yml"), patience, 20*time.Millisecond)
	require.Zero(t, i.stop(), i.errs.String())

	// They are left out on demand, in a data directory that had them too.
	i = startUp(t, data, "--rules", dir)
	require.Equal(t, 2, i.Rules.OK)
	require.NotContains(t, i.must("", "rules", "list"), "stormbell:")
	// A tenant can have them as its own.
	require.Contains(t, i.must("", "rules", "push", "stormbell:"), "rules: ")
	require.Contains(t, i.must("", "rules", "list"), "stormbell:aws/cloudtrail_stopped.yml:1")
}

// idOf finds the id of a rule by its name.
func idOf(t *testing.T, pack []ruleset.File, name string) string {
	t.Helper()
	for _, f := range pack {
		if strings.HasSuffix(f.Name, "/"+name+".yml") {
			m := regexp.MustCompile(`(?m)^id: (\S+)$`).FindSubmatch(f.Content)
			require.Len(t, m, 2)
			return string(m[1])
		}
	}
	require.Fail(t, "there is no such rule", name)
	return ""
}
