package scaleset

import (
	"reflect"
	"strings"
	"testing"
	"time"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/pkg/runner"
)

func base(id string, edit ...func(*upstream.JobMessageBase)) upstream.JobMessageBase {
	b := upstream.JobMessageBase{
		RunnerRequestID: 42, RepositoryName: "deploy", OwnerName: "acme", JobID: id,
		JobWorkflowRef: "acme/w/.github/workflows/d.yml@refs/tags/v1.2.3", JobDisplayName: "Jane Doe, room 4",
		WorkflowRunID: 1234, EventName: "push", RequestLabels: []string{"hipaa-prod"},
		QueueTime: time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600)),
	}
	for _, f := range edit {
		f(&b)
	}
	return b
}

func offered(id string, edit ...func(*runner.Offered)) runner.Offered {
	o := runner.Offered{
		Job: runner.JobID(id), Repository: "acme/deploy", RunID: 1234,
		WorkflowRef: "acme/w/.github/workflows/d.yml@refs/tags/v1.2.3", EventName: "push",
		Labels: []string{"hipaa-prod"}, QueuedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		MessageID: 9, RunnerRequestID: 42,
	}
	for _, f := range edit {
		f(&o)
	}
	return o
}

func implied(o *runner.Offered) { o.Implied = true }

func TestConvert(t *testing.T) {
	assigned := func(b upstream.JobMessageBase) *upstream.JobAssigned { return &upstream.JobAssigned{JobMessageBase: b} }
	started := func(name string, b upstream.JobMessageBase) *upstream.JobStarted {
		return &upstream.JobStarted{RunnerID: 11, RunnerName: name, JobMessageBase: b}
	}
	completed := func(result, name string, b upstream.JobMessageBase) *upstream.JobCompleted {
		return &upstream.JobCompleted{Result: result, RunnerName: name, JobMessageBase: b}
	}
	tests := []struct {
		name    string
		msg     upstream.RunnerScaleSetMessage
		want    []runner.Event
		skipped int
	}{
		{
			name: "an assigned job is offered, in UTC and without its display name",
			msg:  upstream.RunnerScaleSetMessage{JobAssignedMessages: []*upstream.JobAssigned{assigned(base("a"))}},
			want: []runner.Event{offered("a")},
		},
		{
			name: "an available job is not ours yet",
			msg:  upstream.RunnerScaleSetMessage{JobAvailableMessages: []*upstream.JobAvailable{{JobMessageBase: base("a")}}},
		},
		{
			name: "offers come before reports and reports before conclusions, whatever their jobs",
			msg: upstream.RunnerScaleSetMessage{
				JobCompletedMessages: []*upstream.JobCompleted{completed("succeeded", "r1", base("a"))},
				JobStartedMessages:   []*upstream.JobStarted{started("r2", base("b"))},
				JobAssignedMessages:  []*upstream.JobAssigned{assigned(base("c"))},
			},
			want: []runner.Event{
				offered("c"), offered("b", implied), offered("a", implied),
				runner.Reported{Job: "b", Runner: "r2", RunnerID: 11, MessageID: 9},
				runner.Concluded{Job: "a", Result: runner.ResultSucceeded, Runner: "r1", MessageID: 9},
			},
		},
		{
			name: "a job that is assigned, started and completed at once is offered once, as assigned",
			msg: upstream.RunnerScaleSetMessage{
				JobAssignedMessages:  []*upstream.JobAssigned{assigned(base("a"))},
				JobStartedMessages:   []*upstream.JobStarted{started("r1", base("a"))},
				JobCompletedMessages: []*upstream.JobCompleted{completed("Canceled", "", base("a"))},
			},
			want: []runner.Event{
				offered("a"),
				runner.Reported{Job: "a", Runner: "r1", RunnerID: 11, MessageID: 9},
				runner.Concluded{Job: "a", Result: runner.ResultCancelled, MessageID: 9},
			},
		},
		{
			name: "optional fields that do not fit are left out",
			msg: upstream.RunnerScaleSetMessage{
				JobAssignedMessages: []*upstream.JobAssigned{assigned(base("a", func(b *upstream.JobMessageBase) {
					b.JobWorkflowRef, b.EventName = "no ref", "push; rm"
					b.RequestLabels = []string{"hipaa-prod", "two words", "", "x64"}
					b.QueueTime = time.Time{}
				}))},
				JobCompletedMessages: []*upstream.JobCompleted{completed("failed", "a runner with spaces", base("a"))},
			},
			want: []runner.Event{
				offered("a", func(o *runner.Offered) {
					o.WorkflowRef, o.EventName, o.Labels, o.QueuedAt = "", "", []string{"hipaa-prod", "x64"}, time.Time{}
				}),
				runner.Concluded{Job: "a", Result: runner.ResultFailed, MessageID: 9},
			},
		},
		{
			name: "a job without an identity is skipped and the others are kept",
			msg: upstream.RunnerScaleSetMessage{
				JobAssignedMessages: []*upstream.JobAssigned{
					assigned(base("")),
					assigned(base("b", func(b *upstream.JobMessageBase) { b.OwnerName = "a/b" })),
					assigned(base("c", func(b *upstream.JobMessageBase) { b.WorkflowRunID = 0 })),
					assigned(base("d")),
				},
				JobStartedMessages:   []*upstream.JobStarted{started("r1", base("e f")), started("", base("d"))},
				JobCompletedMessages: []*upstream.JobCompleted{completed("failed", "", base("ghp_x"))},
			},
			want:    []runner.Event{offered("d")},
			skipped: 6,
		},
		{name: "a message of statistics alone has no events"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.msg.MessageID = 9
			got, skipped := convert(&test.msg)
			if got.ID != 9 || len(got.Events) != len(test.want) || len(test.want) > 0 && !reflect.DeepEqual(got.Events, test.want) {
				t.Errorf("convert() = %d, %+v, want 9, %+v", got.ID, got.Events, test.want)
			}
			if len(skipped) != test.skipped {
				t.Errorf("convert() skipped %v, want %d jobs", skipped, test.skipped)
			}
			for _, e := range got.Events {
				if err := runner.Validate(e); err != nil {
					t.Errorf("Validate(%+v) = %v", e, err)
				}
			}
		})
	}
}

func TestResult(t *testing.T) {
	for in, want := range map[string]runner.Result{
		"succeeded": runner.ResultSucceeded, "Succeeded": runner.ResultSucceeded, "success": runner.ResultSucceeded,
		"failed": runner.ResultFailed, "FAILURE": runner.ResultFailed,
		"canceled": runner.ResultCancelled, "Cancelled": runner.ResultCancelled,
		"abandoned": runner.ResultUnknown, "": runner.ResultUnknown, strings.Repeat("x", 1000): runner.ResultUnknown,
	} {
		if got := result(in); got != want {
			t.Errorf("result(%.20q) = %s, want %s", in, got, want)
		}
	}
}
