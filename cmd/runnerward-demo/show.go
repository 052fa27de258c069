package main

import (
	"context"
	"io"

	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// show is the story on its stage: the world on loopback, and a daemon in it.
type show struct {
	*stage.Stage
	opts   options
	tell   *narrator
	daemon *stage.Daemon
}

func newShow(ctx context.Context, opts options, out io.Writer) (*show, error) {
	s := &show{opts: opts, tell: newNarrator(out)}
	var err error
	s.Stage, err = stage.New(ctx, stage.Options{
		Dir: opts.dir, Binary: opts.binary, OnRecord: s.tell.record, OnDispatch: s.dispatched, OnApprove: s.approves,
		World: func(o *world.Options) { o.JobLog = s.tell.job },
	})
	if err != nil {
		return nil, err
	}
	s.daemon, err = s.NewDaemon("runnerward", nil)
	return s, err
}

// startDaemon starts the production binary and waits until it can deploy.
func (s *show) startDaemon(ctx context.Context) error {
	if err := s.daemon.Start(); err != nil {
		return err
	}
	return s.daemon.Ready(ctx)
}
