package endtoend

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	upstream "github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// environment replaces the protection of the world's environment.
func (b *bench) environment(edit func(*simgithub.Environment)) {
	env := simgithub.Environment{
		Name: world.Environment, ReviewerTeams: []string{world.Team}, PreventSelfReview: true,
		Policies: []simgithub.BranchPolicy{{Name: "v*.*.*", Type: "tag"}},
	}
	edit(&env)
	b.world.GitHub.SetEnvironment(world.Repository, env)
}

// restart ends the daemon in order and starts another on its ledger.
func (b *bench) restart() {
	b.kill()
	b.start()
}

func (b *bench) denied(job string) []string {
	if j := b.state().Jobs[runner.JobID(job)]; j != nil && j.Denied != nil {
		return j.Denied.Event.Decision.Reasons
	}
	return nil
}

func (b *bench) view() supervisor.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.daemon.sup == nil {
		return supervisor.View{}
	}
	return b.daemon.sup.View()
}

// again cancels the run and starts its next attempt.
func (b *bench) again(run simgithub.Run, by string) simgithub.Run {
	b.t.Helper()
	if job, _ := b.world.GitHub.Job(run.JobID); job.Status != "completed" {
		if err := b.world.GitHub.Cancel(run.ID); err != nil {
			b.t.Fatal(err)
		}
		b.until("the first attempt is over", 20*time.Minute, func() bool {
			job, _ := b.world.GitHub.Job(run.JobID)
			return job.Status == "completed"
		})
	}
	next, err := b.world.GitHub.Rerun(run.ID, by)
	if err != nil {
		b.t.Fatal(err)
	}
	return next
}

// An approval is of one attempt, also for a daemon that was restarted between
// the two: what it knows of the first stands in the log.
func TestAReRunNeedsAnApprovalOfItsOwn(t *testing.T) {
	t.Run("and runs with one", func(t *testing.T) {
		run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
			first := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
			b.until("sealed", 20*time.Minute, func() bool { return b.sealed(first.JobID) != nil })
			b.restart()
			second := b.again(first, "bob")
			if err := b.world.GitHub.Approve(second.ID, "carol"); err != nil {
				t.Fatal(err)
			}
			b.until("the second attempt is sealed", 20*time.Minute, func() bool { return b.sealed(second.JobID) != nil })
			approvals := b.state().Jobs[runner.JobID(second.JobID)].Authorized.Event.Facts.Approvals
			if len(approvals) != 1 || approvals[0].Source != runner.SourceWebhook || approvals[0].Delivery == "" {
				t.Errorf("the second attempt was authorized by %+v, want the one approval that a webhook told of", approvals)
			}
		})
	})
	t.Run("which a bypass is not", func(t *testing.T) {
		run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
			b.environment(func(e *simgithub.Environment) { e.CanAdminsBypass = true })
			first := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
			b.until("sealed", 20*time.Minute, func() bool { return b.sealed(first.JobID) != nil })
			second := b.again(first, "dave")
			if err := b.world.GitHub.Bypass(second.ID); err != nil {
				t.Fatal(err)
			}
			b.until("denied", 20*time.Minute, func() bool { return b.denied(second.JobID) != nil })
			if got := b.denied(second.JobID); !slices.Contains(got, "approval-bypassed") {
				t.Errorf("denied for %v, want approval-bypassed", got)
			}
		})
	})
	t.Run("that GitHub told us of", func(t *testing.T) {
		run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
			first := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
			b.until("sealed", 20*time.Minute, func() bool { return b.sealed(first.JobID) != nil })
			second := b.again(first, "bob")
			if err := b.world.GitHub.Approve(second.ID, "dave"); err != nil {
				t.Fatal(err)
			}
			b.world.GitHub.LoseDeliveries()
			b.until("denied", 20*time.Minute, func() bool { return b.denied(second.JobID) != nil })
			if got := b.denied(second.JobID); !slices.Contains(got, "approval-unattributed") {
				t.Errorf("denied for %v, want approval-unattributed", got)
			}
		})
	})
}

func TestWhoWroteThePullRequestMayNotApprove(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		spec := world.Deploy("v1.0.0", "bob", "bob", 20*time.Second)
		b.world.GitHub.AddPull(world.Repository, spec.HeadSHA, "carol")
		deploy := b.dispatch(spec, "carol")
		b.until("denied", 20*time.Minute, func() bool { return b.denied(deploy.JobID) != nil })
		if got := b.denied(deploy.JobID); !slices.Equal(got, []string{"approver-is-author"}) {
			t.Errorf("denied for %v, want approver-is-author", got)
		}
	})
}

// As a deployment protection rule we answer before anybody has approved, and the
// reasons stand on GitHub's page.
func TestGitHubIsAnsweredBeforeTheQueue(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.environment(func(e *simgithub.Environment) { e.ProtectionApps = []string{"runnerward"} })
		bad := world.Deploy("v1.0.1", "bob", "bob", 20*time.Second)
		bad.JobWorkflowRef = world.BranchWorkflow
		refused, err := b.world.GitHub.Dispatch(bad)
		if err != nil {
			t.Fatal(err)
		}
		b.until("the bad one is rejected", 5*time.Minute, func() bool {
			state, _ := b.world.GitHub.Ruling(refused.ID)
			return state == "rejected"
		})
		_, comments := b.world.GitHub.Ruling(refused.ID)
		if !strings.Contains(strings.Join(comments, ""), "`workflow-not-listed`") {
			t.Errorf("GitHub's page says %q, want the reason", comments)
		}
		if job, _ := b.world.GitHub.Job(refused.JobID); job.Status != "completed" || b.state().Jobs[runner.JobID(refused.JobID)] != nil {
			t.Errorf("the refused job is %+v, want it over and never queued", job)
		}
		good := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("the good one is sealed", 20*time.Minute, func() bool { return b.sealed(good.JobID) != nil })
		if state, _ := b.world.GitHub.Ruling(good.ID); state != "approved" {
			t.Errorf("the ruling is %q, want approved", state)
		}
		for _, ask := range b.state().Runs[good.ID].Asks {
			if ask.Ruled == nil || ask.Answered == nil || ask.Answered.Event.Moot {
				t.Errorf("the log holds %+v, want it ruled and answered", ask)
			}
		}
	})
}

// intruder registers runners with our credential, past the daemon.
func (b *bench) intruder(name string) *scaleset.ScaleSet {
	b.t.Helper()
	transport := b.github.Transport()
	app, err := b.app(transport)
	if err != nil {
		b.t.Fatal(err)
	}
	labels := world.Labels()
	if name != "hipaa-prod" {
		labels = []string{name}
	}
	set, err := scaleset.Open(b.t.Context(), scaleset.Config{
		URL: gitHubURL + "/" + world.Org, Name: name, Group: world.Group, Labels: labels, Owner: "intruder",
		App: app, Version: "test", Transport: transport,
	}, zap.NewNop())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(transport.CloseIdleConnections)
	return set
}

// byHand is somebody with the App's key and the official client.
func (b *bench) byHand() *upstream.Client {
	b.t.Helper()
	rc := retryablehttp.NewClient()
	transport := b.github.Transport()
	b.t.Cleanup(transport.CloseIdleConnections)
	rc.Logger, rc.RetryMax, rc.HTTPClient = nil, 0, &http.Client{Transport: transport}
	c, err := upstream.NewClientWithGitHubApp(upstream.ClientWithGitHubAppConfig{
		GitHubConfigURL: gitHubURL + "/" + world.Org,
		GitHubAppAuth:   upstream.GitHubAppAuth{ClientID: world.AppClientID, InstallationID: world.AppInstallationID, PrivateKey: string(b.keyPEM)},
	}, upstream.WithRetryableHTTPClint(rc))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// removeRunner is an administrator's click on GitHub's page.
func (b *bench) removeRunner(id int64) {
	b.t.Helper()
	transport := b.github.Transport()
	defer transport.CloseIdleConnections()
	app, err := b.app(transport)
	if err != nil {
		b.t.Fatal(err)
	}
	token, err := app.Token(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodDelete, fmt.Sprintf("%s/api/v3/orgs/%s/actions/runners/%d", gitHubURL, world.Org, id), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		b.t.Fatalf("removing runner %d: HTTP %d", id, resp.StatusCode)
	}
}

func TestStraysAreRecordedAndRemoved(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		pods := b.world.Cluster.Client().CoreV1().Pods(world.Namespace)
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 3*time.Minute), "carol")
		b.until("a pod runs", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		list, err := pods.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d pods, %v, want ours", len(list.Items), err)
		}
		stray := list.Items[0].DeepCopy()
		stray.Name, stray.UID, stray.ResourceVersion = "somebody-else", "", ""
		if _, err := pods.Create(t.Context(), stray, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.intruder("hipaa-prod").Register(t.Context(), "rogue-1"); err != nil {
			t.Fatal(err)
		}
		b.until("both are recorded and gone", 10*time.Minute, func() bool {
			swept := 0
			for _, rec := range b.report().Records {
				if rec.Event.Kind() == runner.KindSwept {
					swept++
				}
			}
			return swept == 2
		})
		for _, r := range b.world.GitHub.Runners() {
			if r.Name == "rogue-1" {
				t.Error("the rogue registration is still there")
			}
		}
		b.until("our own runner was left alone", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		if job, _ := b.world.GitHub.Job(deploy.JobID); job.Conclusion != "success" {
			t.Errorf("the deploy ended as %q, want success", job.Conclusion)
		}
	})
}

// What appeared while no daemon ran is found by the first comparison.
func TestStraysOfTheTimeWithoutADaemonAreFoundAtStart(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		b.kill()
		if _, err := b.intruder("hipaa-prod").Register(t.Context(), "rogue-1"); err != nil {
			t.Fatal(err)
		}
		b.start()
		b.until("recorded and removed", 2*time.Minute, func() bool {
			for _, rec := range b.report().Records {
				if e, ok := rec.Event.(runner.Swept); ok && e.What == runner.StrayRegistration {
					return true
				}
			}
			return false
		})
		if n := len(b.world.GitHub.Runners()); n != 0 {
			t.Errorf("%d registrations are left, want none", n)
		}
	})
}

// An approval that has not stood long enough makes a job wait, at admission and
// at its start, and never denies it.
func TestAnApprovalThatHasToStandMakesTheJobWait(t *testing.T) {
	const coolOff = 90 * time.Second
	run(t, options{at: -1, pool: func(p *runner.Pool) { p.CoolOffSeconds = int64(coolOff / time.Second) }}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		approved := time.Now()
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		told := false
		b.until("authorized", 10*time.Minute, func() bool {
			for _, j := range b.view().Jobs {
				told = told || strings.Contains(j.Problem, "stood long enough")
			}
			j := b.state().Jobs[runner.JobID(deploy.JobID)]
			return j != nil && (j.Authorized != nil || j.Denied != nil)
		})
		j := b.state().Jobs[runner.JobID(deploy.JobID)]
		if j.Denied != nil {
			t.Fatalf("denied for %v, want it to wait", j.Denied.Event.Decision.Reasons)
		}
		if stood := j.Authorized.At.Sub(approved); stood < coolOff || !told {
			t.Errorf("authorized %s after its approval (told: %t), want to wait %s and say so", stood, told, coolOff)
		}
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// A runner in our group that is not of our scale set could be given our jobs.
func TestAForeignRunnerInTheGroupStopsNewWork(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		other := b.intruder("somebody-elses")
		for _, name := range []runner.Name{"foreign-1", "Of Another Shape"} {
			if _, err := other.Register(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		b.until("both are told", 2*time.Minute, func() bool { return len(b.view().Closed) == 2 })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		pause(t.Context(), 3*time.Minute)
		if n := len(b.state().Runners); n != 0 {
			t.Fatalf("%d runners were made beside a foreign one, want none", n)
		}
		if v := b.view(); v.CanDeploy || !strings.Contains(strings.Join(v.Why, " "), "not of our scale set") {
			t.Errorf("why not: %q, want the foreign runner", v.Why)
		}
		for _, r := range b.world.GitHub.Runners() {
			b.removeRunner(r.ID)
		}
		b.until("work goes on", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// Somebody opens or renames the group, or makes a second scale set of our name.
func TestDriftStopsNewWorkUntilItIsMended(t *testing.T) {
	for _, drift := range []struct {
		name        string
		begin, mend func(context.Context, *bench) error
		says        string
	}{
		{"the group is renamed", func(_ context.Context, b *bench) error { return b.renameGroup("renamed") },
			func(_ context.Context, b *bench) error { return b.renameGroup(world.Group) }, "runner group"},
		{"the group is opened to all", func(_ context.Context, b *bench) error { return b.showGroup("all") },
			func(_ context.Context, b *bench) error { return b.showGroup("selected") }, "more than selected repositories"},
		{"a second scale set has our name", func(ctx context.Context, b *bench) error {
			_, err := b.byHand().CreateRunnerScaleSet(ctx, &upstream.RunnerScaleSet{Name: "hipaa-prod", RunnerGroupID: 1})
			return err
		}, func(ctx context.Context, b *bench) error {
			set, err := b.byHand().GetRunnerScaleSet(ctx, 1, "hipaa-prod")
			if err != nil {
				return err
			}
			return b.byHand().DeleteRunnerScaleSet(ctx, set.ID)
		}, "remove or rename it"},
	} {
		t.Run(drift.name, func(t *testing.T) {
			run(t, options{at: -1}, func(t *testing.T, b *bench) {
				b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
				if err := drift.begin(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				b.until("it is told", 30*time.Minute, func() bool {
					return strings.Contains(strings.Join(b.view().Why, " "), drift.says)
				})
				if err := drift.mend(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				b.until("it is well again", 30*time.Minute, func() bool { return len(b.view().Queue.Problems) == 0 && b.view().CanDeploy })
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
				b.until("work goes on", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
			})
		})
	}
}

func (b *bench) renameGroup(to string) error {
	return b.world.GitHub.UpdateGroup(b.world.GroupID, func(g *simgithub.Group) { g.Name = to })
}

func (b *bench) showGroup(to string) error {
	return b.world.GitHub.UpdateGroup(b.world.GroupID, func(g *simgithub.Group) { g.Visibility = to })
}
