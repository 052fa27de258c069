package cluster

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
)

const (
	// seriesEvery is how often the counts of repeated events are written.
	seriesEvery = time.Minute
	// seriesEnds is how long after its last time an event that comes again is a
	// new one, as with client-go's recorder (tools/events, finishTime).
	seriesEnds = 6 * time.Minute
	// maxSeries bounds how many events are remembered for that.
	maxSeries = 512
)

// seriesKey is what makes two events the same: all but the time.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
type seriesKey struct {
	regarding    corev1.ObjectReference
	reason, note string
}

func keyOf(n notice, ref corev1.ObjectReference) seriesKey { return seriesKey{ref, n.reason, n.note} }

// series are the events that were sent lately. It belongs to one goroutine.
type series map[seriesKey]*toldEvent

type toldEvent struct {
	event *eventsv1.Event
	count int32
	last  time.Time
	owed  bool // the count is higher than what was written
}

// first remembers an event that was made. When there is no more room the
// next of its kind is made too.
func (s series) first(key seriesKey, made *eventsv1.Event, at time.Time) {
	if len(s) < maxSeries {
		s[key] = &toldEvent{event: made, count: 1, last: at}
	}
}

// again says that the event is there, and counts.
func (s series) again(key seriesKey, at time.Time) bool {
	e := s[key]
	if e == nil || at.Sub(e.last) >= seriesEnds {
		return false
	}
	e.count, e.last, e.owed = e.count+1, at, true
	return true
}

// due are the events whose count is to be written. What has ended and is
// written is forgotten.
func (s series) due(now time.Time) []*toldEvent {
	var out []*toldEvent
	for key, e := range s {
		switch {
		case e.owed:
			out = append(out, e)
		case now.Sub(e.last) >= seriesEnds:
			delete(s, key)
		}
	}
	return out
}

// written says that the count was written, or could not be.
func (s series) written(e *toldEvent) { e.owed = false }

// forget lets the next of its kind be made anew.
func (s series) forget(e *toldEvent) {
	maps.DeleteFunc(s, func(_ seriesKey, told *toldEvent) bool { return told == e })
}
