package simcluster

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// bookmarkEvery is the API server's defaultBookmarkFrequency
	// (apiserver/pkg/storage/cacher/cacher.go).
	bookmarkEvery = time.Minute
	// lastBookmark is how long before its end a watch gets another
	// (cacher/cache_watcher.go, nextBookmarkTime).
	lastBookmark = 2 * time.Second
	// watchTimeout ends a watch that names no timeoutSeconds: the least of
	// --min-request-timeout, which the real server draws anew between once and
	// twice that (endpoints/handlers/get.go, handleWatch).
	watchTimeout = 30 * time.Minute
)

// listOptions checks and defaults the options of a list or watch as the API
// server does, with its own code (endpoints/handlers/get.go, listOpts). A watch
// from no version or 0 gets the state first, as before there was
// sendInitialEvents.
func (c *Cluster) listOptions(k kind, r *request) error {
	o := &r.options
	o.Watch = r.verb == "watch"
	internalversion.SetListOptionsDefaults(o, !c.opts.NoWatchList)
	if errs := listvalidation.ValidateListOptions(o, !c.opts.NoWatchList); len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	if r.options.FieldSelector != nil {
		for _, f := range r.options.FieldSelector.Requirements() {
			// pkg/apis/core/v1/conversion.go, AddFieldLabelConversionsForNode and others.
			if !slices.Contains(k.fields(), f.Field) {
				return apierrors.NewBadRequest("field label not supported: " + f.Field)
			}
		}
	}
	if r.options.Continue != "" {
		// Lists are whole: nobody was given one.
		return apierrors.NewBadRequest("continue key is not valid")
	}
	return nil
}

// fromVersion reads the version that a list or watch asks for, 0 for none or any.
// What is no number is refused to a list, and in a watch an error that the API
// server does not know for one of the client's: a 500 without a reason (seen with
// v1.37.2).
func fromVersion(r request) (int64, error) {
	version := r.options.ResourceVersion
	if version == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(version, 10, 64)
	switch why := field.Invalid(field.NewPath("resourceVersion"), version, "must be an integer").Error(); {
	case err == nil && n >= 0:
		return n, nil
	case r.verb == "list":
		return 0, apierrors.NewBadRequest(why)
	default:
		return 0, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: why}}
	}
}

// tooLarge is the answer to a version that is yet to come. The real server
// waits 3 s for it first (apiserver/pkg/storage/errors.go,
// NewTooLargeResourceVersionError).
func tooLarge(version, current int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", version, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

// tooOld is the 410 for changes that are forgotten
// (cacher/watch_cache_history.go, GetIntervalLocked).
func tooOld(version, oldest int64) *apierrors.StatusError {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", version, oldest))
}

// openWatch is a watch.Interface on the store. Whoever opens one has to stop it.
type openWatch struct {
	c       *Cluster
	kind    kind
	request request
	wake    chan struct{} // holds at most one: something happened
	result  chan watch.Event
	stop    func()
	stopped chan struct{}

	// Under the cluster's lock.
	pos    int64 // all changes up to this version were sent, or were not for it
	broken bool
}

// ResultChan implements [watch.Interface].
func (w *openWatch) ResultChan() <-chan watch.Event { return w.result }

// Stop implements [watch.Interface].
func (w *openWatch) Stop() { w.stop() }

// serveWatch opens a watch, with its faults, and logs it.
func (c *Cluster) serveWatch(r request) (watch.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var w *openWatch
	fault := c.take(r)
	err := error(nil)
	if fault != nil {
		err = fault.Err
	} else {
		w, err = c.watch(r)
	}
	c.log(r, err)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (c *Cluster) watch(r request) (*openWatch, error) {
	k, err := c.permit(&r)
	if err != nil {
		return nil, err
	}
	from, err := fromVersion(r)
	if err != nil {
		return nil, err
	}
	w := &openWatch{c: c, kind: k, request: r, wake: make(chan struct{}, 1), result: make(chan watch.Event), stopped: make(chan struct{}), pos: from}
	w.stop = sync.OnceFunc(func() { close(w.stopped) })
	// What is wrong with a version that can be read is said in the stream, not
	// in its stead (cacher/cacher.go, Watch).
	var first []watch.Event
	initial := r.options.SendInitialEvents != nil && *r.options.SendInitialEvents
	switch {
	case initial && from > c.version:
		first, w.broken = []watch.Event{failed(tooLarge(from, c.version))}, true
	case initial:
		first, w.pos = c.state(k, r), c.version
		// The end of the state is marked for who can take bookmarks
		// (cacher/cacher.go, setInitialEventsEndBookmarkIfRequested).
		if r.options.AllowWatchBookmarks {
			first = append(first, watch.Event{Type: watch.Bookmark, Object: k.bookmark(c.version, true)})
		}
	case from == 0:
		w.pos = c.version
	case from < c.compacted:
		first, w.broken = []watch.Event{failed(tooOld(from, c.compacted))}, true
	}
	c.watches[w] = true
	go w.run(first)
	return w, nil
}

// state is what there is now, as synthetic events.
func (c *Cluster) state(k kind, r request) []watch.Event {
	var out []watch.Event
	for _, obj := range c.selected(k, r) {
		out = append(out, watch.Event{Type: watch.Added, Object: obj})
	}
	return out
}

// failed is an error in a stream that has begun.
func failed(err error) watch.Event {
	status := apierrors.NewInternalError(err).Status()
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		status = s.Status()
	}
	return watch.Event{Type: watch.Error, Object: &status}
}

// run sends until the watch is stopped, broken or over.
func (w *openWatch) run(events []watch.Event) {
	defer close(w.result)
	defer w.forget()
	timeout := watchTimeout
	if s := w.request.options.TimeoutSeconds; s != nil && *s > 0 {
		timeout = time.Duration(*s) * time.Second
	}
	deadline := time.Now().Add(timeout)
	end := time.NewTimer(timeout)
	defer end.Stop()
	bookmark := time.NewTimer(nextBookmark(deadline))
	defer bookmark.Stop()
	for {
		for _, e := range events {
			select {
			case w.result <- e:
			case <-w.stopped:
				return
			}
		}
		var over bool
		if events, over = w.next(); over {
			return
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-w.stopped:
			return
		case <-end.C:
			return
		case <-bookmark.C:
			events = w.mark()
			bookmark.Reset(nextBookmark(deadline))
		case <-w.wake:
		}
	}
}

// nextBookmark is how long to wait for it: about a minute, and once more just
// before the end (cacher/cache_watcher.go, nextBookmarkTime).
func nextBookmark(deadline time.Time) time.Duration {
	if last := time.Until(deadline) - lastBookmark; last > 0 {
		return min(last, bookmarkEvery)
	}
	return bookmarkEvery
}

func (w *openWatch) forget() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	delete(w.c.watches, w)
}

// next are the changes that this watch has not seen, in its own terms: an
// object that begins to match the selectors is added and one that ceases to is
// deleted, in its last matching form (cacher/cache_watcher.go, convertToWatchEvent).
func (w *openWatch) next() (events []watch.Event, over bool) {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.broken {
		return nil, true
	}
	if c.muted {
		return nil, false
	}
	if w.pos < c.compacted {
		// A reader that is too slow for the history loses its watch.
		w.broken = true
		return []watch.Event{failed(tooOld(w.pos, c.compacted))}, false
	}
	for _, ch := range c.since(w.pos) {
		w.pos = ch.version
		if ch.resource != w.kind.resource {
			continue
		}
		was, is := w.request.selects(w.kind.namespaced, ch.old), w.request.selects(w.kind.namespaced, ch.new)
		switch {
		case is && was:
			events = append(events, watch.Event{Type: watch.Modified, Object: ch.new.DeepCopyObject()})
		case is:
			events = append(events, watch.Event{Type: watch.Added, Object: ch.new.DeepCopyObject()})
		case was:
			gone := ch.old.DeepCopyObject()
			accessor(gone).SetResourceVersion(strconv.FormatInt(ch.version, 10))
			events = append(events, watch.Event{Type: watch.Deleted, Object: gone})
		}
	}
	return events, false
}

func (w *openWatch) mark() []watch.Event {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if !w.request.options.AllowWatchBookmarks || w.c.muted {
		return nil
	}
	return []watch.Event{{Type: watch.Bookmark, Object: w.kind.bookmark(max(w.pos, w.c.compacted), false)}}
}

// Watches is how many watches are open, of every resource.
func (c *Cluster) Watches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watches)
}

// BreakWatches ends all open watches, as an API server does that shuts down.
// With a [Fault] for the verb watch none can be opened again.
func (c *Cluster) BreakWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watches {
		w.broken = true
		signal(w.wake)
	}
}

// Compact forgets every change so far: to watch on from a version before this
// moment is 410 Gone. Open watches that are behind are over, others go on.
func (c *Cluster) Compact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compact(c.version)
}

// Mute keeps all watches open and silent, as a network does that lost the
// connection without a word; what happened meanwhile is told afterwards.
func (c *Cluster) Mute(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.muted = on
	for w := range c.watches {
		signal(w.wake)
	}
}

var _ watch.Interface = (*openWatch)(nil)
