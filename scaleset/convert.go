package scaleset

import (
	"fmt"
	"strings"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// convert turns a message into events in the order in which they can be
// recorded: every job is offered before it is reported, and reported before it
// is concluded. The job's display name is free text and stays behind.
//
// A job whose identity does not have the shape of the ledger is left out and
// told of in the second result. It must not hold up the queue: nothing can be
// authorized for it.
func convert(msg *upstream.RunnerScaleSetMessage) (supervisor.Message, []error) {
	c := converter{message: int64(msg.MessageID), offered: map[runner.JobID]bool{}}
	for _, m := range msg.JobAssignedMessages {
		c.offer(m.JobMessageBase, false)
	}
	for _, m := range msg.JobStartedMessages {
		if job, ok := c.offer(m.JobMessageBase, true); ok {
			c.report(runner.Reported{
				Job: job, Runner: runner.Name(m.RunnerName), RunnerID: int64(m.RunnerID), MessageID: c.message,
			})
		}
	}
	for _, m := range msg.JobCompletedMessages {
		if job, ok := c.offer(m.JobMessageBase, true); ok {
			c.conclude(runner.Concluded{
				Job: job, Result: result(m.Result), Runner: runner.Name(m.RunnerName), MessageID: c.message,
			})
		}
	}
	events := append(append(c.offers, c.reports...), c.conclusions...)
	return supervisor.Message{ID: c.message, Events: events}, c.skipped
}

type converter struct {
	message                      int64
	offered                      map[runner.JobID]bool
	offers, reports, conclusions []runner.Event
	skipped                      []error
}

// offer adds the job once. implied says that the message names the job without
// assigning it.
func (c *converter) offer(base upstream.JobMessageBase, implied bool) (runner.JobID, bool) {
	e := runner.Offered{
		Job:             runner.JobID(base.JobID),
		Repository:      base.OwnerName + "/" + base.RepositoryName,
		RunID:           base.WorkflowRunID,
		WorkflowRef:     keep(base.JobWorkflowRef, fitsWorkflow),
		EventName:       keep(base.EventName, fitsWord),
		Labels:          []string{},
		MessageID:       c.message,
		RunnerRequestID: base.RunnerRequestID,
		Implied:         implied,
	}
	if !base.QueueTime.IsZero() {
		e.QueuedAt = base.QueueTime.UTC()
	}
	for _, label := range base.RequestLabels {
		if len(e.Labels) < maxLabels && fitsLabel(label) {
			e.Labels = append(e.Labels, label)
		}
	}
	if c.offered[e.Job] {
		return e.Job, true
	}
	err := runner.Validate(e)
	if err == nil && e.RunID <= 0 {
		err = fmt.Errorf("run id %d", e.RunID)
	}
	if err != nil {
		c.skipped = append(c.skipped, fmt.Errorf("%s message: %w", base.MessageType, err))
		return "", false
	}
	c.offered[e.Job] = true
	c.offers = append(c.offers, e)
	return e.Job, true
}

func (c *converter) report(e runner.Reported) {
	if err := runner.Validate(e); err != nil {
		c.skipped = append(c.skipped, fmt.Errorf("job %s started: %w", e.Job, err))
		return
	}
	c.reports = append(c.reports, e)
}

func (c *converter) conclude(e runner.Concluded) {
	e.Runner = runner.Name(keep(string(e.Runner), fitsHost))
	c.conclusions = append(c.conclusions, e)
}

// result maps GitHub's words. Their case is not documented, and both spellings
// of cancelled are in use.
func result(s string) runner.Result {
	switch strings.ToLower(s) {
	case "succeeded", "success":
		return runner.ResultSucceeded
	case "failed", "failure":
		return runner.ResultFailed
	case "canceled", "cancelled":
		return runner.ResultCancelled
	}
	return runner.ResultUnknown
}

// maxLabels bounds the labels of a job; a workflow that asks for more than
// this is not one of ours.
const maxLabels = 64

// keep is s when it fits, else nothing: an optional field is rather absent
// than wrong.
func keep(s string, fits func(string) bool) string {
	if fits(s) {
		return s
	}
	return ""
}

func fitsWorkflow(s string) bool {
	return runner.Validate(struct {
		V string `pat:"workflow"`
	}{s}) == nil
}

func fitsWord(s string) bool {
	return runner.Validate(struct {
		V string `pat:"word"`
	}{s}) == nil
}

func fitsLabel(s string) bool {
	return runner.Validate(struct {
		V string `pat:"label"`
	}{s}) == nil
}

func fitsHost(s string) bool {
	return runner.Validate(struct {
		V string `pat:"host"`
	}{s}) == nil
}
