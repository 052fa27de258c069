package runner_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// world is a state with a clock and names for things, so that tests can say
// "start r1 a" and mean a complete, linked event.
type world struct {
	*runner.State
	now     time.Time
	limits  runner.Limits
	message int64
	history []runner.Record
}

var epoch = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func testLimits() runner.Limits {
	return runner.Limits{
		MaxRunners: 2, MaxAttempts: 2, AuthorizedFor: time.Hour, DecideBy: 10 * time.Minute, BindBy: 5 * time.Minute,
		ReleaseBy: 2 * time.Minute, IdleTTL: 4 * time.Minute, SurplusGrace: 30 * time.Second,
		HookGrace: 2 * time.Minute, JobTTL: time.Hour, TeardownBy: 15 * time.Minute, ConcludeGrace: 2 * time.Minute,
	}
}

func newWorld() *world {
	return &world{State: runner.NewState(), now: epoch, limits: testLimits()}
}

// add folds the event as the next record.
func (w *world) add(e runner.Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	rec := runner.Record{Index: w.Size, At: w.now, Event: e,
		Digest: runner.DigestOf(fmt.Appendf(body, "%d", w.Size))}
	if err := w.Apply(rec); err != nil {
		return err
	}
	w.history = append(w.history, rec)
	return nil
}

func runID(job string) int64 { return 1000 + int64(job[0]) }

func (w *world) offered(job string) runner.Offered {
	w.message++
	return runner.Offered{Job: runner.JobID(job), Repository: "org/app", RunID: runID(job),
		Labels: []string{"prod"}, MessageID: w.message}
}

func decision(reasons ...string) runner.Decision {
	if reasons == nil {
		reasons = []string{}
	}
	return runner.Decision{Policy: runner.DigestOf([]byte("policy")), Input: runner.DigestOf([]byte("input")),
		EvaluatedAt: epoch, Reasons: reasons}
}

func facts(job string) runner.Facts {
	return runner.Facts{
		FetchedAt: epoch, ServerURL: "https://github.com", Repository: "org/app", RepositoryID: 7, OwnerID: 8,
		RunID: runID(job), RunAttempt: 1, Event: "push", Ref: "refs/tags/v1.0.0", HeadSHA: strings.Repeat("a", 40),
		WorkflowPath: ".github/workflows/release.yml", Approvals: []runner.Approval{},
		JobWorkflow: runner.Workflow{Ref: "org/ci/.github/workflows/deploy.yml@refs/tags/v1.0.0", SHA: strings.Repeat("b", 40)},
		Actor:       runner.Person{ID: 1, Login: "author"}, TriggeringActor: runner.Person{ID: 1, Login: "author"},
	}
}

func claims(job string) runner.Claims {
	return runner.Claims{
		Repository: "org/app", RepositoryID: 7, OwnerID: 8, RunID: runID(job), RunAttempt: 1,
		JobWorkflow: runner.Workflow{Ref: "org/ci/.github/workflows/deploy.yml@refs/tags/v1.0.0", SHA: strings.Repeat("b", 40)},
		IssuedAt:    epoch, ExpiresAt: epoch.Add(time.Minute),
		TokenID: runner.DigestOf([]byte("jti" + job)), Token: runner.DigestOf([]byte("token" + job)),
	}
}

func host(name string) runner.Host {
	return runner.Host{
		Provider: "aws", InstanceID: "i-0" + strings.Repeat("0", 15) + name[len(name)-1:], NodeName: "node-" + name,
		NodeUID: "uid-" + name, BootID: "boot-" + name, Assurance: runner.L1, Volumes: []string{"vol-" + name},
		Checks: []runner.Check{{Name: "node.ready", Verdict: runner.Pass}}, VPC: "vpc-1", NetworkInterfaces: []string{"eni-1"},
		Profile: "arn:aws:iam::111122223333:instance-profile/pool", ImageParameter: "/aws/service/bottlerocket/x/image_id",
	}
}

func (w *world) authorized(job string) runner.Authorized {
	return runner.Authorized{Job: runner.JobID(job), Facts: facts(job), Decision: decision()}
}

func (w *world) denied(job, reason string) runner.Denied {
	return runner.Denied{Job: runner.JobID(job), Repository: "org/app", RunID: runID(job), Decision: decision(reason)}
}

// authorizedBy is the digest of the job's authorized record, or one that no
// record has.
func (w *world) authorizedBy(job runner.JobID) runner.Digest {
	if j := w.Jobs[job]; j != nil && j.Authorized != nil {
		return j.Authorized.Digest
	}
	return runner.DigestOf([]byte("nothing"))
}

func (w *world) claimed(name, job, hostName string) runner.Claimed {
	return runner.Claimed{Runner: runner.Name(name), Cause: runner.JobID(job),
		Authorized: w.authorizedBy(runner.JobID(job)), Host: host(hostName)}
}

func (w *world) hostOf(name string) runner.Host {
	if r := w.Runners[runner.Name(name)]; r != nil {
		return r.Claimed.Event.Host
	}
	return host("h9")
}

func (w *world) bound(name string) runner.Bound {
	h := w.hostOf(name)
	audience := runner.DigestOf([]byte("nothing"))
	if r := w.Runners[runner.Name(name)]; r != nil {
		audience = r.Claimed.Event.Authorized
	}
	return runner.Bound{Runner: runner.Name(name), Namespace: "gha-runners", ServiceAccount: "hipaa-prod-runner",
		PodUID: "pod-" + name, NodeName: h.NodeName, NodeUID: h.NodeUID, Audience: audience, Token: runner.DigestOf([]byte(name))}
}

func released(name string) runner.Released {
	return runner.Released{Runner: runner.Name(name), RunnerID: 11, ScaleSetID: 7, JITConfig: runner.DigestOf([]byte("jit" + name))}
}

func (w *world) started(name, job string) runner.Started {
	audience := runner.DigestOf([]byte("nothing"))
	if r := w.Runners[runner.Name(name)]; r != nil && r.Bound != nil {
		audience = r.Bound.Digest
	}
	return runner.Started{Runner: runner.Name(name), Job: runner.JobID(job), Authorized: w.authorizedBy(runner.JobID(job)),
		Audience: audience, Claims: claims(job), Decision: decision()}
}

func refused(name, job, reason string) runner.Refused {
	c := claims("x")
	return runner.Refused{Runner: runner.Name(name), Job: runner.JobID(job), Claims: &c, Decision: decision(reason)}
}

func (w *world) completed(name string) runner.Completed {
	e := runner.Completed{Runner: runner.Name(name), Job: "none", PodPhase: runner.PodSucceeded}
	if r := w.Runners[runner.Name(name)]; r != nil && r.Started != nil {
		e.Job = r.Started.Event.Job
	}
	return e
}

func (w *world) teardown(name string) runner.Teardown {
	h := w.hostOf(name)
	return runner.Teardown{Runner: runner.Name(name), InstanceID: h.InstanceID, Volumes: h.Volumes}
}

func (w *world) terminated(name string) runner.Terminated {
	h := w.hostOf(name)
	return runner.Terminated{Runner: runner.Name(name), InstanceID: h.InstanceID, VolumesGone: h.Volumes,
		States:  []runner.Transition{{State: "shutting-down", At: w.now}, {State: "terminated", At: w.now}},
		PodGone: true, NodeGone: true, RegistrationGone: true, ActivityID: "activity-1", Requests: []runner.Request{{
			Call: "ec2:TerminateInstances", At: w.now, RequestID: "req-1", AccessKeyID: "ASIA0123456789EXAMPL",
			Session: "arn:aws:sts::111122223333:assumed-role/runnerward/0b2f", Code: "Throttling",
		}}}
}

func (w *world) concluded(job string, result runner.Result) runner.Concluded {
	w.message++
	return runner.Concluded{Job: runner.JobID(job), Result: result, MessageID: w.message}
}

func (w *world) reported(job, name string) runner.Reported {
	w.message++
	return runner.Reported{Job: runner.JobID(job), Runner: runner.Name(name), RunnerID: 11, MessageID: w.message}
}

// rebuffed is somebody turned away at a runner's gate: its own pod where the
// cause is what the pod did, another one otherwise.
func (w *world) rebuffed(name string, gate runner.Gate, cause runner.RebuffCause) runner.Rebuffed {
	h := w.hostOf(name)
	caller := runner.Caller{Namespace: "gha-runners", ServiceAccount: "hipaa-prod-runner", PodUID: "pod-other",
		NodeName: h.NodeName, NodeUID: h.NodeUID}
	e := runner.Rebuffed{Runner: runner.Name(name), Gate: gate, Cause: cause, Caller: &caller}
	switch cause {
	case runner.RebuffRejected:
		e.Caller = nil
	case runner.RebuffReplay, runner.RebuffRunnerOver, runner.RebuffNotBound:
		caller.PodUID = "pod-" + name
	case runner.RebuffOtherNode:
		caller.NodeName, caller.NodeUID = "node-other", "uid-other"
	case runner.RebuffNoPod:
		caller.PodUID, caller.NodeName, caller.NodeUID = "", "", ""
	}
	return e
}
