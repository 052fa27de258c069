// Package runnertest tells valid stories: complete, plausible sequences of
// events for jobs, runners and hosts, for the tests of everything that reads
// or writes a log.
//
// A [Cast] names the ids of one job, its runner and its host and makes each
// event of their life. A [Script] appends those events to a log in order and
// links them, because an event names the digests of records before it.
package runnertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Start is the time at which scripts begin unless they are told otherwise.
func Start() time.Time { return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) }

// Cast is who plays in one job's story. Casts of different numbers share
// nothing that must be unique. Its fields may be changed before use.
type Cast struct {
	Job        runner.JobID
	Runner     runner.Name
	RunID      int64
	RunAttempt int64
	CheckRunID int64
	RunnerID   int64
	MessageID  int64 // of the offer; the conclusion's is one more
	Host       runner.Host
	PodUID     string
}

// NewCast is the cast with this number, which must be from 0 to 65535.
func NewCast(n int) Cast {
	c := Cast{
		Job:        runner.JobID(fmt.Sprintf("0fbd2f0c-9a5c-4d37-8f7e-%012x", n+1)),
		Runner:     runner.Name(fmt.Sprintf("rw-%04x-7k2m9q", n)),
		RunID:      7_000_000_000 + int64(n)*10,
		RunAttempt: 1,
		CheckRunID: 21_000_000_000 + int64(n)*10,
		RunnerID:   400 + int64(n),
		MessageID:  1 + 2*int64(n),
		PodUID:     fmt.Sprintf("5c7bbd2e-1111-4a3c-9c1c-%012x", n),
	}
	c.Host = runner.Host{
		Provider:          "aws",
		InstanceID:        fmt.Sprintf("i-0a1b2c3d4e5f6%04x", n),
		AccountID:         "111122223333",
		Region:            "us-east-1",
		Zone:              "us-east-1a",
		ImageID:           "ami-0123456789abcdef0",
		ImageName:         "bottlerocket-aws-k8s-1.34-x86_64-v1.50.0",
		InstanceType:      "m7i.large",
		PrivateIP:         fmt.Sprintf("10.20.%d.%d", n/256, n%256),
		Subnet:            "subnet-0aa11bb22cc33dd44",
		VPC:               "vpc-0aa11bb22cc33dd44",
		Profile:           "arn:aws:iam::111122223333:instance-profile/hipaa-prod-runners",
		NetworkInterfaces: []string{fmt.Sprintf("eni-0a1b2c3d4e5f6%04x", n)},
		LaunchedAt:        Start().Add(-time.Hour),
		NodeName:          fmt.Sprintf("ip-10-20-%d-%d.ec2.internal", n/256, n%256),
		NodeUID:           fmt.Sprintf("9d1f0f3a-2222-4a3c-9c1c-%012x", n),
		BootID:            fmt.Sprintf("77e0c1d2-3333-4a3c-9c1c-%012x", n),
		OSImage:           "Bottlerocket OS 1.50.0 (aws-k8s-1.34)",
		Kubelet:           "v1.34.2-eks-1234567",
		Assurance:         runner.L1,
		Volumes:           []string{fmt.Sprintf("vol-0a1b2c3d4e5f6%04x", n)},
		Checks: []runner.Check{
			{Name: "node.ready", Verdict: runner.Pass},
			{Name: "host.account", Verdict: runner.Pass},
			{Name: "image.allowed", Verdict: runner.Pass},
		},
	}
	c.Host.ProviderID = "aws:///" + c.Host.Zone + "/" + c.Host.InstanceID
	return c
}

// The parties that all casts share.
const (
	Server     = "https://github.com"
	Repository = "hipaa-app-org/clinical-platform"
	Ref        = "refs/tags/v1.4.2"
	HeadSHA    = "1f0c6a4b2d3e4f5061728394a5b6c7d8e9f00112"
	Approver   = "octo-approver"
	Author     = "octo-author"
)

func workflow() runner.Workflow {
	return runner.Workflow{
		Ref: "hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v2.1.0",
		SHA: "aabbccddeeff00112233445566778899aabbccdd",
	}
}

// RunURL is the address of the cast's run on GitHub.
func (c Cast) RunURL() string {
	return fmt.Sprintf("%s/%s/actions/runs/%d", Server, Repository, c.RunID)
}

// JobURL is the address of the cast's job on GitHub.
func (c Cast) JobURL() string { return fmt.Sprintf("%s/job/%d", c.RunURL(), c.CheckRunID) }

// Facts are what GitHub says of the job at this time: approved by [Approver]
// of the team release-approvers, for the environment production.
func (c Cast) Facts(at time.Time) runner.Facts {
	author := runner.Person{ID: 1001, Login: Author, Type: "User"}
	return runner.Facts{
		FetchedAt: at, ServerURL: Server, Repository: Repository, RepositoryID: 555001, OwnerID: 555000,
		RunID: c.RunID, RunAttempt: c.RunAttempt, CheckRunID: c.CheckRunID,
		Event: "push", Ref: Ref, HeadSHA: HeadSHA, WorkflowPath: "release.yml",
		JobWorkflow: workflow(), Actor: author, TriggeringActor: author, HeadAuthor: &author,
		ReferencedWorkflows: []runner.Workflow{workflow(), {
			Ref: "hipaa-app-org/compliance-workflows/.github/workflows/build-sign.yml@refs/tags/v2.1.0", SHA: workflow().SHA,
		}},
		Environment: &runner.Environment{
			ID: 88001, Name: "production", HasReviewers: new(true),
			ReviewerTeams: []string{"release-approvers"}, ReviewersAllTeams: new(true), PreventSelfReview: new(true),
		},
		Approvals: []runner.Approval{{
			By:    runner.Person{ID: 2002, Login: Approver, Type: "User"},
			State: "approved", EnvironmentID: 88001, Environment: "production",
			Team: "release-approvers", InTeam: new(true), Source: runner.SourceWebhook, Delivery: c.delivery(),
			SeenAt: at.Add(-15 * time.Minute),
		}},
		TagPusher: &author, PullAuthors: []runner.Person{author},
		Group: &runner.Group{
			ID: 3, Name: "hipaa-prod", Visibility: "selected", AllowsPublic: new(false),
			RestrictedToWorkflows: new(true), SelectedWorkflows: []string{workflow().Ref}, RepositoryIDs: []int64{555001},
		},
	}
}

// delivery is the webhook that told of the approval.
func (c Cast) delivery() string { return fmt.Sprintf("0b989ba4-242f-11e5-81e1-%012d", c.CheckRunID) }

// Reviewed is the approval that [Cast.Facts] rest on.
func (c Cast) Reviewed(at time.Time) runner.Reviewed {
	return runner.Reviewed{
		Repository: Repository, RunID: c.RunID, Environment: "production", By: runner.Person{ID: 2002, Login: Approver, Type: "User"},
		State: runner.StateApproved, Source: runner.SourceWebhook, RunAttempt: c.RunAttempt, Delivery: c.delivery(),
		Jobs: []int64{c.CheckRunID}, SeenAt: at.Add(-15 * time.Minute),
	}
}

// Claims are what GitHub signs for the job at this time.
func (c Cast) Claims(at time.Time) runner.Claims {
	return runner.Claims{
		Subject:    "repo:" + Repository + ":environment:production",
		Repository: Repository, RepositoryID: 555001, OwnerID: 555000,
		RunID: c.RunID, RunAttempt: c.RunAttempt, CheckRunID: c.CheckRunID,
		Environment: "production", Event: "push", Ref: Ref, SHA: HeadSHA,
		JobWorkflow: workflow(), WorkflowRef: Repository + "/.github/workflows/release.yml@" + Ref,
		ActorID: 1001, RunnerEnvironment: "self-hosted", IssuedAt: at, ExpiresAt: at.Add(10 * time.Minute),
		TokenID: c.digest("jti"), Token: c.digest("token"),
	}
}

// digest is a stable digest that no other cast has.
func (c Cast) digest(of string) runner.Digest {
	return runner.DigestOf([]byte(of + "/" + string(c.Runner)))
}

// Question is what the policy is asked about the job at this gate.
func (c Cast) Question(gate runner.Gate, at time.Time) runner.Question {
	q := runner.Question{Schema: runner.QuestionSchema, Gate: gate, Now: at, Job: new(c.Offered(at)), Facts: new(c.Facts(at))}
	if gate == runner.GateStart {
		q.Claims = new(c.Claims(at))
	}
	return q
}

// Decision is a verdict on the input with this digest; no reasons allow.
func Decision(input runner.Digest, at time.Time, reasons ...string) runner.Decision {
	return runner.Decision{
		Policy: runner.DigestOf([]byte(policyBundle)), Input: input, EvaluatedAt: at,
		Reasons: append([]string{}, slices.Sorted(slices.Values(reasons))...),
	}
}

// Offered is the job's assignment, queued half a minute before.
func (c Cast) Offered(at time.Time) runner.Offered {
	return runner.Offered{
		Job: c.Job, Repository: Repository, RunID: c.RunID, WorkflowRef: workflow().Ref, EventName: "push",
		Labels: []string{"self-hosted", "hipaa-prod"}, QueuedAt: at.Add(-30 * time.Second), MessageID: c.MessageID,
	}
}

// Denied refuses the job for these reasons; there must be one.
func (c Cast) Denied(d runner.Decision) runner.Denied {
	return runner.Denied{Job: c.Job, Repository: Repository, RunID: c.RunID, Decision: d}
}

// Claimed takes the cast's host for its runner.
func (c Cast) Claimed(authorized runner.Digest) runner.Claimed {
	return runner.Claimed{Runner: c.Runner, Cause: c.Job, Authorized: authorized, Host: c.Host}
}

// Bound is the pod's claim with a token for the authorized record.
func (c Cast) Bound(authorized runner.Digest) runner.Bound {
	return runner.Bound{
		Runner: c.Runner, Namespace: "gha-runners", ServiceAccount: "hipaa-prod-runner",
		PodUID: c.PodUID, NodeName: c.Host.NodeName, NodeUID: c.Host.NodeUID,
		Audience: authorized, Token: c.digest("pod token"),
	}
}

// Released is the registration handed to the pod.
func (c Cast) Released() runner.Released {
	return runner.Released{Runner: c.Runner, RunnerID: c.RunnerID, ScaleSetID: 7, JITConfig: c.digest("jit")}
}

// Reported is GitHub's word that the job runs on the cast's runner.
func (c Cast) Reported() runner.Reported {
	return runner.Reported{Job: c.Job, Runner: c.Runner, RunnerID: c.RunnerID, MessageID: c.MessageID}
}

// Started binds the job to the runner.
func (c Cast) Started(authorized, bound runner.Digest, d runner.Decision, at time.Time) runner.Started {
	return runner.Started{
		Runner: c.Runner, Job: c.Job, Authorized: authorized, Audience: bound, Claims: c.Claims(at), Decision: d,
	}
}

// Refused turns away the cast's job at its runner.
func (c Cast) Refused(d runner.Decision, at time.Time) runner.Refused {
	return runner.Refused{Runner: c.Runner, Job: c.Job, Claims: new(c.Claims(at)), Decision: d}
}

// Concluded is GitHub's word that the job succeeded on the cast's runner.
func (c Cast) Concluded() runner.Concluded {
	return runner.Concluded{Job: c.Job, Result: runner.ResultSucceeded, Runner: c.Runner, MessageID: c.MessageID + 1}
}

// Completed is the end of the job's pod.
func (c Cast) Completed() runner.Completed {
	return runner.Completed{Runner: c.Runner, Job: c.Job, PodPhase: runner.PodSucceeded}
}

// Teardown is the intent to end the cast's host.
func (c Cast) Teardown() runner.Teardown {
	return runner.Teardown{Runner: c.Runner, InstanceID: c.Host.InstanceID, Volumes: c.Host.Volumes}
}

// Terminated says that the cast's host was observed gone at this time.
func (c Cast) Terminated(at time.Time) runner.Terminated {
	return runner.Terminated{
		Runner: c.Runner, InstanceID: c.Host.InstanceID,
		States: []runner.Transition{
			{State: "shutting-down", At: at.Add(-2 * time.Second)},
			{State: "terminated", At: at.Add(-time.Second)},
		},
		ReasonCode: "Client.UserInitiatedShutdown", VolumesGone: c.Host.Volumes,
		PodGone: true, NodeGone: true, RegistrationGone: true, ActivityID: "5f1d3c2b-0000-4000-8000-" + c.PodUID[len(c.PodUID)-12:],
		Requests: []runner.Request{{
			Call: "autoscaling:TerminateInstanceInAutoScalingGroup", At: at.Add(-3 * time.Second), RequestID: "7c9e6679-0000-4000-8000-" + c.PodUID[len(c.PodUID)-12:],
			AccessKeyID: "ASIA0123456789EXAMPL", Session: "arn:aws:sts::111122223333:assumed-role/runnerward/supervisor",
		}},
	}
}
