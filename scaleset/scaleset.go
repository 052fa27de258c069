package scaleset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	upstream "github.com/actions/scaleset"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// ScaleSet is one runner scale set. Its registrar methods and Health are safe
// for concurrent use; Run must be under way at most once.
type ScaleSet struct {
	cfg    Config
	log    *zap.Logger
	tap    *tap
	admin  *pool
	runner *pool

	mu     sync.Mutex
	health supervisor.QueueHealth
	skips  skips
	// drift is how the scale set differs from what it should be, nil if it
	// does not; verified and tried are when that was last known and asked.
	drift           error
	verified, tried time.Time
	// aside is since when jobs wait that this session could not take, zero for none.
	aside time.Time
	// stuck is the message whose jobs GitHub will not let us take, and how
	// often it was tried. Only the goroutine of Run touches it.
	stuck stuckMessage
}

type stuckMessage struct{ id, times int }

var (
	_ supervisor.Queue     = (*ScaleSet)(nil)
	_ supervisor.Registrar = (*ScaleSet)(nil)
)

// skips counts the jobs of messages that could not be recorded.
type skips struct {
	count int
	last  error
	at    time.Time
}

// skipShown is how long Health tells of a skipped job: long enough for whoever
// asks the next morning why a deploy never ran.
const skipShown = 24 * time.Hour

// Open is [New] and [ScaleSet.Ensure].
func Open(ctx context.Context, cfg Config, logger *zap.Logger) (*ScaleSet, error) {
	s, err := New(cfg, logger)
	if err != nil {
		return nil, err
	}
	return s, s.Ensure(ctx)
}

// New makes the adapter. It makes no request; Run looks the scale set up when
// [ScaleSet.Ensure] has not.
func New(cfg Config, logger *zap.Logger) (*ScaleSet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("scale set configuration: %w", err)
	}
	cfg.Timings = cfg.Timings.withDefaults()
	if cfg.JITClients == 0 {
		cfg.JITClients = 2
	}
	s := &ScaleSet{
		cfg:    cfg,
		tap:    newTap(cfg),
		log:    logger.With(zap.String("scale_set", cfg.Name), zap.String("group", cfg.Group)),
		health: supervisor.QueueHealth{Session: sessionNone, SessionAge: time.Now()},
	}
	s.admin = newPool(1, cfg.Timings.Call, func() (*upstream.Client, error) {
		return cfg.client(s.tap, "admin", adminTimeout, s.id())
	})
	s.runner = newPool(cfg.JITClients, cfg.Timings.Call, func() (*upstream.Client, error) {
		return cfg.client(s.tap, "registrar", adminTimeout, s.id())
	})
	s.admin.patience, s.runner.patience = s.tap.patience, s.tap.patience
	return s, nil
}

// Ensure finds the runner group, finds or makes the scale set in it, and
// compares what came back with what was asked for: GitHub Enterprise Server
// drops labels silently (actions/actions-runner-controller#4579), and a scale
// set under another name or in another group would serve jobs outside the
// boundary. An existing scale set that differs is an error; it is not changed.
// The id it finds is the one that later calls use.
func (s *ScaleSet) Ensure(ctx context.Context) error {
	group, err := s.findGroup(ctx)
	if err != nil {
		return err
	}
	if err := s.checkBoundary(ctx, group.ID); err != nil {
		return err
	}
	set, err := use(ctx, s.admin, "find scale set", func(ctx context.Context, c *upstream.Client) (*upstream.RunnerScaleSet, error) {
		return c.GetRunnerScaleSet(ctx, group.ID, s.cfg.Name)
	})
	if err != nil {
		return err
	}
	created := set == nil
	if created {
		set, err = use(ctx, s.admin, "create scale set", func(ctx context.Context, c *upstream.Client) (*upstream.RunnerScaleSet, error) {
			return c.CreateRunnerScaleSet(ctx, s.wanted(group.ID))
		})
		if err != nil {
			return err
		}
	}
	if err := s.compare(set, group.ID); err != nil {
		return fmt.Errorf("scale set %q in runner group %q: %w", s.cfg.Name, s.cfg.Group, err)
	}
	if !set.RunnerSetting.DisableUpdate {
		s.log.Warn("the scale set lets runners update themselves", zap.Int("scale_set_id", set.ID))
	}
	s.mu.Lock()
	s.health.ScaleSetID = int64(set.ID)
	s.mu.Unlock()
	s.found(nil)
	s.log.Info("serving scale set", zap.Int("scale_set_id", set.ID), zap.Bool("created", created))
	return nil
}

// findGroup looks the runner group up by its name. The client does not escape
// names, and a filter that the server did not understand finds the wrong group.
func (s *ScaleSet) findGroup(ctx context.Context) (*upstream.RunnerGroup, error) {
	const op = "find runner group"
	group, err := use(ctx, s.admin, op, func(ctx context.Context, c *upstream.Client) (*upstream.RunnerGroup, error) {
		return c.GetRunnerGroupByName(ctx, s.cfg.Group)
	})
	if err != nil {
		return nil, err
	}
	if group == nil || group.Name != s.cfg.Group || group.ID <= 0 {
		return nil, fmt.Errorf("%s: asked for %q, GitHub answered with another", op, s.cfg.Group)
	}
	return group, nil
}

func (s *ScaleSet) wanted(group int) *upstream.RunnerScaleSet {
	set := &upstream.RunnerScaleSet{
		Name:          s.cfg.Name,
		RunnerGroupID: group,
		// The runner image is pinned, so a runner must not replace itself.
		RunnerSetting: upstream.RunnerSetting{DisableUpdate: true},
	}
	for _, label := range s.cfg.labels() {
		set.Labels = append(set.Labels, upstream.Label{Type: "System", Name: label})
	}
	return set
}

// compare says how the scale set differs from the one that is wanted.
func (s *ScaleSet) compare(set *upstream.RunnerScaleSet, group int) error {
	if set == nil || set.ID <= 0 {
		return errors.New("GitHub answered without one")
	}
	var problems []error
	if set.Name != s.cfg.Name {
		problems = append(problems, errors.New("GitHub answered with one of another name"))
	}
	if set.RunnerGroupID != group || set.RunnerGroupName != "" && set.RunnerGroupName != s.cfg.Group {
		problems = append(problems, errors.New("GitHub answered with one of another runner group"))
	}
	have := make([]string, 0, len(set.Labels))
	for _, label := range set.Labels {
		have = append(have, label.Name)
	}
	// Labels compare without case, as in runs-on.
	for _, label := range s.cfg.labels() {
		if !containsFold(have, label) {
			problems = append(problems, fmt.Errorf("the label %q is missing: this GitHub may not support several labels", label))
		}
	}
	for _, label := range have {
		if !containsFold(s.cfg.labels(), label) {
			problems = append(problems, errors.New("it has a label that was not asked for"))
		}
	}
	return errors.Join(problems...)
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(t string) bool { return strings.EqualFold(s, t) })
}

// id is the scale set's id, 0 before it was found.
func (s *ScaleSet) id() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.health.ScaleSetID)
}
