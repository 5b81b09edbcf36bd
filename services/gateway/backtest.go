package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// Backtests runs rules over the log: it calls tell for each line of the answer
// but for errors, and returns where tell fails.
type Backtests interface {
	Backtest(ctx context.Context, b *Backtest, tell func(*BacktestLine) error) error
}

// Backtest is what is asked.
type Backtest struct {
	Tenant   string
	From, To time.Time
	// Rules are put to all events; nil puts to each those that it was stamped with.
	Rules *sigma.Set
	// Updates tells too what alerts came to at the close of their buckets.
	Updates bool
}

// BacktestLine is one line of the answer: one of its fields is set.
type BacktestLine struct {
	Progress *BacktestProgress `json:"progress,omitempty"`
	// Alert is as a webhook carries it in data.
	Alert   json.RawMessage  `json:"alert,omitempty"`
	Summary *BacktestSummary `json:"summary,omitempty"`
	// Error ends an answer that has no summary.
	Error string `json:"error,omitempty"`
}

// BacktestProgress is how many records of the log have been read, of how many.
type BacktestProgress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// BacktestSummary is the last line.
type BacktestSummary struct {
	Events int64 `json:"events"`
	// Failed are events that could not be processed.
	Failed int64          `json:"failed"`
	Alerts int64          `json:"alerts"`
	Rules  []BacktestRule `json:"rules"`
	// Problems are those of the rules that were sent.
	Problems []ruleProblem `json:"problems"`
	// LogBegins is when the first event was received that the log holds, where it no
	// longer holds some that would have been read.
	LogBegins *time.Time `json:"log_begins,omitempty"`
}

// BacktestRule is a rule that has matched.
type BacktestRule struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Hits     int64  `json:"hits"`
	Alerts   int64  `json:"alerts"`
	Shadowed int64  `json:"shadow_alerts"`
}

type backtestRequest struct {
	From    *time.Time `json:"from"`
	To      *time.Time `json:"to"`
	Updates bool       `json:"updates"`
	// Files are the rules to try; without them each event meets those that ruled.
	Files *[]ruleFile `json:"files"`
}

const (
	// A line has so long to be taken.
	backtestLineTimeout = 30 * time.Second
	// Progress is told so often at most.
	backtestProgress = 200 * time.Millisecond
)

func (s *Service) backtest(c *gin.Context, id control.Identity) {
	var req backtestRequest
	if p := decode(c, &req, maxRulesBytes); p != nil {
		refuse(c, p)
		return
	}
	b, problems, errs := s.checkBacktest(&req, id.Tenant)
	if len(errs) > 0 {
		refuse(c, invalid(errs...))
		return
	}
	if s.deps.Backtests == nil {
		refuse(c, newProblem(http.StatusNotFound, codeNotFound, "this gateway runs no backtests"))
		return
	}
	select {
	case s.backtesting <- struct{}{}:
		defer func() { <-s.backtesting }()
	default:
		refuse(c, unavailable("this gateway runs a backtest already: try again when it is over", 10*time.Second))
		return
	}
	ctx := c.Request.Context()
	s.deps.Log.InfoContext(ctx, "backtest begins", "tenant", id.Tenant, "from", b.From, "to", b.To, "own_rules", b.Rules != nil)
	out := &lines{c: c, clock: s.deps.Clock}
	err := s.deps.Backtests.Backtest(ctx, b, func(line *BacktestLine) error {
		if s.draining.Load() {
			return errStopping
		}
		if line.Summary != nil {
			line.Summary.Problems = showProblems(problems)
		}
		return out.write(line)
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	s.deps.Log.WarnContext(ctx, "backtest failed", "tenant", id.Tenant, "error", err)
	_ = out.write(&BacktestLine{Error: err.Error()}) // whoever reads learns that there is no summary
}

var errStopping = errors.New("this gateway is stopping: try again")

func (s *Service) checkBacktest(req *backtestRequest, tenant string) (*Backtest, []sigma.Problem, []fieldError) {
	b := &Backtest{Tenant: tenant, To: s.deps.Clock(), Updates: req.Updates}
	if req.From == nil {
		return nil, nil, []fieldError{{"from", "is missing: give the time of the first event"}}
	}
	b.From = *req.From
	if req.To != nil {
		b.To = *req.To
	}
	if !b.From.Before(b.To) {
		return nil, nil, []fieldError{{"to", "must be after from"}}
	}
	if req.Files == nil {
		return b, nil, nil
	}
	if errs := checkRules(&rulesRequest{req.Files}); len(errs) > 0 {
		return nil, nil, errs
	}
	files := make([]ruleset.File, len(*req.Files))
	for i, f := range *req.Files {
		files[i] = ruleset.File{Name: f.File, Content: []byte(f.Content)}
	}
	plan := ruleset.Replace(nil, nil, files, s.deps.Rules)
	if plan.OK == 0 {
		errs := []fieldError{{"files", "hold no rule that compiles"}}
		for _, p := range showProblems(plan.Problems) {
			errs = append(errs, fieldError{fmt.Sprintf("%s:%d", p.File, p.Line), p.Message})
		}
		return nil, nil, errs
	}
	b.Rules, _ = sigma.Compile(plan.Rules(s.deps.Rules.Pipelines), s.deps.Rules)
	return b, plan.Problems, nil
}

// lines writes an answer of JSON lines as they come.
type lines struct {
	c     *gin.Context
	clock func() time.Time
	begun bool
	told  time.Time
}

func (l *lines) write(line *BacktestLine) error {
	now := l.clock()
	if line.Progress != nil {
		if line.Progress.Done < line.Progress.Total && now.Sub(l.told) < backtestProgress {
			return nil
		}
		l.told = now
	}
	if !l.begun {
		l.begun = true
		l.c.Header("Content-Type", "application/x-ndjson")
		l.c.Status(http.StatusOK)
	}
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	// It fails only where there is no connection, as in no real server.
	_ = http.NewResponseController(l.c.Writer).SetWriteDeadline(time.Now().Add(backtestLineTimeout))
	if _, err := l.c.Writer.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	l.c.Writer.Flush()
	return nil
}
