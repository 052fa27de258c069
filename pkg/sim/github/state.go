package simgithub

import (
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"time"
)

type state struct {
	users     map[string]*user // by lower-case login
	teams     map[string]*team
	repos     map[string]*repo // by lower-case name
	groups    map[int64]*group
	sets      map[int64]*scaleSet
	agents    map[int64]*agent
	runs      map[int64]*run
	jobs      []*job // oldest first
	nextUser  int64
	nextTeam  int64
	nextRepo  int64
	nextEnv   int64
	nextGroup int64
	nextSet   int64
	nextAgent int64
	nextRun   int64
	nextCheck int64
	nextReq   int64
}

func newState() state {
	return state{
		users: map[string]*user{}, teams: map[string]*team{}, repos: map[string]*repo{},
		groups: map[int64]*group{}, sets: map[int64]*scaleSet{}, agents: map[int64]*agent{},
		runs: map[int64]*run{}, nextUser: 1001, nextTeam: 301, nextRepo: 500000001, nextEnv: 70001,
		nextGroup: 2, nextSet: 1, nextAgent: 11, nextRun: 9000000001, nextCheck: 26000000001, nextReq: 1,
	}
}

type user struct {
	id     int64
	login  string
	nameID string // of the organization's identity provider
}

type team struct {
	id      int64
	slug    string
	members []*user
}

type repo struct {
	id      int64
	name    string
	envs    map[string]*environment // by lower-case name
	tags    map[string]string
	commits map[string]*user // sha to author, nil if GitHub knows no account
	runs    int64
	// pulls are the merged pull requests by the commit that they brought.
	pulls      map[string][]pull
	activities []activity
	rulesets   []ruleset
	files      map[string]string // by short ref, colon, path
	branches   map[string]string
	// annotations are tag objects by their ids.
	annotations map[string]annotation
	// properties are custom properties by their names.
	properties map[string]string
	// subject is how sub is made, nil for GitHub's default.
	subject *SubjectTemplate
	// immutable writes names with their ids into sub, nil if the organization decides.
	immutable *bool
}

type environment struct {
	Environment
	id      int64
	created time.Time
}

type group struct {
	Group
	id        int64
	isDefault bool
}

type run struct {
	id, number int64
	spec       RunSpec
	repo       *repo
	actor      *user
	attempts   []*attempt
	approvals  []approval
	created    time.Time
}

func (r *run) latest() *attempt { return r.attempts[len(r.attempts)-1] }

// ofPull says that a pull request started the run.
func (r *run) ofPull() bool { return r.spec.Event == "pull_request" && r.spec.Tag == "" }

// ref is the git reference that the run was started for: of a pull request, the
// merge of its head into its base.
// https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows#pull_request
func (r *run) ref() string {
	if r.ofPull() {
		number := int64(1)
		if pulls := r.repo.pulls[r.spec.HeadSHA]; len(pulls) > 0 {
			number = pulls[len(pulls)-1].number
		}
		return fmt.Sprintf("refs/pull/%d/merge", number)
	}
	if r.spec.Tag == "" {
		return "refs/heads/main"
	}
	return "refs/tags/" + r.spec.Tag
}

type attempt struct {
	n           int64
	triggering  *user
	started     time.Time
	workflowSHA string // of the reusable workflow, as resolved for this attempt
	job         *job
}

type approval struct {
	env   *environment
	state string
	by    *user
	at    time.Time
	// comment is what the reviewer wrote.
	comment string
}

type job struct {
	JobState
	run     *run
	attempt *attempt
	env     *environment
	reqID   int64
	planID  string

	approved  bool
	waitUntil time.Time
	// rules are what the Apps that protect the environment said, by slug.
	rules map[string]*protection

	availableTo int64 // GHES: the set it is on offer to
	offered     int64 // the agent that it was offered to
	offeredAt   time.Time
	delivered   bool // the offer went out on a poll
	exhausted   bool // requeued often enough; waits for the 24 h limit
	tellCancel  bool // the runner is to be told of a cancellation
	tellFinish  string
	groupID     int64             // of its runner
	steps       map[int]stepState // by number
	own         []ownStep
}

type scaleSet struct {
	id       int64
	name     string
	groupID  int64
	labels   []label
	created  time.Time
	disable  bool
	session  *session
	lastSeen time.Time // end of the last session or creation, for dormancy
	pending  []event
	messages []*message
	nextID   int64
	// withheld is what a fault keeps back of jobs that started.
	withheld []jobMessage
}

type label struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

type session struct {
	id       string
	owner    string
	polls    int // polls in progress
	seen     time.Time
	capacity int
}

// event is one item of a message. A quiet one does not wake a held poll.
type event struct {
	body  jobMessage
	quiet bool
}

type message struct {
	id    int64
	items []jobMessage
}

type agent struct {
	id      int64
	name    string
	setID   int64
	groupID int64
	created time.Time
	key     *rsa.PrivateKey
	client  string // OAuth client id of its credentials
	work    string // folder that the registration named, empty for the default
	// noUpdate says that the runner does not update itself.
	noUpdate bool
	used     bool
	session  string
	polls    int
	seen     time.Time
	idleAt   time.Time // when it connected, for the order of idle runners
	jobID    string    // offered or running
	busy     bool
	hadJob   bool
	// finished says that its own report ended its job and its registration.
	finished bool
	standIn  bool // it is a [Runner], which understands finishMessage
	nextMsg  int64
}

// online says whether the runner polls, or did not long ago. GitHub documents
// no value for long.
func (a *agent) online(now time.Time) bool {
	return a.session != "" && (a.polls > 0 || a.busy || now.Sub(a.seen) < offlineAfter)
}

func (st *state) job(id string) *job {
	for _, j := range st.jobs {
		if strings.EqualFold(j.JobID, id) {
			return j
		}
	}
	return nil
}

func (st *state) agentByName(name string) *agent {
	for _, a := range st.agents {
		if strings.EqualFold(a.name, name) {
			return a
		}
	}
	return nil
}

func (st *state) groupByName(name string) *group {
	for _, g := range st.groups {
		if strings.EqualFold(g.Name, name) {
			return g
		}
	}
	return nil
}

func (st *state) agentsOf(setID int64) []*agent {
	var out []*agent
	for _, id := range sortedKeys(st.agents) {
		if a := st.agents[id]; a.setID == setID {
			out = append(out, a)
		}
	}
	return out
}

func sortedKeys[V any](m map[int64]V) []int64 {
	keys := make([]int64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
