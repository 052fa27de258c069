package awslive

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/kms"
	"github.com/runnerward/runnerward/pkg/runner"
)

// ErrRefused says that the run ended before it could touch what is not a
// sandbox.
var ErrRefused = errors.New("refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// suite asks AWS in two ways: with the daemon's packages, and with plain
// clients where the daemon makes no such call.
type suite struct {
	*Report
	Settings

	config, configS3 aws.Config
	driver           *hosts.AutoScaling
	ec2              *ec2.Client
	groups           *autoscaling.Client
	sts              *sts.Client
	keys             *awskms.Client
	s3               *s3.Client
	// members are the group's, as the daemon's driver describes them.
	members map[string]runner.Instance
	// The ledger's keys, opened by the dry run.
	record     *kms.P256
	checkpoint *kms.Ed25519
}

// Run asks what can be asked without a change. If change is [Phrase] and all of
// that is as assumed, it then changes things; if it is empty, it stops there.
// say prints a line. The report is valid beside an error, which is
// [ErrRefused] if the run stopped because this may not be the sandbox. Run takes
// about an hour when it waits for an instance to age out, else minutes.
func Run(ctx context.Context, s Settings, change string, say func(format string, args ...any)) (*Report, error) {
	report := &Report{say: say}
	if change != "" && change != Phrase {
		return report, refuse("%s must be %q, or be unset for a dry run", EnvChange, Phrase)
	}
	live, err := open(ctx, s, report)
	if err != nil {
		return report, err
	}
	defer report.close()
	say("== dry run: nothing is changed")
	if err := live.dryRun(ctx); err != nil {
		return report, err
	}
	live.plan(change == Phrase)
	if err := report.clean(); err != nil || change == "" {
		return report, err
	}
	say("== change")
	return report, errors.Join(live.change(ctx), report.clean())
}

func open(ctx context.Context, s Settings, report *Report) (*suite, error) {
	cfg, err := hosts.LoadConfig(ctx, hosts.ConfigOptions{Region: s.Region, Endpoint: s.Endpoint, CAFile: s.CAFile})
	if err != nil {
		return nil, err
	}
	ofS3, err := hosts.LoadConfig(ctx, hosts.ConfigOptions{
		Region: s.S3.Region, Endpoint: s.Endpoint, CAFile: s.CAFile, Service: &hosts.Service{Endpoint: s.S3.Endpoint, CAFile: s.CAFile},
	})
	if err != nil {
		return nil, err
	}
	live := &suite{
		Report: report, Settings: s, config: cfg, configS3: ofS3,
		ec2: ec2.NewFromConfig(cfg), groups: autoscaling.NewFromConfig(cfg), sts: sts.NewFromConfig(cfg), keys: awskms.NewFromConfig(cfg),
		s3: s3.NewFromConfig(ofS3, func(o *s3.Options) { o.UsePathStyle = s.S3.Endpoint != "" }),
	}
	if s.Hosts.Group == "" {
		return live, nil
	}
	live.driver, err = hosts.NewAutoScaling(cfg, hosts.Options{
		Region: s.Region, Groups: []string{s.Hosts.Group}, ImageParameters: s.Hosts.ImageParameters,
	})
	return live, err
}

// plan says what the second stage changes.
func (l *suite) plan(now bool) {
	when := "would, with " + EnvChange + "=" + Phrase + ","
	if now {
		when = "will"
	}
	if l.S3.Bucket != "" {
		l.say("plan    the second stage %s write about four objects to s3://%s/%s, each locked for a day (COMPLIANCE: nobody can delete them before), "+
			"a delete marker, and one object to s3://%s, which it deletes", when, l.S3.Bucket, l.S3.Prefix, l.S3.ViewBucket)
	}
	if l.KMS.RecordKey != "" {
		l.say("plan    the second stage %s sign a text with %s and %s", when, l.KMS.RecordKey, l.KMS.CheckpointKey)
	}
	switch id := l.Hosts.EndInstance; {
	case l.Hosts.Group == "":
	case id == "":
		l.say("plan    no host is ended: hosts.endInstance is empty")
	default:
		l.say("plan    the second stage %s protect %s from scale-in, END it through group %s, which launches another, and watch it", when, id, l.Hosts.Group)
	}
}

// change is the second stage. A part that fails does not keep the others from
// being measured; the host comes last, because it takes longest.
func (l *suite) change(ctx context.Context) error {
	var problems []error
	if l.S3.Bucket != "" {
		problems = append(problems, l.changeS3(ctx))
	}
	if l.KMS.RecordKey != "" {
		l.signs(ctx)
	}
	if l.Hosts.EndInstance != "" {
		problems = append(problems, l.endHost(ctx))
	}
	return errors.Join(problems...)
}

// code is the service's name of an error, empty if it did not answer with one.
func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}
