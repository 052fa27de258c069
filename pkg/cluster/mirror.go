package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// silence is how long a watch may say nothing before it counts as lost. The
// API server sends a bookmark about every minute to who asks for them.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks
const silence = 3 * time.Minute

// settling is how long a watch that was just opened is not believed yet. What
// happened while none was open comes at once then, or the word that it is
// forgotten (410), and nothing in the stream says that this was all.
const settling = 2 * time.Second

// doubtful is for how long a copy may not be believed before that is a problem,
// although its watch is open. It never takes more than a moment to catch up.
const doubtful = time.Minute

// mirror is our copy of one kind of object, kept by a shared informer. It knows
// when it may be believed: client-go's own error handler is not told when a
// watch that was open ends, nor of refused connections, which are tried again
// in silence (tools/cache/reflector.go, watch). So every list and every event
// passes through here first. It is safe for concurrent use.
type mirror struct {
	what     string // nodes, pods
	informer cache.SharedIndexInformer
	logger   *zap.Logger
	listAll  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watchAll func(context.Context, metav1.ListOptions) (watch.Interface, error)

	mu     sync.Mutex
	stream *stream   // the open watch, nil for none
	heard  time.Time // when it last said something
	since  time.Time // when it was opened, or lost
	// owed is the resource version that the copy must have reached: of what a
	// list or watch brought, and of what we wrote.
	owed            string
	written         int       // how often something that we wrote was owed
	doubted         time.Time // since when the copy is not believed, zero while it is
	warned          bool      // that it is not, though its watch is open
	problem         string    // why the last list or watch failed
	lists, failures int64
}

func newMirror(what string, example runtime.Object, logger *zap.Logger, strip cache.TransformFunc, handler cache.ResourceEventHandler) (*mirror, error) {
	m := &mirror{what: what, logger: logger.With(zap.String("resource", what)), since: time.Now()}
	m.informer = cache.NewSharedIndexInformerWithOptions(lister{m}, example, cache.SharedIndexInformerOptions{ObjectDescription: what})
	if err := m.informer.SetTransform(strip); err != nil {
		return nil, fmt.Errorf("watch %s: %w", what, err)
	}
	// What goes wrong is noted by the mirror, in the daemon's own log.
	if err := m.informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}); err != nil {
		return nil, fmt.Errorf("watch %s: %w", what, err)
	}
	if _, err := m.informer.AddEventHandlerWithOptions(handler, cache.HandlerOptions{Logger: new(logr.Discard())}); err != nil {
		return nil, fmt.Errorf("watch %s: %w", what, err)
	}
	return m, nil
}

// run keeps the copy until the context ends. It runs once.
func (m *mirror) run(ctx context.Context) {
	m.informer.RunWithContext(logr.NewContext(ctx, logr.Discard()))
}

// fresh says why the copy may not be believed now, nil when it may: it was
// listed, its watch is open for a moment and not silent, and it has caught up
// with all that the watch brought and that we wrote ourselves.
func (m *mirror) fresh() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.freshLocked()
	switch {
	case err == nil:
		if m.warned {
			m.logger.Info("the copy is believed again")
		}
		m.doubted, m.warned = time.Time{}, false
	case m.doubted.IsZero():
		m.doubted = time.Now()
	case m.stream != nil && !m.warned && m.doubtedForLong():
		m.warned = true
		m.logger.Warn("the copy is not believed; the cluster is asked each time", zap.Error(err))
	}
	return err
}

func (m *mirror) doubtedForLong() bool {
	return !m.doubted.IsZero() && time.Since(m.doubted) >= doubtful
}

func (m *mirror) freshLocked() error {
	switch {
	case !m.informer.HasSynced():
		return fmt.Errorf("%s were not listed yet", m.what)
	case m.stream == nil:
		return fmt.Errorf("the watch of %s is not open since %s", m.what, m.since.UTC().Format(time.RFC3339))
	case time.Since(m.since) < settling:
		return fmt.Errorf("the watch of %s has only just begun", m.what)
	case time.Since(m.heard) > silence:
		return fmt.Errorf("the watch of %s is silent since %s", m.what, m.heard.UTC().Format(time.RFC3339))
	}
	// The version is read before the objects are: what is read is as new or newer.
	have := m.informer.GetStore().LastStoreSyncResourceVersion()
	if order, err := resourceversion.CompareResourceVersion(have, m.owed); err != nil || order < 0 {
		return fmt.Errorf("the copy of %s is at version %q and not yet at %q", m.what, have, m.owed)
	}
	return nil
}

// owe makes reads go around the copy until it has reached this version.
func (m *mirror) owe(version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written++
	m.oweLocked(version)
}

func (m *mirror) oweLocked(version string) {
	// Versions of one resource are ordered as integers.
	// https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
	if order, err := resourceversion.CompareResourceVersion(version, m.owed); err == nil && order < 0 {
		return
	}
	m.owed = version
}

func (m *mirror) health() supervisor.WatchHealth {
	err := m.fresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	h := supervisor.WatchHealth{
		What: m.what, Open: m.stream != nil && time.Since(m.heard) <= silence, Since: m.since, Lists: m.lists, Failures: m.failures,
	}
	if h.Open && m.doubtedForLong() {
		h.Open, h.Since = false, m.doubted
	}
	if !h.Open && err != nil {
		if h.Problem = err.Error(); m.problem != "" {
			h.Problem += ": " + m.problem
		}
	}
	return h
}

// failed notes that a list or watch did not go well.
func (m *mirror) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures++
	if m.problem == "" {
		m.logger.Warn("cannot follow the cluster; it is asked each time", zap.Error(err))
	}
	m.problem = err.Error()
}

func (m *mirror) list(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	// Version 0 would let an API server answer from a cache of any age, and an
	// unset one is what its store holds now. The pool is small.
	if opts.ResourceVersion == "0" {
		opts.ResourceVersion = ""
	}
	m.mu.Lock()
	written := m.written
	m.mu.Unlock()
	list, err := m.listAll(ctx, opts)
	if err != nil {
		if ctx.Err() == nil {
			m.failed(fmt.Errorf("list %s: %w", m.what, err))
		}
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if opts.Continue == "" {
		m.lists++
	}
	if acc, err := meta.ListAccessor(list); err == nil {
		// What the store holds now is all that there is, and versions begin lower
		// when it was restored from a copy.
		if opts.ResourceVersion == "" && m.written == written {
			m.owed = ""
		}
		m.oweLocked(acc.GetResourceVersion())
	}
	return list, nil
}

func (m *mirror) watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	inner, err := m.watchAll(ctx, opts)
	if err != nil {
		if ctx.Err() == nil {
			m.failed(fmt.Errorf("watch %s: %w", m.what, err))
		}
		return nil, err
	}
	s := &stream{mirror: m, inner: inner, out: make(chan watch.Event), stopped: make(chan struct{})}
	m.mu.Lock()
	now := time.Now()
	m.stream, m.heard, m.since = s, now, now
	m.oweLocked(opts.ResourceVersion)
	m.mu.Unlock()
	go s.pass()
	return s, nil
}

// heardOf notes an event before the copy has it.
func (m *mirror) heardOf(e watch.Event) {
	if e.Type == watch.Error {
		m.failed(fmt.Errorf("watch %s: %w", m.what, apierrors.FromObject(e.Object)))
		return
	}
	acc, err := meta.Accessor(e.Object)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = time.Now()
	m.oweLocked(acc.GetResourceVersion())
	if m.problem != "" {
		m.problem = ""
		m.logger.Info("the cluster is followed again")
	}
}

func (m *mirror) ended(s *stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stream == s {
		m.stream, m.since = nil, time.Now()
	}
}

// stream is a watch that its mirror hears first.
type stream struct {
	mirror  *mirror
	inner   watch.Interface
	out     chan watch.Event
	once    sync.Once
	stopped chan struct{}
}

// ResultChan implements [watch.Interface].
func (s *stream) ResultChan() <-chan watch.Event { return s.out }

// Stop implements [watch.Interface].
func (s *stream) Stop() {
	s.once.Do(func() {
		close(s.stopped)
		s.inner.Stop()
	})
}

func (s *stream) pass() {
	defer close(s.out)
	defer s.mirror.ended(s)
	for e := range s.inner.ResultChan() {
		s.mirror.heardOf(e)
		select {
		case s.out <- e:
		case <-s.stopped:
			return
		}
	}
}

// lister is the mirror as its informer's source. It lists and then watches: the
// one stream for both that client-go prefers waits for up to a minute without
// looking at its context when no API server is there
// (tools/cache/reflector.go, watchList), and the daemon's end would wait with it.
type lister struct{ *mirror }

var (
	_ cache.ListerWatcher            = lister{}
	_ cache.ListerWatcherWithContext = lister{}
)

func (lister) IsWatchListSemanticsUnSupported() bool { return true }

func (l lister) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	return l.list(ctx, opts)
}

func (l lister) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	return l.watch(ctx, opts)
}

// List implements [cache.ListerWatcher]; the reflector calls ListWithContext.
func (l lister) List(opts metav1.ListOptions) (runtime.Object, error) {
	return l.list(context.Background(), opts)
}

// Watch implements [cache.ListerWatcher]; the reflector calls WatchWithContext.
func (l lister) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return l.watch(context.Background(), opts)
}
