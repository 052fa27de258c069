package status

import (
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The gha_* metrics have the names, labels and buckets of the runner scale set
// listener of actions-runner-controller (cmd/ghalistener/metrics/metrics.go),
// so that its dashboards and alerts go on working. The help texts are ours.
// No metric carries a run, a job's id or a runner's name: each would be a new
// time series for ever.

// ghaBuckets are the upper bounds of both gha_* histograms, in seconds.
func ghaBuckets() []float64 {
	return []float64{
		0.01, 0.05, 0.1, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 40, 50,
		60, 70, 80, 90, 100, 110, 120, 150, 180, 210, 240, 300, 360, 420, 480, 540, 600,
		900, 1200, 1800, 2400, 3000, 3600,
	}
}

// teardownBuckets are the upper bounds of the teardown histogram, in seconds:
// an EC2 instance takes from one minute to ten to be gone.
func teardownBuckets() []float64 {
	return []float64{15, 30, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1800, 3600}
}

// JobSample is a job as far as metrics may know it.
type JobSample struct {
	// Repository is owner/name.
	Repository string
	// JobName is the job's display name, Event what triggered the workflow.
	JobName, Event string
}

// metrics are what only grows; what is read from the View is in collector.
type metrics struct {
	enterprise string
	names      limiter // of jobs, which any workflow's author chooses
	reasons    limiter

	started, completed *prometheus.CounterVec
	startup, execution *prometheus.HistogramVec
	denials            *prometheus.CounterVec
	rebuffs            *prometheus.CounterVec
	stolen             prometheus.Counter
	teardown           prometheus.Histogram
	buildInfo          *prometheus.GaugeVec
	gauges             *collector
}

// Bounds on label values that come from outside; what is beyond counts as "other".
const (
	maxJobNames = 200
	maxReasons  = 100
)

func newMetrics(o Options) *metrics {
	job := []string{"repository", "organization", "enterprise", "job_name", "event_name"}
	ended := append(job[:len(job):len(job)], "job_result")
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	}
	m := &metrics{
		enterprise: o.Labels.Enterprise,
		names:      limiter{max: maxJobNames},
		reasons:    limiter{max: maxReasons},
		started:    prometheus.NewCounterVec(counter("gha_started_jobs_total", "Jobs that were started."), job),
		completed:  prometheus.NewCounterVec(counter("gha_completed_jobs_total", "Jobs that were completed, by result."), ended),
		startup: prometheus.NewHistogramVec(histogram("gha_job_startup_duration_seconds",
			"Time from a job's assignment to the scale set to its assignment to a runner.", ghaBuckets()), job),
		execution: prometheus.NewHistogramVec(histogram("gha_job_execution_duration_seconds",
			"Time from a job's assignment to a runner to its end.", ghaBuckets()), ended),
		denials: prometheus.NewCounterVec(counter("runnerward_denials_total",
			"Reasons for which jobs were denied or refused; a job with two reasons counts under both."), []string{"reason"}),
		rebuffs: prometheus.NewCounterVec(counter("runnerward_rebuffs_total",
			"Callers who were turned away at a runner's gate, also those that are on record already."), []string{"gate", "cause"}),
		stolen: prometheus.NewCounter(counter("runnerward_stolen_jobs_total",
			"Jobs that ran on a runner made for another job.")),
		teardown: prometheus.NewHistogram(histogram("runnerward_teardown_duration_seconds",
			"Time from the end of a runner to its host being observed gone.", teardownBuckets())),
		buildInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "runnerward_build_info", Help: "Always 1; the labels say what runs.",
		}, []string{"version", "goversion", "fips", "fips_module"}),
		gauges: newCollector(o),
	}
	for _, gate := range []runner.Gate{runner.GateClaim, runner.GateStart} {
		for _, cause := range runner.RebuffCauses(gate) { // a series that is absent cannot be alerted on
			m.rebuffs.WithLabelValues(string(gate), string(cause))
		}
	}
	m.buildInfo.WithLabelValues(o.Version, runtime.Version(), strconv.FormatBool(o.FIPS.Enabled), o.FIPS.Module).Set(1)
	return m
}

func (m *metrics) register(r *prometheus.Registry) {
	r.MustRegister(m.started, m.completed, m.startup, m.execution, m.denials, m.rebuffs, m.stolen, m.teardown, m.buildInfo, m.gauges)
}

// labels are the values of a job's labels, in the order of newMetrics.
func (m *metrics) labels(j JobSample, more ...string) []string {
	owner, repository, _ := strings.Cut(j.Repository, "/")
	return append([]string{repository, owner, m.enterprise, m.names.admit(j.JobName), word(j.Event)}, more...)
}

// JobStarted counts a job that GitHub gave to a runner, and the time from its
// assignment to the scale set until then.
func (s *Server) JobStarted(j JobSample, startup time.Duration) {
	labels := s.metrics.labels(j)
	s.metrics.started.WithLabelValues(labels...).Inc()
	s.metrics.startup.WithLabelValues(labels...).Observe(startup.Seconds())
}

// JobCompleted counts a job that GitHub says is over, and the time since it
// was given to a runner.
func (s *Server) JobCompleted(j JobSample, result runner.Result, execution time.Duration) {
	labels := s.metrics.labels(j, wireResult(result))
	s.metrics.completed.WithLabelValues(labels...).Inc()
	s.metrics.execution.WithLabelValues(labels...).Observe(execution.Seconds())
}

// wireResult spells a result as GitHub's JobCompleted message does, which is
// what the runner controller puts into the label.
func wireResult(r runner.Result) string {
	if r == runner.ResultCancelled {
		return "canceled"
	}
	return word(string(r))
}

// Denied counts a job that was denied or refused, once under each reason.
func (s *Server) Denied(reasons []string) {
	for _, code := range reasons {
		s.metrics.denials.WithLabelValues(s.metrics.reasons.admit(word(code))).Inc()
	}
}

// Rebuffed counts a caller who was turned away at a gate. The cause is empty
// where it could not be found out. It is safe for concurrent use.
func (s *Server) Rebuffed(gate runner.Gate, cause runner.RebuffCause) {
	s.metrics.rebuffs.WithLabelValues(word(string(gate)), word(string(cause))).Inc()
}

// StolenJob counts a job that runs on a runner made for another job.
func (s *Server) StolenJob() { s.metrics.stolen.Inc() }

// TornDown records how long it took from a runner's end until its host was
// observed gone.
func (s *Server) TornDown(took time.Duration) { s.metrics.teardown.Observe(took.Seconds()) }

var wordPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\z`)

// other stands for label values that are not let in.
const other = "other"

func word(s string) string {
	if !wordPattern.MatchString(s) {
		return other
	}
	return s
}

// limiter lets in the first so many distinct values and calls the rest
// "other", so that no outsider can make series without end. Its methods are
// safe for concurrent use.
type limiter struct {
	max  int
	mu   sync.Mutex
	seen map[string]bool
}

func (l *limiter) admit(value string) string {
	value = strings.ToValidUTF8(value, "?")
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.seen[value]:
		return value
	case len(l.seen) >= l.max:
		return other
	case l.seen == nil:
		l.seen = map[string]bool{}
	}
	l.seen[value] = true
	return value
}
