package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"go.uber.org/zap"
)

// machines are hosts as EC2 knows them, whatever manages the pool that they are
// of: every driver says of an instance only what EC2 says, and takes its end
// from nobody else. It is safe for concurrent use.
type machines struct {
	ec2 *ec2.Client
	ssm *ssm.Client
	sts *sts.Client

	region     string
	parameters []string // public parameters whose images are allowed
	logger     *zap.Logger
	timeout    time.Duration // of one API call with its retries

	sessions sessions
	subnets  remembered[bool]
	images   remembered[string]
}

// newMachines takes a configuration from withTrail. It makes no request.
func newMachines(cfg aws.Config, parameters []string, logger *zap.Logger, timeout time.Duration) machines {
	return machines{
		ec2: ec2.NewFromConfig(cfg), ssm: ssm.NewFromConfig(cfg), sts: sts.NewFromConfig(cfg),
		region: cfg.Region, parameters: parameters, logger: logger, timeout: timeout,
		sessions: sessions{arns: map[string]string{}},
	}
}

// withTrail is the configuration of clients whose requests leave their trail.
func withTrail(cfg aws.Config) aws.Config {
	cfg = cfg.Copy()
	cfg.APIOptions = append(slices.Clone(cfg.APIOptions), leaveTrail)
	return cfg
}

// call bounds one API call.
func (m *machines) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.timeout, fmt.Errorf("no answer within %s", m.timeout))
}

// because adds the cause of a context that ended to the error it led to.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}
