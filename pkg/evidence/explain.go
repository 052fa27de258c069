package evidence

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Explanation answers an auditor's questions about what a query means.
type Explanation struct {
	Query string `json:"query"`
	// Verified says that the ledger had no finding; Size is how many records
	// the answers rest on.
	Verified bool    `json:"verified"`
	Findings int     `json:"findings"`
	Size     uint64  `json:"size"`
	Head     string  `json:"head,omitempty"`
	Stories  []Story `json:"stories"`
}

// Story is one job, or one runner that no job reached.
type Story struct {
	Title   string        `json:"title"`
	Outcome string        `json:"outcome"`
	Job     runner.JobID  `json:"job,omitempty"`
	Runner  runner.Name   `json:"runner,omitempty"`
	URL     string        `json:"url,omitempty"`
	Answers []Answer      `json:"answers"`
	Reasons []ReasonGiven `json:"reasons,omitempty"`
}

// ReasonGiven is why a job may not run, as a code and in words.
type ReasonGiven struct {
	Code  string `json:"code"`
	Words string `json:"words"`
}

// Answer is the facts that answer one question.
type Answer struct {
	Question string `json:"question"`
	Facts    []Fact `json:"facts"`
}

// Fact is one thing that the log says, and the record that says it.
type Fact struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Record uint64 `json:"record"`
}

// Explain answers from a report of [Verify]. The query is the address of a run
// or a job on GitHub, a run id, a job's GUID, a runner's name or an instance
// id; a run of several jobs gives several stories. words says what a reason
// code means and may be nil. It is an error when nothing is meant by the
// query; the error says what was searched.
func Explain(rep *Report, text string, words func(code string) string) (*Explanation, error) {
	if rep.State == nil {
		return nil, errors.New("explain: the report holds no state")
	}
	found, err := resolve(rep.State, text)
	if err != nil {
		return nil, err
	}
	if words == nil {
		words = func(string) string { return "" }
	}
	out := &Explanation{
		Query: text, Verified: rep.OK(), Findings: len(rep.Findings), Size: rep.State.Size, Head: rep.Head,
		Stories: []Story{},
	}
	t := teller{state: rep.State, words: words}
	for _, id := range found.jobs {
		out.Stories = append(out.Stories, t.job(id))
	}
	for _, name := range found.runners {
		out.Stories = append(out.Stories, t.runner(name))
	}
	return out, nil
}

// teller turns the state into stories.
type teller struct {
	state *runner.State
	words func(string) string
}

// facts collects the facts of an answer; an empty value is left out, because
// it says that something is unknown.
type facts struct{ list []Fact }

func (f *facts) add(record uint64, name, format string, args ...any) {
	if value := strings.TrimSpace(fmt.Sprintf(format, args...)); value != "" {
		f.list = append(f.list, Fact{name, value, record})
	}
}

func (f *facts) answer(question string) Answer {
	if f.list == nil {
		f.list = []Fact{}
	}
	return Answer{question, f.list}
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

func person(p runner.Person) string {
	if p.ID == 0 && p.Login == "" {
		return ""
	}
	text := fmt.Sprintf("%s (id %d)", p.Login, p.ID)
	if p.Type != "" && p.Type != "User" {
		text += ", a " + p.Type
	}
	return text
}

func (t *teller) job(id runner.JobID) Story {
	job := t.state.Jobs[id]
	r := t.state.Runners[job.Runner]
	offered := job.Offered.Event
	s := Story{
		Title: fmt.Sprintf("job %s of run %d in %s", id, offered.RunID, offered.Repository),
		Job:   id, Runner: job.Runner, Outcome: t.jobOutcome(job, r),
	}
	if job.Authorized != nil {
		s.URL = address(job.Authorized.Event.Facts, r)
		s.Answers = append(s.Answers, t.approval(job), admitted(job))
	} else {
		s.Answers = append(s.Answers, asked(job))
	}
	if job.Denied != nil {
		s.Reasons = t.reasons(job.Denied.Event.Decision)
	}
	if r == nil {
		r = t.refuser(&s, id)
	}
	if r != nil {
		s.Answers = append(s.Answers, t.where(r))
	}
	s.Answers = append(s.Answers, t.course(job, r))
	return s
}

// address is the job's on GitHub, or its run's while the job's is not known.
func address(f runner.Facts, r *runner.Runner) string {
	checkRun := f.CheckRunID
	if r != nil && r.Started != nil {
		checkRun = r.Started.Event.Claims.CheckRunID
	}
	if checkRun == 0 {
		return fmt.Sprintf("%s/%s/actions/runs/%d", f.ServerURL, f.Repository, f.RunID)
	}
	return jobSubject(f, checkRun).Name
}

// refuser is the runner that turned the job away, if one did.
func (t *teller) refuser(s *Story, id runner.JobID) *runner.Runner {
	for _, name := range sortedNames(t.state.Runners) {
		r := t.state.Runners[name]
		if r.Refused != nil && r.Refused.Event.Job == id {
			s.Runner, s.Reasons = name, t.reasons(r.Refused.Event.Decision)
			s.Outcome = fmt.Sprintf("refused when it reached runner %s, %s", name, hostOutcome(r))
			return r
		}
	}
	return nil
}

func (t *teller) reasons(d runner.Decision) []ReasonGiven {
	var out []ReasonGiven
	for _, code := range d.Reasons {
		words := t.words(code)
		if words == "" {
			words = strings.NewReplacer("-", " ", "_", " ", ".", " ").Replace(code)
		}
		out = append(out, ReasonGiven{code, words})
	}
	return out
}

func (t *teller) jobOutcome(job *runner.Job, r *runner.Runner) string {
	switch {
	case job.Denied != nil:
		return "denied: it may not run here"
	case r == nil && job.Authorized == nil:
		return "not decided"
	case r == nil && job.Concluded != nil:
		return fmt.Sprintf("%s, without having started here", job.Concluded.Event.Result)
	case r == nil:
		return "allowed, not started"
	}
	result := "running, or its result is not known"
	if job.Concluded != nil {
		result = string(job.Concluded.Event.Result)
	}
	return result + ", " + hostOutcome(r)
}

func hostOutcome(r *runner.Runner) string {
	switch {
	case r.Sealed != nil:
		return "its host is gone and the record is sealed"
	case r.Terminated != nil:
		return "its host is gone"
	case r.Overdue != nil:
		return "its host is overdue to be gone"
	}
	return "its host is not known to be gone"
}

// runner is the story of a runner that no job started on.
func (t *teller) runner(name runner.Name) Story {
	r := t.state.Runners[name]
	s := Story{Title: "runner " + string(name), Runner: name, Answers: []Answer{t.where(r), t.course(nil, r)}}
	switch {
	case r.Refused != nil:
		s.Outcome, s.Reasons = "refused what reached it", t.reasons(r.Refused.Event.Decision)
	case r.Retired != nil:
		s.Outcome = "ended without a job: " + string(r.Retired.Event.Cause)
	default:
		s.Outcome = "no job has started on it"
	}
	s.Outcome += ", " + hostOutcome(r)
	return s
}
