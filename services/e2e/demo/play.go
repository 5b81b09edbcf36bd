package demo

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/e2e/story"
)

// perFile is how many records a CloudTrail file of the story has.
const perFile = 100

// titleWidth is the room for the title of a rule.
const titleWidth = 50

// told is what the story has shown.
type told struct {
	want []rule

	mu   sync.Mutex
	sent map[string]request // by trace id
}

// story plays the day and its end.
func (s *show) story(ctx context.Context) error {
	want, err := readRules(os.DirFS(s.opts.Rules), storyRules())
	if err != nil {
		return err
	}
	t := &told{want: want, sent: map[string]request{}}
	s.program(want)
	s.head("Play")
	if err := s.start(ctx); err != nil {
		return err
	}
	end := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { s.watch(ctx, end, func(a alert) { s.tick(t, &a) }) })
	err = s.play(ctx, t)
	close(end)
	watcher.Wait()
	if err != nil {
		return err
	}
	return s.conclude(ctx, t)
}

// program says what is going to happen.
func (s *show) program(want []rule) {
	s.head("Stormbell: one working day of a small company, and how it ends")
	s.say("  Nobody in it exists. %s CloudTrail events of four people, their deployments and their", thousands(story.Benign))
	s.say("  applications: they must set off nothing. Then a stranger at %s signs in with the", story.Stranger)
	s.say("  password of %s, who is on leave, makes an access key, reads %d secrets, stops the trail,", story.Victim, story.Secrets)
	s.say("  and logs in to a server.")
	s.head(fmt.Sprintf("Expected: these %d alerts, each signed, and no other", len(want)))
	for _, r := range want {
		s.say("    %s %s", pad(r.title, titleWidth), s.dim(r.file))
	}
}

// play posts everything.
func (s *show) play(ctx context.Context, t *told) error {
	day := story.Ending(time.Now())
	var sum answer
	files := 0
	for chunk := range slices.Chunk(day.Routine, perFile) {
		a, err := s.client.file(ctx, trail, chunk)
		if err != nil {
			return err
		}
		sum.Accepted, sum.Late, sum.Rejected = sum.Accepted+a.Accepted, sum.Late+a.Late, append(sum.Rejected, a.Rejected...)
		files++
	}
	s.step("the day: %d CloudTrail files posted; %s events accepted, %d late, %d rejected", files, thousands(sum.Accepted), sum.Late, len(sum.Rejected))
	if sum.Accepted != len(day.Routine) || sum.Late > 0 {
		return fmt.Errorf("the day was not accepted as it should be: %d of %d events, %d late: %s", sum.Accepted, len(day.Routine), sum.Late, sum.Rejected)
	}
	if err := s.settle(ctx, patience); err != nil {
		return err
	}
	got, _ := alerts(s.receiver.Deliveries())
	s.step("the day: all of it matched and counted; %d alerts", len(got))
	if err := s.attack(ctx, t, day.Attack); err != nil {
		return err
	}
	s.step("%s", s.stranger("logs in to bastion-1, which its agent reports"))
	if err := s.post(ctx, t, "agent", day.Host); err != nil {
		return err
	}
	return s.settle(ctx, patience)
}

func (s *show) stranger(what string) string { return s.bold(story.Stranger) + "  " + what }

func (s *show) attack(ctx context.Context, t *told, events []story.Event) error {
	steps := map[string]string{
		"ConsoleLogin":    "signs in as " + story.Victim + " without a second factor",
		"CreateAccessKey": "makes an access key",
		"GetSecretValue":  fmt.Sprintf("reads %d secrets in 5 minutes", story.Secrets),
		"StopLogging":     "stops the trail",
	}
	before := ""
	for _, e := range events {
		if e.Name != before {
			s.step("%s", s.stranger(steps[e.Name]))
		}
		before = e.Name
		if err := s.post(ctx, t, trail, e); err != nil {
			return err
		}
	}
	return nil
}

// post sends one event, and notes its trace.
func (s *show) post(ctx context.Context, t *told, source string, e story.Event) error {
	t.mu.Lock() // an alert that comes at once must find the request
	defer t.mu.Unlock()
	r, a, err := s.client.event(ctx, source, e)
	if err != nil {
		return err
	}
	if a.Accepted != 1 || a.Late != 0 {
		return fmt.Errorf("%s was not accepted as it should be: %d accepted, %d late: %s", e.Name, a.Accepted, a.Late, a.Rejected)
	}
	t.sent[r.trace] = r
	return nil
}

// tick tells of an alert.
func (s *show) tick(t *told, a *alert) {
	mark, file := s.red("✗"), "not expected"
	if i := slices.IndexFunc(t.want, func(r rule) bool { return r.id == a.Rule.ID }); i >= 0 {
		mark, file = s.green("✓"), t.want[i].file
	}
	s.step("  %s %s %s %s", mark, s.level(a.Rule.Level), pad(plain(a.Rule.Title), titleWidth), s.dim(file))
}

// conclude compares, and shows one alert in full.
func (s *show) conclude(ctx context.Context, t *told) error {
	got, refused := alerts(s.receiver.Deliveries())
	v := judge(t.want, got)
	s.say("")
	if len(v.missing)+len(v.further)+len(refused) > 0 {
		return s.failed(v, refused)
	}
	s.say("  %s", s.green(fmt.Sprintf("✓ All %d expected alerts arrived, their signatures verify, and nothing else fired.", len(got))))
	at := slices.IndexFunc(t.want, func(r rule) bool { return r.file == shown() })
	one := got[slices.IndexFunc(got, func(a alert) bool { return a.Rule.ID == t.want[at].id })]
	if err := s.tree(ctx, &one, t.sent[one.TraceID]); err != nil {
		return err
	}
	if err := s.payload(&one); err != nil {
		return err
	}
	s.times(t, got)
	s.next()
	return nil
}

// failed names what is wrong.
func (s *show) failed(v verdict, refused []string) error {
	for _, r := range v.missing {
		s.say("  %s", s.red("✗ missing: "+r.title+" ("+r.file+")"))
	}
	files := titled(s.opts.Rules)
	for i := range v.further {
		a := &v.further[i]
		s.say("  %s", s.red(fmt.Sprintf("✗ not expected: %s (%s): %s", plain(a.Rule.Title), files[a.Rule.ID], plain(a.Summary))))
	}
	for _, why := range refused {
		s.say("  %s", s.red("✗ a delivery was refused: "+plain(why)))
	}
	return ErrFailed
}

// times tells how long it took.
func (s *show) times(t *told, got []alert) {
	s.head("Times")
	s.say("  from starting Stormbell to the first alert %12s", brief(got[0].delivery.At.Sub(s.began)))
	var all []time.Duration
	for i := range got {
		if r, ok := t.sent[got[i].TraceID]; ok {
			all = append(all, got[i].delivery.At.Sub(r.sent))
		}
	}
	s.say("  from an event's request to its webhook, of each alert, the request included:")
	for i := range got {
		s.say("    %s %10s", pad(plain(got[i].Rule.Title), titleWidth), brief(got[i].delivery.At.Sub(t.sent[got[i].TraceID].sent)))
	}
	slices.Sort(all)
	s.say("    median %s, slowest %s", brief(all[len(all)/2]), brief(all[len(all)-1]))
	s.say("  everything, building included: %.0f s", time.Since(s.opts.Began).Seconds())
}

// next names the commands to go on with.
func (s *show) next() {
	s.head("Go on")
	for _, line := range [][2]string{
		{"./bin/stormbell up", "serve, with the same rules, and keep what comes"},
		{"./bin/stormbell webhooks listen", "in a second terminal: print alerts as they come"},
		{"./bin/stormbell send --shift-to-now DIR/*.json.gz", "in a third: your own CloudTrail files"},
		{"make demo DATA=DIR", "this demo, with your own CloudTrail files"},
		{"make demo-cluster", "this demo, on a real Kafka and a real Redis"},
	} {
		s.say("  %s %s", pad(line[0], 52), s.dim(line[1]))
	}
	s.say("\n  The journey of an event: docs/JOURNEY.md. Rules: services/rules. What a webhook holds: docs/alerts.md.\n")
}
