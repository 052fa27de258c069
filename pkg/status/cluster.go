package status

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// clusterMetrics show how the cluster is followed and what that costs.
type clusterMetrics struct {
	watching, lists, failures, requests, dropped *prometheus.Desc
}

func newClusterMetrics() clusterMetrics {
	own := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("runnerward_cluster_"+name, help, labels, nil)
	}
	return clusterMetrics{
		watching: own("watching", "Whether this resource is watched; if not, the API server is asked each time.", "resource"),
		lists:    own("lists_total", "Times that this resource was listed to begin a watch.", "resource"),
		failures: own("watch_failures_total", "Lists and watches of this resource that failed.", "resource"),
		requests: own("requests_total", "Calls of the API server, by answer; code 0 if none came.", "verb", "resource", "code"),
		dropped:  own("events_dropped_total", "Kubernetes events that were never shown."),
	}
}

func (m clusterMetrics) describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.watching, m.lists, m.failures, m.requests, m.dropped} {
		ch <- d
	}
}

func (m clusterMetrics) collect(view supervisor.View, ch chan<- prometheus.Metric, set func(*prometheus.Desc, float64, ...string)) {
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for _, w := range view.Cluster.Watches {
		set(m.watching, b2f(w.Open), w.What)
		count(m.lists, w.Lists, w.What)
		count(m.failures, w.Failures, w.What)
	}
	for _, r := range view.Cluster.Requests {
		count(m.requests, r.Count, r.Verb, r.Resource, strconv.Itoa(r.Code))
	}
	count(m.dropped, view.Cluster.DroppedEvents)
}
