package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// collector reads the View once per scrape, so that all gauges of one scrape
// are of one moment.
type collector struct {
	source Source
	labels []string // values of the gha_* gauges' labels

	assigned, running, registered, busy, idle *prometheus.Desc
	minimum, maximum, desired                 *prometheus.Desc

	ready, leader, frozen, canDeploy, capacity *prometheus.Desc
	jobs, runners, hosts, overdue              *prometheus.Desc
	lastPoll, session                          *prometheus.Desc
	ledgerSize, ledgerLast, ledgerFailing      *prometheus.Desc
	ledgerAway, ledgerSpooled                  *prometheus.Desc

	github  githubGauges
	cluster clusterMetrics
}

func newCollector(o Options) *collector {
	gha := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("gha_"+name, help, []string{"name", "repository", "organization", "enterprise", "namespace"}, nil)
	}
	own := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("runnerward_"+name, help, labels, nil)
	}
	l := o.Labels
	return &collector{
		source: o.Source,
		labels: []string{l.Name, l.Repository, l.Organization, l.Enterprise, l.Namespace},

		assigned:   gha("assigned_jobs", "Jobs assigned to this scale set, as GitHub counts them."),
		running:    gha("running_jobs", "Jobs running or about to, as GitHub counts them."),
		registered: gha("registered_runners", "Runners registered by this scale set, as GitHub counts them."),
		busy:       gha("busy_runners", "Registered runners that run a job, as GitHub counts them."),
		idle:       gha("idle_runners", "Registered runners that run no job, as GitHub counts them."),
		minimum:    gha("min_runners", "Least number of runners. Always 0: hosts are kept warm, registrations are not."),
		maximum:    gha("max_runners", "Largest number of runners."),
		desired:    gha("desired_runners", "Runners that the assigned jobs ask for, up to the largest number."),

		ready:         own("ready", "Whether this condition of readiness holds.", "check"),
		leader:        own("leader", "Whether this daemon is the one that acts."),
		frozen:        own("frozen", "Whether an operator stopped admission."),
		canDeploy:     own("can_deploy", "Whether a job that comes now would be served if the policy allows it."),
		capacity:      own("capacity", "Hosts that may still be taken at once."),
		jobs:          own("jobs", "Jobs shown on the status page, by phase.", "phase"),
		runners:       own("runners", "Runners shown on the status page, by phase.", "phase"),
		hosts:         own("hosts", "Hosts of the pool: vetted and failing serve nothing yet, claimed are in use or ending.", "state"),
		overdue:       own("teardown_overdue", "Hosts that should be gone and are not."),
		lastPoll:      own("seconds_since_last_poll", "Time since GitHub's queue last answered, since start if it never did."),
		session:       own("session", "Whether the message session is in this state.", "state"),
		ledgerSize:    own("ledger_size", "Records in the ledger."),
		ledgerLast:    own("ledger_last_append_timestamp_seconds", "When the last record was made; 0 if there is none."),
		ledgerFailing: own("ledger_failing", "Whether the ledger's last operation failed."),
		ledgerAway:    own("ledger_store_away", "Whether the ledger's store cannot be written and records wait in the spool."),
		ledgerSpooled: own("ledger_spooled_records", "Records that wait in the spool for the ledger's store."),

		github:  newGitHubGauges(),
		cluster: newClusterMetrics(),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.assigned, c.running, c.registered, c.busy, c.idle, c.minimum, c.maximum, c.desired,
		c.ready, c.leader, c.frozen, c.canDeploy, c.capacity, c.jobs, c.runners, c.hosts, c.overdue,
		c.lastPoll, c.session, c.ledgerSize, c.ledgerLast, c.ledgerFailing, c.ledgerAway, c.ledgerSpooled,
	} {
		ch <- d
	}
	c.github.describe(ch)
	c.cluster.describe(ch)
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	view := c.source.View()
	set := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	c.gha(view, func(d *prometheus.Desc, n int) { set(d, float64(n), c.labels...) })
	checks := map[string]bool{}
	for _, check := range view.Checks {
		ok, twice := checks[check.Name]
		checks[check.Name] = check.OK && (ok || !twice)
	}
	for name, ok := range checks {
		set(c.ready, b2f(ok), name)
	}
	set(c.leader, b2f(view.Leading))
	set(c.frozen, b2f(view.Frozen != nil))
	set(c.canDeploy, b2f(view.CanDeploy))
	set(c.capacity, float64(view.Capacity))
	for _, state := range []string{"none", "conflict", "open"} {
		set(c.session, b2f(view.Queue.Session == state), state)
	}
	set(c.lastPoll, sinceLastPoll(view).Seconds())
	set(c.ledgerSize, float64(view.Ledger.Size))
	set(c.ledgerLast, unixSeconds(view.Ledger.LastAt))
	set(c.ledgerFailing, b2f(view.Ledger.LastError != ""))
	set(c.ledgerAway, b2f(view.Ledger.Away))
	set(c.ledgerSpooled, float64(view.Ledger.Spooled))
	c.population(view, set)
	c.github.collect(view, ch, set)
	c.cluster.collect(view, ch, set)
}

func (c *collector) gha(view supervisor.View, set func(*prometheus.Desc, int)) {
	stats := view.Queue.Statistics
	set(c.assigned, stats.Assigned)
	set(c.running, stats.Running)
	set(c.registered, stats.Registered)
	set(c.busy, stats.Busy)
	set(c.idle, stats.Idle)
	set(c.minimum, 0)
	set(c.maximum, view.Max)
	set(c.desired, min(stats.Assigned, view.Max))
}

// population counts jobs, runners and hosts. Every phase is always shown: a
// series that is absent cannot be alerted on.
func (c *collector) population(view supervisor.View, set func(*prometheus.Desc, float64, ...string)) {
	jobs := phases(runner.KindOffered, runner.KindAuthorized, runner.KindDenied, runner.KindReported,
		runner.KindStarted, runner.KindRefused, runner.KindConcluded, runner.KindCancelled)
	for _, j := range view.Jobs {
		jobs[j.Phase]++
	}
	runners := phases(runner.KindClaimed, runner.KindBound, runner.KindReleased, runner.KindStarted,
		runner.KindRefused, runner.KindRetired, runner.KindCompleted, runner.KindTeardown,
		runner.KindOverdue, runner.KindTerminated, runner.KindSealed)
	hosts := map[string]float64{"vetted": 0, "failing": 0, "claimed": 0}
	overdue := 0.0
	for _, r := range view.Runners {
		runners[r.Phase]++
		if !gone(r) {
			hosts["claimed"]++
			overdue += b2f(r.Overdue)
		}
	}
	for _, h := range view.Hosts {
		if h.Vetted {
			hosts["vetted"]++
		} else {
			hosts["failing"]++
		}
	}
	for phase, n := range jobs {
		set(c.jobs, n, string(phase))
	}
	for phase, n := range runners {
		set(c.runners, n, string(phase))
	}
	for state, n := range hosts {
		set(c.hosts, n, state)
	}
	set(c.overdue, overdue)
}

func phases(all ...runner.Kind) map[runner.Kind]float64 {
	m := make(map[runner.Kind]float64, len(all))
	for _, k := range all {
		m[k] = 0
	}
	return m
}

// sinceLastPoll grows from the start of the daemon on, so that one that never
// reached GitHub raises the same alarm as one that lost it. One that stands by
// is not to reach it.
func sinceLastPoll(view supervisor.View) time.Duration {
	last := view.Queue.LastPoll
	if last.IsZero() {
		last = view.StartedAt
	}
	if last.IsZero() || view.StandingBy {
		return 0
	}
	return max(0, view.Now.Sub(last))
}

func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
