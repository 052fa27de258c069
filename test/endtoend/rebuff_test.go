package endtoend

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// askAt asks at a gate with this token and returns the answer's status.
func (b *bench) askAt(gate runner.Gate, name runner.Name, token string) int {
	b.t.Helper()
	path, body := wire.ClaimPath(name), `{}`
	if gate == runner.GateStart {
		path, body = wire.StartPath(name), `{"token":""}`
	}
	for {
		req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "https://admission.sim"+path, strings.NewReader(body))
		if err != nil {
			b.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := b.overhear(b.gate).RoundTrip(req)
		if err != nil {
			b.t.Fatal(err)
		}
		_ = resp.Body.Close()
		// The runner's own agent may be asking at this very moment.
		if resp.StatusCode != http.StatusTooManyRequests || !pause(b.t.Context(), time.Second) {
			return resp.StatusCode
		}
	}
}

// rebuffs are the records of who was turned away.
func (b *bench) rebuffs() (out []runner.Rebuffed) {
	for _, rec := range b.report().Records {
		if e, ok := rec.Event.(runner.Rebuffed); ok {
			out = append(out, e)
		}
	}
	return out
}

// rebuffed waits for the record of this gate and cause, and fails if there are two.
func (b *bench) rebuffed(gate runner.Gate, cause runner.RebuffCause) runner.Rebuffed {
	b.t.Helper()
	var found []runner.Rebuffed
	b.until("turned away for "+string(cause)+" is on record", 5*time.Minute, func() bool {
		found = slices.DeleteFunc(b.rebuffs(), func(e runner.Rebuffed) bool { return e.Gate != gate || e.Cause != cause })
		return len(found) > 0
	})
	if len(found) != 1 {
		b.t.Errorf("%d records of %s at %s, want one", len(found), cause, gate)
	}
	return found[0]
}

func (b *bench) pod(name string) *corev1.Pod {
	b.t.Helper()
	pod, err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return pod
}

// createPod puts a copy of a pod's specification into the cluster.
func (b *bench) createPod(name string, like *corev1.Pod) *corev1.Pod {
	b.t.Helper()
	pod := like.DeepCopy()
	pod.Name, pod.UID, pod.ResourceVersion, pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = name, "", "", nil, nil
	made, err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Create(b.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return made
}

func (b *bench) mint(pod *corev1.Pod, audience string, lifetime time.Duration) string {
	b.t.Helper()
	token, err := b.world.Cluster.Mint(pod, audience, lifetime)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

func (b *bench) mintUnbound(namespace, account, audience string) string {
	b.t.Helper()
	token, err := b.world.Cluster.MintUnbound(namespace, account, audience, time.Hour)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// TestWhoeverIsTurnedAwayIsOnRecordOnce: every wrong token that the cluster's own
// signer can make, at both gates, against a runner whose job goes on unharmed.
func TestWhoeverIsTurnedAwayIsOnRecordOnce(t *testing.T) {
	heard := &counts{}
	run(t, options{at: -1, onRebuff: heard.add}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 8*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		r := b.phase(runner.KindStarted)
		pod, audience := b.pod(string(r.Name())), r.Claimed.Event.Authorized.Audience()
		own := runner.Caller{Namespace: world.Namespace, ServiceAccount: world.ServiceAccount, PodUID: string(pod.UID),
			NodeName: r.Bound.Event.NodeName, NodeUID: r.Bound.Event.NodeUID}
		good := b.mint(pod, audience, time.Hour)
		expired := b.mint(pod, audience, time.Second)
		pause(t.Context(), 3*time.Second)
		stranger := b.createPod("somebody-else", pod) // its own agent asks too
		theirs := own
		theirs.PodUID = string(stranger.UID)
		for _, c := range []struct {
			cause  runner.RebuffCause
			token  string
			caller *runner.Caller
		}{
			{runner.RebuffOtherPod, b.mint(stranger, audience, time.Hour), &theirs},
			{runner.RebuffRejected, expired, nil},
			{runner.RebuffRejected, good[:len(good)-8] + "AAAAAAAA", nil},
			{runner.RebuffRejected, "eyJhbGciOiJub25lIn0.eyJhdWQiOiJhIn0.x", nil},
			{runner.RebuffOtherAudience, b.mint(pod, "sts.amazonaws.com", time.Hour), &own},
			{runner.RebuffOtherAccount, b.mintUnbound("kube-system", "default", audience), &runner.Caller{Namespace: "kube-system", ServiceAccount: "default"}},
			{runner.RebuffNoPod, b.mintUnbound(world.Namespace, world.ServiceAccount, audience), &runner.Caller{Namespace: world.Namespace, ServiceAccount: world.ServiceAccount}},
		} {
			for _, gate := range []runner.Gate{runner.GateClaim, runner.GateStart} {
				for range 3 { // who asks again adds nothing
					if status := b.askAt(gate, r.Name(), c.token); status != http.StatusUnauthorized {
						t.Errorf("%s at %s: HTTP %d, want 401", c.cause, gate, status)
					}
				}
				e := b.rebuffed(gate, c.cause)
				if c.caller == nil && e.Caller != nil || c.caller != nil && (e.Caller == nil || *e.Caller != *c.caller) {
					t.Errorf("%s at %s names %+v, want %+v", c.cause, gate, e.Caller, c.caller)
				}
			}
		}
		if status := b.askAt(runner.GateClaim, r.Name(), good); status != http.StatusConflict {
			t.Errorf("the pod's own token presented again: HTTP %d, want 409", status)
		}
		if e := b.rebuffed(runner.GateClaim, runner.RebuffReplay); e.Caller == nil || *e.Caller != own {
			t.Errorf("the replay names %+v, want %+v", e.Caller, own)
		}
		before := len(b.rebuffs())
		if status := b.askAt(runner.GateClaim, "hipaa-prod-nobody", good); status != http.StatusUnauthorized {
			t.Errorf("an unknown runner: HTTP %d, want 401", status)
		}
		pause(t.Context(), 10*time.Second)
		if n := len(b.rebuffs()); n != before || n != 11 {
			t.Errorf("%d records after an unknown runner's name, %d before, want 11", n, before)
		}
		for key, want := range map[string]int{"claim token-rejected": 9, "start other-pod": 3, "claim unknown-runner": 1, "claim replay": 1} {
			if n := heard.of(key); n != want {
				t.Errorf("%s was counted %d times, want %d", key, n, want)
			}
		}
		if v := b.view(); !slices.ContainsFunc(v.Warnings, func(w string) bool { return strings.Contains(w, "gate claim (other-pod)") }) {
			t.Errorf("warnings = %q, want the stranger's pod among them", v.Warnings)
		}
		b.until("sealed all the same", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		b.explains(string(r.Name()), "somebody presented a genuine token of another pod; the cluster names account gha-runners/hipaa-prod-runner, pod uid "+theirs.PodUID,
			"somebody presented a token that the cluster does not vouch for", "nothing was handed out again")
		if status := b.askAt(runner.GateClaim, r.Name(), expired); status != http.StatusUnauthorized {
			t.Errorf("a token for a sealed runner: HTTP %d, want 401", status)
		}
	})
}

// explains wants these words in the auditor's explanation.
func (b *bench) explains(query string, words ...string) {
	b.t.Helper()
	x, err := evidence.Explain(b.report(), query, supervisor.Explain)
	if err != nil {
		b.t.Fatal(err)
	}
	var text strings.Builder
	if err := x.WriteText(&text); err != nil {
		b.t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range words {
		if !strings.Contains(flat, want) {
			b.t.Errorf("explain lacks %q:\n%s", want, text.String())
		}
	}
}

// counts are refusals by gate and cause.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) add(gate runner.Gate, cause runner.RebuffCause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[string(gate)+" "+string(cause)]++
}

func (c *counts) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[key]
}

// TestAPodThatTakesTheNameOfTheBoundOneIsTurnedAway: the bound pod is deleted by
// force and another comes under its name. It gets nothing at either gate, and
// does not pass for the pod whose job is over.
func TestAPodThatTakesTheNameOfTheBoundOneIsTurnedAway(t *testing.T) {
	run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		r := b.phase(runner.KindStarted)
		first := b.pod(string(r.Name()))
		if err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Delete(t.Context(), first.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			t.Fatal(err)
		}
		second := b.createPod(first.Name, first)
		token := b.mint(second, r.Claimed.Event.Authorized.Audience(), time.Hour)
		if status := b.askAt(runner.GateClaim, r.Name(), token); status != http.StatusConflict {
			t.Errorf("claim: HTTP %d, want 409", status)
		}
		if status := b.askAt(runner.GateStart, r.Name(), token); status != http.StatusUnauthorized {
			t.Errorf("start: HTTP %d, want 401", status)
		}
		for _, gate := range []runner.Gate{runner.GateClaim, runner.GateStart} {
			if e := b.rebuffed(gate, runner.RebuffSecondPod); e.Caller == nil || e.Caller.PodUID != string(second.UID) || e.Caller.PodUID == r.Bound.Event.PodUID {
				t.Errorf("at %s the record names %+v, want pod %s", gate, e.Caller, second.UID)
			}
		}
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		if e := b.sealed(deploy.JobID).Completed; e == nil || e.Event.PodPhase != runner.PodGone {
			t.Errorf("completed = %+v, want the bound pod gone", e)
		}
	})
}

// TestAPodOnAnotherNodeIsTurnedAway: somebody made the runner's pod elsewhere
// first. The agent in it asks with its own genuine token.
func TestAPodOnAnotherNodeIsTurnedAway(t *testing.T) {
	var once sync.Once
	elsewhere := make(chan string, 1)
	run(t, options{at: -1, hosts: 3, onRecord: func(b *bench, rec runner.Record) {
		e, ok := rec.Event.(runner.Claimed)
		if !ok {
			return
		}
		once.Do(func() {
			for _, in := range b.world.AWS.Instances() {
				if in.State == "running" && in.PrivateDNS != e.Host.NodeName {
					pod := b.daemon.cluster.Manifest(supervisor.PodSpec{Runner: e.Runner, NodeName: in.PrivateDNS, Authorized: e.Authorized, JobTTL: time.Hour})
					b.createPod(pod.Name, pod)
					elsewhere <- in.PrivateDNS
					break
				}
			}
			b.world.Cluster.Inject(simcluster.Fault{Verb: "create", Resource: "pods", Count: 4}) // ours comes later
		})
	}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		e := b.rebuffed(runner.GateClaim, runner.RebuffOtherNode)
		if want := <-elsewhere; e.Caller == nil || e.Caller.NodeName != want {
			t.Errorf("the record names %+v, want node %s", e.Caller, want)
		}
		b.until("the deploy is sealed on another host", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		if r := b.state().Runners[e.Runner]; r.Bound != nil || r.Retired == nil || r.Retired.Event.Cause != runner.CauseHostLost {
			t.Errorf("the runner whose pod ran elsewhere = %+v, want it never bound and lost", r)
		}
	})
}

// TestAPodThatComesTooEarlyOrTooLateIsTurnedAway: at the start gate before it was
// bound, and for its configuration after its runner was retired.
func TestAPodThatComesTooEarlyOrTooLateIsTurnedAway(t *testing.T) {
	var held atomic.Bool
	held.Store(true)
	var freeze, linger sync.Once
	run(t, options{at: -1, hosts: 3, assign: func(_ string, idle []string) string {
		if held.Load() {
			return ""
		}
		return idle[0]
	}, onRecord: func(b *bench, rec runner.Record) {
		switch rec.Event.Kind() {
		case runner.KindClaimed:
			freeze.Do(func() {
				go func() {
					if err := b.daemon.sup.Freeze(b.t.Context(), "test", "INC-1"); err != nil {
						b.t.Error(err)
					}
				}()
			})
		case runner.KindRetired:
			linger.Do(func() { b.world.Cluster.Inject(simcluster.Fault{Verb: "delete", Resource: "pods", Count: 3}) })
		}
	}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		b.until("a pod runs and is not bound", 10*time.Minute, func() bool {
			r := b.phase(runner.KindClaimed)
			if r == nil {
				return false
			}
			list, err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).List(t.Context(), metav1.ListOptions{})
			return err == nil && len(list.Items) == 1 && list.Items[0].Status.Phase == corev1.PodRunning
		})
		r := b.phase(runner.KindClaimed)
		token := b.mint(b.pod(string(r.Name())), r.Claimed.Event.Authorized.Audience(), time.Hour)
		if status := b.askAt(runner.GateClaim, r.Name(), token); status != http.StatusServiceUnavailable {
			t.Errorf("claim while frozen: HTTP %d, want 503", status)
		}
		if status := b.askAt(runner.GateStart, r.Name(), token); status != http.StatusUnauthorized {
			t.Errorf("start before it is bound: HTTP %d, want 401", status)
		}
		b.rebuffed(runner.GateStart, runner.RebuffNotBound)
		if err := b.daemon.sup.Unfreeze(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		b.until("retired", 20*time.Minute, func() bool { return b.state().Runners[r.Name()].Retired != nil })
		if status := b.askAt(runner.GateClaim, r.Name(), token); status != http.StatusConflict {
			t.Errorf("claim after the runner is over: HTTP %d, want 409", status)
		}
		b.rebuffed(runner.GateClaim, runner.RebuffRunnerOver)
		held.Store(false)
		b.until("sealed on another host", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
		if n := len(b.rebuffs()); n != 2 {
			t.Errorf("%d records, want 2: an unknown is no refusal", n)
		}
	})
}

// TestWhatIsUnknownIsNotARefusal: while the API server is away nobody is turned
// away on record; while the log is away everybody is, and the record comes later.
func TestWhatIsUnknownIsNotARefusal(t *testing.T) {
	run(t, options{at: -1, spool: true}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 5*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		r := b.phase(runner.KindStarted)
		wrong := b.mintUnbound("kube-system", "default", r.Claimed.Event.Authorized.Audience())
		b.world.Cluster.Inject(simcluster.Fault{Verb: "create", Resource: "tokenreviews", Count: 2})
		for range 2 {
			if status := b.askAt(runner.GateClaim, r.Name(), wrong); status != http.StatusServiceUnavailable {
				t.Errorf("without an API server: HTTP %d, want 503", status)
			}
		}
		pause(t.Context(), 10*time.Second)
		if got := b.rebuffs(); len(got) != 0 {
			t.Errorf("records = %+v, want none for what nobody knows", got)
		}
		b.faults.setAway(true)
		// The record under way when the store goes waits in the spool, of whatever
		// kind. Others of this kind wait for the store.
		b.until("the log is known to be away", 2*time.Minute, func() bool {
			if status := b.askAt(runner.GateStart, r.Name(), wrong); status != http.StatusUnauthorized {
				t.Errorf("without a log: HTTP %d, want 401", status)
			}
			return b.view().Ledger.Away
		})
		spooled, asked := b.daemon.log.Spool().Waiting, time.Now()
		if status := b.askAt(runner.GateClaim, r.Name(), wrong); status != http.StatusUnauthorized || time.Since(asked) > time.Second {
			t.Errorf("without a log: HTTP %d after %s, want 401 at once", status, time.Since(asked))
		}
		pause(t.Context(), 30*time.Second)
		if n := b.daemon.log.Spool().Waiting; n != spooled {
			t.Errorf("%d records in the spool after a refusal, want the %d of before: nothing ends because of it", n, spooled)
		}
		b.faults.setAway(false)
		for _, gate := range []runner.Gate{runner.GateStart, runner.GateClaim} {
			b.rebuffed(gate, runner.RebuffOtherAccount)
		}
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}
