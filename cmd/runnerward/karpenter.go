package main

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
)

// newKarpenter makes the driver of hosts that Karpenter launches.
func newKarpenter(cfg *config.Config, aws aws.Config, logger *zap.Logger) (*hosts.Karpenter, error) {
	rest, err := cluster.NewConfig(cfg.Cluster.KubeconfigFile, nil)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("cluster.kubeconfigFile: %w", err))
	}
	api, err := hosts.NewNodeClaims(rest)
	if err != nil {
		return nil, err
	}
	k, pool := cfg.Hosts.Karpenter, poolPrefix(cfg.Pool.Name)
	opt := hosts.KarpenterOptions{
		Region: cfg.Hosts.Region, Pool: pool, NodeClass: k.NodeClass, Max: k.Max, RegisterBy: k.RegisterBy,
		TerminationGracePeriod: k.TerminationGracePeriod, Rules: cfg.VetRules(), Logger: logger.Named("hosts"),
		NewName: func() string { return string(newName(pool)) },
	}
	for _, r := range k.Requirements {
		opt.Requirements = append(opt.Requirements, hosts.Requirement{Key: r.Key, Operator: r.Operator, Values: r.Values})
	}
	for _, t := range k.StartupTaints {
		opt.StartupTaints = append(opt.StartupTaints, runner.Taint(t))
	}
	return hosts.NewKarpenter(aws, api, opt)
}
