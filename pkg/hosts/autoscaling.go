// Package hosts drives the clouds that own the hosts: it says what a cloud
// itself knows of an instance, ends instances, and tells an end that was
// observed from one that was only requested.
package hosts

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	// filterChunk stays below the 200 values that a filter may have:
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
	filterChunk = 100
	// memberChunk is the most that DescribeAutoScalingInstances takes.
	memberChunk = 50

	defaultCallTimeout = 30 * time.Second

	tagGroup = "aws:autoscaling:groupName"
)

// The shapes of ids. A value that is not an id must never reach a filter,
// where * and ? are wildcards: what matches nothing would pass for gone.
var (
	instanceID = regexp.MustCompile(`\Ai-[0-9a-f]{8,17}\z`)
	imageID    = regexp.MustCompile(`\Aami-[0-9a-f]{8,17}\z`)
	volumeID   = regexp.MustCompile(`\Avol-[0-9a-f]{8,17}\z`)
)

// ErrForeignGroup refuses to end an instance that belongs to an Auto Scaling
// group which is not ours.
var ErrForeignGroup = errors.New("the instance belongs to an Auto Scaling group that is not configured")

// Options configure the driver.
type Options struct {
	// Region is recorded as the region of every instance; it must be the one
	// that the clients ask.
	Region string
	// Groups are the Auto Scaling groups whose instances may be ended.
	Groups []string
	// Nodegroup is what the groups are of; nil is not asked about.
	Nodegroup *Nodegroup
	// ImageParameters are names of public parameters whose images are allowed.
	ImageParameters []string
	Logger          *zap.Logger
	// CallTimeout bounds one API call with its retries; 30 s if zero.
	CallTimeout time.Duration
}

var _ supervisor.Hosts = (*AutoScaling)(nil)

// AutoScaling drives hosts that belong to Auto Scaling groups, such as EKS
// managed node groups. It is safe for concurrent use.
type AutoScaling struct {
	machines
	groups *autoscaling.Client
	eks    *eks.Client
	opt    Options

	// activities are the scaling activities that end instances, by instance;
	// empty where none was found a moment ago.
	activities remembered[string]
	launches   launches
}

// NewAutoScaling makes the driver. It makes no request.
func NewAutoScaling(cfg aws.Config, opt Options) (*AutoScaling, error) {
	switch {
	case opt.Region == "" || opt.Region != cfg.Region:
		return nil, fmt.Errorf("hosts: region %q, but the AWS configuration asks %q", opt.Region, cfg.Region)
	case len(opt.Groups) == 0:
		return nil, errors.New("hosts: no Auto Scaling group given")
	}
	if opt.CallTimeout == 0 {
		opt.CallTimeout = defaultCallTimeout
	}
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	cfg = withTrail(cfg)
	return &AutoScaling{
		machines: newMachines(cfg, opt.ImageParameters, opt.Logger, opt.CallTimeout),
		eks:      eks.NewFromConfig(cfg),
		groups: autoscaling.NewFromConfig(cfg, func(o *autoscaling.Options) {
			// The SDK gives up at once on this fault, which passes by itself.
			o.Retryer = retry.AddWithErrorCodes(o.Retryer, (*astypes.ScalingActivityInProgressFault)(nil).ErrorCode())
		}),
		opt: opt,
	}, nil
}
