package main

import (
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/status"
)

// meter turns records into the counters and histograms of the status endpoint.
// Replayed records do not reach it: counters begin with the process.
type meter struct{ to *status.Server }

func (m *meter) record(rec runner.Record, state *runner.State) {
	switch e := rec.Event.(type) {
	case runner.Denied:
		m.to.Denied(e.Decision.Reasons)
	case runner.Refused:
		m.to.Denied(e.Decision.Reasons)
	case runner.Started:
		r, job := state.Runners[e.Runner], state.Jobs[e.Job]
		m.to.JobStarted(sample(job), rec.At.Sub(job.Offered.At))
		if e.Job != r.Claimed.Event.Cause {
			m.to.StolenJob()
		}
	case runner.Concluded:
		job := state.Jobs[e.Job]
		if r := state.Runners[job.Runner]; r != nil && r.Started != nil {
			m.to.JobCompleted(sample(job), e.Result, rec.At.Sub(r.Started.At))
		}
	case runner.Terminated:
		if ended, ok := state.Runners[e.Runner].Ended(); ok {
			m.to.TornDown(rec.At.Sub(ended).Round(time.Millisecond))
		}
	}
}

// sample has no job name: GitHub sends only the display name, which is free text.
func sample(j *runner.Job) status.JobSample {
	return status.JobSample{Repository: j.Offered.Event.Repository, Event: j.Offered.Event.EventName}
}
