package status

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// The two APIs of GitHub that we speak, as metrics and page call them.
const (
	apiService = "scale-set"
	apiREST    = "rest"
)

// limit is one rate limit with the API that it is of.
type limit struct {
	API string
	supervisor.Rate
}

func limits(v supervisor.View) []limit {
	var out []limit
	for _, r := range v.Queue.Rates {
		out = append(out, limit{apiService, r})
	}
	for _, r := range v.GitHub.Rates {
		out = append(out, limit{apiREST, r})
	}
	return out
}

// githubGauges show how GitHub treats us and what in its hands is not ours.
type githubGauges struct {
	limit, remaining, reset, throttled, skew, heard, strays *prometheus.Desc
}

func newGitHubGauges() githubGauges {
	own := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("runnerward_"+name, help, labels, nil)
	}
	return githubGauges{
		limit:     own("github_rate_limit", "Calls that GitHub allows in its window.", "api", "resource"),
		remaining: own("github_rate_limit_remaining", "Calls that are left in GitHub's window.", "api", "resource"),
		reset:     own("github_rate_limit_reset_timestamp_seconds", "When GitHub's window ends; 0 if unknown.", "api", "resource"),
		throttled: own("github_throttled_total", "Answers by which GitHub asked for patience.", "api", "resource"),
		skew:      own("github_clock_skew_seconds", "GitHub's clock minus ours, 0 while unknown.", "api"),
		heard:     own("github_deliveries_read_timestamp_seconds", "When the App's webhook deliveries were last read; 0 if never."),
		strays:    own("strays", "Pods and registrations with our marks that no open runner explains.", "what"),
	}
}

func (g githubGauges) describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.limit, g.remaining, g.reset, g.throttled, g.skew, g.heard, g.strays} {
		ch <- d
	}
}

func (g githubGauges) collect(view supervisor.View, ch chan<- prometheus.Metric, set func(*prometheus.Desc, float64, ...string)) {
	for _, l := range limits(view) {
		if l.Limit > 0 { // GitHub told it; a 0 that nobody told would raise alarms
			set(g.limit, float64(l.Limit), l.API, l.Resource)
			set(g.remaining, float64(l.Remaining), l.API, l.Resource)
			set(g.reset, unixSeconds(l.Reset), l.API, l.Resource)
		}
		ch <- prometheus.MustNewConstMetric(g.throttled, prometheus.CounterValue, float64(l.Throttled), l.API, l.Resource)
	}
	set(g.skew, view.Queue.ClockSkew.Seconds(), apiService)
	set(g.skew, view.GitHub.ClockSkew.Seconds(), apiREST)
	set(g.heard, unixSeconds(view.HeardAt))
	strays := map[runner.StrayKind]float64{runner.StrayPod: 0, runner.StrayRegistration: 0, runner.StrayForeign: 0}
	for _, s := range view.Strays {
		strays[s.What]++
	}
	for what, n := range strays {
		set(g.strays, n, string(what))
	}
}
