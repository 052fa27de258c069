package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/lease"
)

// work is what only one daemon may do at a time. It closes the listener.
type work func(ctx context.Context, admission net.Listener) error

// newElection returns what lets work be done by the one daemon that leads: at
// once where nobody is elected. A daemon that stands by turns agents away: they
// are sent to it as well, and try the next. What it returns owns the listener
// once it is called.
func newElection(cfg *config.Config, logger *zap.Logger, front *front, admission net.Listener) (func(context.Context, work) error, error) {
	opts := cfg.Supervisor.LeaderElection
	if !opts.Enabled {
		return func(ctx context.Context, do work) error { return do(ctx, admission) }, nil
	}
	for _, warning := range cfg.Warnings() {
		logger.Warn("configuration", zap.String("warning", warning))
	}
	client, err := cluster.NewClient(cfg.Cluster.KubeconfigFile, nil)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("cluster.kubeconfigFile: %w", err))
	}
	elector, err := lease.New(client.CoordinationV1(), lease.Options{
		Namespace: cfg.Cluster.Namespace, Name: opts.LeaseName, Identity: identity(),
		Duration: opts.LeaseDuration, RenewDeadline: opts.RenewDeadline, RetryPeriod: opts.RetryPeriod,
	}, logger.Named("lease"))
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("supervisor.leaderElection: %w", err))
	}
	front.election, front.patience = elector.State, opts.LeaseDuration
	return func(ctx context.Context, do work) error {
		door := shut(admission)
		led := false
		err := elector.Run(ctx, func(ctx context.Context) error {
			led = true
			if err := door.open(); err != nil {
				return errors.Join(fmt.Errorf("admission.listen: %w", err), admission.Close())
			}
			return do(ctx, admission)
		})
		if led {
			return err
		}
		return errors.Join(err, door.open(), admission.Close())
	}, nil
}

// identity is the pod's name, by which people find it, and what tells this
// process from one of the same name.
func identity() string { return hostname() + "_" + strings.ToLower(rand.Text()[:10]) }
