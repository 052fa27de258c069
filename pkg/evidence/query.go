package evidence

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// runURL is the address of a run or a job, as a browser shows it.
var runURL = regexp.MustCompile(`\A(https?://[^/]+)/([^/]+/[^/]+)/actions/runs/([0-9]{1,18})` +
	`(?:/attempts/([0-9]{1,9}))?(?:/job/([0-9]{1,18}))?/?(?:[?#].*)?\z`)

// query is what a reader asks about: the fields that are set must agree.
type query struct {
	server, repository     string
	run, attempt, checkRun int64
}

// matched are the jobs and the runners without a job that a query means.
type matched struct {
	jobs    []runner.JobID
	runners []runner.Name
}

// resolve finds what is meant, or says what was searched.
func resolve(s *runner.State, text string) (matched, error) {
	text = strings.TrimSpace(text)
	if m := runURL.FindStringSubmatch(text); m != nil {
		q := query{server: m[1], repository: m[2], run: number(m[3]), attempt: number(m[4]), checkRun: number(m[5])}
		return q.find(s, text)
	}
	if strings.Contains(text, "://") {
		return matched{}, fmt.Errorf("%.200q is not the address of a GitHub Actions run or job: "+
			"want https://HOST/OWNER/REPO/actions/runs/ID, with or without /attempts/N and /job/ID", text)
	}
	if run := number(text); run != 0 {
		return query{run: run}.find(s, text)
	}
	for id := range s.Jobs {
		if strings.EqualFold(string(id), text) {
			return matched{jobs: []runner.JobID{id}}, nil
		}
	}
	name := runner.Name(text)
	if used, ok := s.Hosts["instance/"+text]; ok {
		name = used
	}
	r := s.Runners[name]
	switch {
	case r == nil:
		return matched{}, unknown(s, text, "job ids, runner names and instance ids")
	case r.Started != nil:
		return matched{jobs: []runner.JobID{r.Started.Event.Job}}, nil
	}
	return matched{runners: []runner.Name{name}}, nil
}

// number is 0 for what is not a positive decimal number.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func unknown(s *runner.State, text, where string) error {
	return fmt.Errorf("nothing in this log is about %.200q: searched the %s of %d jobs and %d runners in %d records",
		text, where, len(s.Jobs), len(s.Runners), s.Size)
}

// find lists all jobs of a run that are not known to be others. What a job
// does not record, such as the attempt of one that was denied before GitHub
// was asked, does not rule it out.
func (q query) find(s *runner.State, text string) (matched, error) {
	var out matched
	for _, id := range slices.Sorted(maps.Keys(s.Jobs)) {
		if q.means(s, s.Jobs[id]) {
			out.jobs = append(out.jobs, id)
		}
	}
	slices.SortStableFunc(out.jobs, func(a, b runner.JobID) int {
		return cmp.Compare(s.Jobs[a].Offered.Index, s.Jobs[b].Offered.Index)
	})
	if len(out.jobs) == 0 {
		return out, unknown(s, text, "runs")
	}
	return out, nil
}

func (q query) means(s *runner.State, job *runner.Job) bool {
	offered := job.Offered.Event
	if offered.RunID != q.run || q.repository != "" && !strings.EqualFold(offered.Repository, q.repository) {
		return false
	}
	if job.Authorized == nil {
		return true
	}
	f := job.Authorized.Event.Facts
	checkRun := f.CheckRunID
	if r := s.Runners[job.Runner]; r != nil && r.Started != nil {
		checkRun = r.Started.Event.Claims.CheckRunID
	}
	return (q.server == "" || strings.EqualFold(f.ServerURL, q.server)) &&
		(q.attempt == 0 || f.RunAttempt == q.attempt) &&
		(q.checkRun == 0 || checkRun == 0 || checkRun == q.checkRun)
}
