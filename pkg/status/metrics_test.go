package status_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/status"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// observed is a registry with one of every transition in it.
func observed(t *testing.T, view supervisor.View) (*prometheus.Registry, *status.Server, *source) {
	t.Helper()
	src := &source{view: view}
	reg := prometheus.NewRegistry()
	s := status.New(status.Options{Source: src, Logger: zap.NewNop(), Registry: reg, Version: "v0.1.0", FIPS: supervisor.FIPS{Module: "v1.0.0", Enabled: true},
		Labels: status.Labels{Enterprise: "hipaa-ent", Organization: "hipaa-app-org", Name: "hipaa-prod", Namespace: "gha-runners"}})
	return reg, s, src
}

var deploy = status.JobSample{Repository: "hipaa-app-org/clinical-platform", JobName: "deploy_prod", Event: "push"}

// The runner controller's metrics, to the letter: names, labels, order, buckets.
func TestRunnerControllerMetrics(t *testing.T) {
	reg, s, _ := observed(t, busy())
	s.JobStarted(deploy, 95*time.Second)
	s.JobCompleted(deploy, runner.ResultSucceeded, 11*time.Minute)
	s.JobCompleted(deploy, runner.ResultCancelled, 2*time.Hour)
	want, err := os.Open("testdata/gha.prom")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := testutil.GatherAndCompare(reg, want, "gha_assigned_jobs", "gha_running_jobs", "gha_registered_runners",
		"gha_busy_runners", "gha_min_runners", "gha_max_runners", "gha_desired_runners", "gha_idle_runners",
		"gha_started_jobs_total", "gha_completed_jobs_total", "gha_job_startup_duration_seconds",
		"gha_job_execution_duration_seconds"); err != nil {
		t.Error(err)
	}
}

func TestHowTheClusterIsFollowed(t *testing.T) {
	view := healthy()
	view.Cluster = supervisor.ClusterHealth{
		Watches:       []supervisor.WatchHealth{{What: "nodes", Open: true, Lists: 1}, {What: "pods", Lists: 3, Failures: 7, Problem: "forbidden"}},
		Requests:      []supervisor.RequestCount{{Verb: "get", Resource: "pods", Code: 404, Count: 12}},
		DroppedEvents: 2,
	}
	reg, _, _ := observed(t, view)
	const want = `
# HELP runnerward_cluster_events_dropped_total Kubernetes events that were never shown.
# TYPE runnerward_cluster_events_dropped_total counter
runnerward_cluster_events_dropped_total 2
# HELP runnerward_cluster_lists_total Times that this resource was listed to begin a watch.
# TYPE runnerward_cluster_lists_total counter
runnerward_cluster_lists_total{resource="nodes"} 1
runnerward_cluster_lists_total{resource="pods"} 3
# HELP runnerward_cluster_requests_total Calls of the API server, by answer; code 0 if none came.
# TYPE runnerward_cluster_requests_total counter
runnerward_cluster_requests_total{code="404",resource="pods",verb="get"} 12
# HELP runnerward_cluster_watch_failures_total Lists and watches of this resource that failed.
# TYPE runnerward_cluster_watch_failures_total counter
runnerward_cluster_watch_failures_total{resource="nodes"} 0
runnerward_cluster_watch_failures_total{resource="pods"} 7
# HELP runnerward_cluster_watching Whether this resource is watched; if not, the API server is asked each time.
# TYPE runnerward_cluster_watching gauge
runnerward_cluster_watching{resource="nodes"} 1
runnerward_cluster_watching{resource="pods"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "runnerward_cluster_events_dropped_total", "runnerward_cluster_lists_total",
		"runnerward_cluster_requests_total", "runnerward_cluster_watch_failures_total", "runnerward_cluster_watching"); err != nil {
		t.Error(err)
	}
}

func TestOwnMetrics(t *testing.T) {
	view := busy()
	view.Frozen = frozen().Frozen
	reg, s, _ := observed(t, view)
	s.Denied([]string{"approval.self", "workflow.unpinned"})
	s.Denied([]string{"approval.self", "free text with spaces"})
	s.StolenJob()
	s.Rebuffed(runner.GateClaim, runner.RebuffReplay)
	s.Rebuffed(runner.GateClaim, runner.RebuffReplay)
	s.Rebuffed(runner.GateClaim, "unknown-runner")
	s.Rebuffed(runner.GateStart, "")
	const want = `
# HELP runnerward_can_deploy Whether a job that comes now would be served if the policy allows it.
# TYPE runnerward_can_deploy gauge
runnerward_can_deploy 0
# HELP runnerward_capacity Hosts that may still be taken at once.
# TYPE runnerward_capacity gauge
runnerward_capacity 0
# HELP runnerward_denials_total Reasons for which jobs were denied or refused; a job with two reasons counts under both.
# TYPE runnerward_denials_total counter
runnerward_denials_total{reason="approval.self"} 2
runnerward_denials_total{reason="other"} 1
runnerward_denials_total{reason="workflow.unpinned"} 1
# HELP runnerward_frozen Whether an operator stopped admission.
# TYPE runnerward_frozen gauge
runnerward_frozen 1
# HELP runnerward_hosts Hosts of the pool: vetted and failing serve nothing yet, claimed are in use or ending.
# TYPE runnerward_hosts gauge
runnerward_hosts{state="claimed"} 3
runnerward_hosts{state="failing"} 1
runnerward_hosts{state="vetted"} 1
# HELP runnerward_jobs Jobs shown on the status page, by phase.
# TYPE runnerward_jobs gauge
runnerward_jobs{phase="authorized"} 0
runnerward_jobs{phase="cancelled"} 0
runnerward_jobs{phase="concluded"} 1
runnerward_jobs{phase="denied"} 1
runnerward_jobs{phase="offered"} 1
runnerward_jobs{phase="refused"} 0
runnerward_jobs{phase="reported"} 0
runnerward_jobs{phase="started"} 1
# HELP runnerward_leader Whether this daemon is the one that acts.
# TYPE runnerward_leader gauge
runnerward_leader 1
# HELP runnerward_ledger_failing Whether the ledger's last operation failed.
# TYPE runnerward_ledger_failing gauge
runnerward_ledger_failing 0
# HELP runnerward_ledger_last_append_timestamp_seconds When the last record was made; 0 if there is none.
# TYPE runnerward_ledger_last_append_timestamp_seconds gauge
runnerward_ledger_last_append_timestamp_seconds 1.77245271e+09
# HELP runnerward_ledger_size Records in the ledger.
# TYPE runnerward_ledger_size gauge
runnerward_ledger_size 1234
# HELP runnerward_ready Whether this condition of readiness holds.
# TYPE runnerward_ready gauge
runnerward_ready{check="ledger"} 1
runnerward_ready{check="posture"} 0
runnerward_ready{check="queue"} 1
# HELP runnerward_rebuffs_total Callers who were turned away at a runner's gate, also those that are on record already.
# TYPE runnerward_rebuffs_total counter
runnerward_rebuffs_total{cause="no-pod",gate="claim"} 0
runnerward_rebuffs_total{cause="other-account",gate="claim"} 0
runnerward_rebuffs_total{cause="other-audience",gate="claim"} 0
runnerward_rebuffs_total{cause="other-node",gate="claim"} 0
runnerward_rebuffs_total{cause="other-pod",gate="claim"} 0
runnerward_rebuffs_total{cause="replay",gate="claim"} 2
runnerward_rebuffs_total{cause="runner-over",gate="claim"} 0
runnerward_rebuffs_total{cause="second-pod",gate="claim"} 0
runnerward_rebuffs_total{cause="token-rejected",gate="claim"} 0
runnerward_rebuffs_total{cause="unknown-runner",gate="claim"} 1
runnerward_rebuffs_total{cause="no-pod",gate="start"} 0
runnerward_rebuffs_total{cause="not-bound",gate="start"} 0
runnerward_rebuffs_total{cause="other",gate="start"} 1
runnerward_rebuffs_total{cause="other-account",gate="start"} 0
runnerward_rebuffs_total{cause="other-audience",gate="start"} 0
runnerward_rebuffs_total{cause="other-pod",gate="start"} 0
runnerward_rebuffs_total{cause="second-pod",gate="start"} 0
runnerward_rebuffs_total{cause="token-rejected",gate="start"} 0
# HELP runnerward_runners Runners shown on the status page, by phase.
# TYPE runnerward_runners gauge
runnerward_runners{phase="bound"} 0
runnerward_runners{phase="claimed"} 1
runnerward_runners{phase="completed"} 0
runnerward_runners{phase="overdue"} 0
runnerward_runners{phase="refused"} 0
runnerward_runners{phase="released"} 0
runnerward_runners{phase="retired"} 0
runnerward_runners{phase="sealed"} 1
runnerward_runners{phase="started"} 1
runnerward_runners{phase="teardown"} 1
runnerward_runners{phase="terminated"} 0
# HELP runnerward_seconds_since_last_poll Time since GitHub's queue last answered, since start if it never did.
# TYPE runnerward_seconds_since_last_poll gauge
runnerward_seconds_since_last_poll 4
# HELP runnerward_session Whether the message session is in this state.
# TYPE runnerward_session gauge
runnerward_session{state="conflict"} 0
runnerward_session{state="none"} 0
runnerward_session{state="open"} 1
# HELP runnerward_stolen_jobs_total Jobs that ran on a runner made for another job.
# TYPE runnerward_stolen_jobs_total counter
runnerward_stolen_jobs_total 1
# HELP runnerward_teardown_overdue Hosts that should be gone and are not.
# TYPE runnerward_teardown_overdue gauge
runnerward_teardown_overdue 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "runnerward_can_deploy", "runnerward_capacity",
		"runnerward_denials_total", "runnerward_frozen", "runnerward_hosts", "runnerward_jobs", "runnerward_leader",
		"runnerward_ledger_failing", "runnerward_ledger_last_append_timestamp_seconds", "runnerward_ledger_size",
		"runnerward_ready", "runnerward_rebuffs_total", "runnerward_runners", "runnerward_seconds_since_last_poll", "runnerward_session",
		"runnerward_stolen_jobs_total", "runnerward_teardown_overdue"); err != nil {
		t.Error(err)
	}
}

func TestMetricsOfAnOutageOfTheLedgersStore(t *testing.T) {
	view := healthy()
	reg, _, src := observed(t, view)
	const names = `
# HELP runnerward_ledger_spooled_records Records that wait in the spool for the ledger's store.
# TYPE runnerward_ledger_spooled_records gauge
runnerward_ledger_spooled_records %d
# HELP runnerward_ledger_store_away Whether the ledger's store cannot be written and records wait in the spool.
# TYPE runnerward_ledger_store_away gauge
runnerward_ledger_store_away %d
`
	for _, c := range []struct{ spooled, away int }{{0, 0}, {7, 1}} {
		src.view.Ledger.Spooled, src.view.Ledger.Away = c.spooled, c.away == 1
		if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(names, c.spooled, c.away)),
			"runnerward_ledger_spooled_records", "runnerward_ledger_store_away"); err != nil {
			t.Error(err)
		}
	}
}

func TestGitHubMetrics(t *testing.T) {
	reg, _, _ := observed(t, busy())
	const want = `
# HELP runnerward_github_clock_skew_seconds GitHub's clock minus ours, 0 while unknown.
# TYPE runnerward_github_clock_skew_seconds gauge
runnerward_github_clock_skew_seconds{api="rest"} 0
runnerward_github_clock_skew_seconds{api="scale-set"} 3
# HELP runnerward_github_deliveries_read_timestamp_seconds When the App's webhook deliveries were last read; 0 if never.
# TYPE runnerward_github_deliveries_read_timestamp_seconds gauge
runnerward_github_deliveries_read_timestamp_seconds 1.772452788e+09
# HELP runnerward_github_rate_limit Calls that GitHub allows in its window.
# TYPE runnerward_github_rate_limit gauge
runnerward_github_rate_limit{api="rest",resource="core"} 5000
# HELP runnerward_github_rate_limit_remaining Calls that are left in GitHub's window.
# TYPE runnerward_github_rate_limit_remaining gauge
runnerward_github_rate_limit_remaining{api="rest",resource="core"} 4711
# HELP runnerward_github_throttled_total Answers by which GitHub asked for patience.
# TYPE runnerward_github_throttled_total counter
runnerward_github_throttled_total{api="rest",resource="core"} 0
runnerward_github_throttled_total{api="scale-set",resource="service"} 2
# HELP runnerward_strays Pods and registrations with our marks that no open runner explains.
# TYPE runnerward_strays gauge
runnerward_strays{what="foreign-runner"} 1
runnerward_strays{what="pod"} 1
runnerward_strays{what="registration"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "runnerward_github_clock_skew_seconds",
		"runnerward_github_deliveries_read_timestamp_seconds", "runnerward_github_rate_limit",
		"runnerward_github_rate_limit_remaining", "runnerward_github_throttled_total", "runnerward_strays"); err != nil {
		t.Error(err)
	}
}

func TestMetricsLint(t *testing.T) {
	reg, s, _ := observed(t, busy())
	s.JobStarted(deploy, time.Second)
	s.JobCompleted(deploy, runner.ResultFailed, time.Second)
	s.Denied([]string{"approval.self"})
	s.TornDown(time.Minute)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Counters and histograms do not depend on what the View still shows.
func TestCountersOutliveTheView(t *testing.T) {
	w := start(t, busy())
	w.status.JobStarted(deploy, time.Second)
	w.status.TornDown(4 * time.Minute)
	for range 2 {
		got := w.get(t, "/metrics")
		for _, line := range []string{
			`gha_started_jobs_total{enterprise="",event_name="push",job_name="deploy_prod",organization="hipaa-app-org",repository="clinical-platform"} 1`,
			`runnerward_teardown_duration_seconds_bucket{le="240"} 1`,
			`runnerward_teardown_duration_seconds_sum 240`,
			`process_start_time_seconds`,
		} {
			if !strings.Contains(got.body, line) {
				t.Errorf("GET /metrics lacks %s", line)
			}
		}
		w.src.set(empty())
	}
	if got := w.get(t, "/metrics"); !strings.Contains(got.body, "runnerward_seconds_since_last_poll 2\n") {
		t.Errorf("GET /metrics of a daemon that never polled does not count from its start")
	}
}

// A time series per job, run, runner or host would grow without end.
func TestNoMetricNamesAJobRunnerOrHost(t *testing.T) {
	w := start(t, busy())
	got := w.get(t, "/metrics")
	for _, j := range busy().Jobs {
		for _, id := range []string{string(j.ID), fmt.Sprintf(`"%d"`, j.RunID), j.URL} {
			if strings.Contains(got.body, id) {
				t.Errorf("GET /metrics holds the job's %s", id)
			}
		}
	}
	for _, r := range busy().Runners {
		for _, id := range []string{string(r.Name), r.Instance, r.Node} {
			if strings.Contains(got.body, id) {
				t.Errorf("GET /metrics holds the runner's %s", id)
			}
		}
	}
}

func TestJobNamesCannotFloodTheSeries(t *testing.T) {
	reg, s, _ := observed(t, empty())
	for i := range 1000 {
		s.JobStarted(status.JobSample{Repository: "o/r", JobName: fmt.Sprintf("matrix %d", i), Event: "push"}, time.Second)
	}
	got, err := testutil.GatherAndCount(reg, "gha_started_jobs_total")
	if err != nil {
		t.Fatal(err)
	}
	if got != 201 {
		t.Errorf("1000 job names make %d series, want 200 and other", got)
	}
	s.JobStarted(status.JobSample{Repository: "o/r", JobName: "\xff", Event: "pull request"}, time.Second)
	if _, err := reg.Gather(); err != nil {
		t.Errorf("gather after a job name that is not UTF-8: %v", err)
	}
}
