package runner

import (
	"fmt"
	"time"
)

// The kinds of a workflow run's chain, which begins before any job of the run
// is offered, and of what carries our marks without being ours.
const (
	KindReviewed Kind = "reviewed"
	KindAsked    Kind = "asked"
	KindRuled    Kind = "ruled"
	KindAnswered Kind = "answered"

	KindStray Kind = "stray"
	KindSwept Kind = "swept"
)

// RunChain is the chain of one workflow run: reviewed, and asked, ruled,
// answered for each time that GitHub asked.
func RunChain(id int64) Chain { return Chain(fmt.Sprintf("run/%d", id)) }

// The sources of a review.
const (
	// SourceWebhook: GitHub told our App, with the attempt and the time.
	SourceWebhook = "webhook"
	// SourceREST: it stood in the run's list of reviews, which has neither.
	SourceREST = "rest"
)

// The states of a review and of a ruling.
const (
	StateApproved = "approved"
	StateRejected = "rejected"
	// StateUnattributed is a review that may belong to an earlier attempt, as
	// an [Approval] shows it. It approves nothing.
	StateUnattributed = "unattributed"
)

// Reviewed is one person's review of deployments to one environment in one run,
// kept because GitHub's own list has no time and no attempt, and reviews of an
// earlier attempt stand in it for ever.
type Reviewed struct {
	Repository  string `json:"repository" pat:"repo"`
	RunID       int64  `json:"runId,string"`
	Environment string `json:"environment" pat:"env"`
	By          Person `json:"by"`
	State       string `json:"state" pat:"word"`
	Source      string `json:"source" pat:"word"`
	// RunAttempt is the attempt that it was given for; 0 when that cannot be
	// known, which SourceREST alone may say.
	RunAttempt int64 `json:"runAttempt,string"`
	// Delivery is the webhook's X-GitHub-Delivery, Jobs the check runs that it
	// names. Of SourceWebhook only.
	Delivery string  `json:"delivery,omitempty" pat:"word,opt"`
	Jobs     []int64 `json:"jobs,omitempty"`
	// Nth tells equal reviews of a list apart, from 0. Of SourceREST only.
	Nth int `json:"nth,omitempty"`
	// SeenAt is when GitHub told us or we first saw it, NotBefore the last
	// time we looked and did not; zero when we never had.
	NotBefore time.Time `json:"notBefore,omitzero"`
	SeenAt    time.Time `json:"seenAt"`
}

// Asked is GitHub's question whether a run may deploy to an environment that we
// protect as a custom deployment protection rule.
// https://docs.github.com/en/actions/how-tos/deploy/configure-and-manage-deployments/create-custom-protection-rules
type Asked struct {
	Repository  string    `json:"repository" pat:"repo"`
	RunID       int64     `json:"runId,string"`
	Environment string    `json:"environment" pat:"env"`
	Event       string    `json:"event,omitempty" pat:"word,opt"`
	SHA         string    `json:"sha,omitempty" pat:"sha,opt"`
	Ref         string    `json:"ref,omitempty" pat:"gitref,opt"`
	Delivery    string    `json:"delivery" pat:"word"`
	AskedAt     time.Time `json:"askedAt"`
}

// Ruled is our answer to [Asked]. It is durable before GitHub hears of it.
type Ruled struct {
	RunID    int64    `json:"runId,string"`
	Delivery string   `json:"delivery" pat:"word"`
	State    string   `json:"state" pat:"word"`
	Decision Decision `json:"decision"`
}

// Answered says that GitHub took the answer, or wants none any more.
type Answered struct {
	RunID    int64  `json:"runId,string"`
	Delivery string `json:"delivery" pat:"word"`
	// Moot says that nothing waited for the answer any more.
	Moot bool `json:"moot"`
}

// StrayKind is what a stray is.
type StrayKind string

// The kinds of stray.
const (
	// StrayPod: a pod with our label under a name that no open runner has.
	StrayPod StrayKind = "pod"
	// StrayRegistration: a registration in our scale set that no open runner has.
	StrayRegistration StrayKind = "registration"
	// StrayForeign: a runner in our group that is not of our scale set. It is
	// not ours to remove; it stands as an alarm until it is gone.
	StrayForeign StrayKind = "foreign-runner"
)

// Stray is something that carries our marks and that the log does not explain:
// it was made with our credentials by somebody else, or outlived its runner. It
// is recorded before it is removed.
type Stray struct {
	What StrayKind `json:"what" pat:"word"`
	// ID is the pod's UID or the registration's number. Name is empty when it
	// does not have the shape of a name.
	ID   string `json:"id" pat:"word"`
	Name string `json:"name,omitempty" pat:"host,opt"`
	Node string `json:"node,omitempty" pat:"dns,opt"`
}

// Swept says that a stray was seen gone.
type Swept struct {
	What StrayKind `json:"what" pat:"word"`
	ID   string    `json:"id" pat:"word"`
}

func (Reviewed) Kind() Kind { return KindReviewed }
func (Asked) Kind() Kind    { return KindAsked }
func (Ruled) Kind() Kind    { return KindRuled }
func (Answered) Kind() Kind { return KindAnswered }
func (Stray) Kind() Kind    { return KindStray }
func (Swept) Kind() Kind    { return KindSwept }

func (e Reviewed) Chain() Chain { return RunChain(e.RunID) }
func (e Asked) Chain() Chain    { return RunChain(e.RunID) }
func (e Ruled) Chain() Chain    { return RunChain(e.RunID) }
func (e Answered) Chain() Chain { return RunChain(e.RunID) }
func (Stray) Chain() Chain      { return LogChain }
func (Swept) Chain() Chain      { return LogChain }
