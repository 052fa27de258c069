package awslive

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/kms"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/runner"
)

// dryRun makes only calls that describe, get or list, and EC2's with DryRun.
func (l *suite) dryRun(ctx context.Context) error {
	if err := l.isSandbox(ctx); err != nil {
		return err
	}
	if l.Hosts.Group != "" {
		if err := l.dryHosts(ctx); err != nil {
			return err
		}
	}
	if l.S3.Bucket != "" {
		l.learn(rowLock, "buckets fit", l.store("").Check(ctx), "%s keeps versions and has Object Lock, %s locks nothing by default", l.S3.Bucket, l.S3.ViewBucket)
	}
	if l.KMS.RecordKey != "" {
		l.openKeys(ctx)
	}
	return nil
}

// openKeys asks for the public halves, and so for usage and spec.
func (l *suite) openKeys(ctx context.Context) {
	var err error
	l.record, err = kms.OpenP256(ctx, l.config, l.KMS.RecordKey)
	l.learn(rowKMS, "record key", err, "%s is on P-256 and signs digests", l.KMS.RecordKey)
	l.checkpoint, err = kms.OpenEd25519(ctx, l.config, l.KMS.CheckpointKey)
	l.learn(rowKMS, "checkpoint key", err, "%s is an Ed25519 key (ECC_NIST_EDWARDS25519) and signs messages", l.KMS.CheckpointKey)
}

// isSandbox is asked before anything else.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
func (l *suite) isSandbox(ctx context.Context) error {
	out, err := l.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return fmt.Errorf("ask who we are: %w", err)
	}
	if got := aws.ToString(out.Account); got != l.Account {
		return refuse("these credentials are of account %s, the settings name %s", got, l.Account)
	}
	l.answer(rowCalls, "caller", Yes, "%s in the account named", aws.ToString(out.Arn))
	return nil
}

func (l *suite) dryHosts(ctx context.Context) error {
	pool, err := l.driver.Preflight(ctx)
	if l.learn(rowCalls, "preflight", err, "group %s was looked at", l.Hosts.Group) {
		for _, note := range pool.Notes {
			l.say("note    %s", note)
		}
		l.holds(rowCalls, "preflight without problems", len(pool.Problems) == 0, "%d problems: %s", len(pool.Problems), strings.Join(pool.Problems, "; "))
	}
	ids, others, err := l.membersOf(ctx)
	if err != nil {
		return err
	}
	for _, other := range others {
		l.say("note    %s and is not vetted", other)
	}
	if len(ids) == 0 {
		return refuse("group %s has no member InService, so nothing shows that it is of the sandbox", l.Hosts.Group)
	}
	if l.members, err = l.driver.Describe(ctx, ids); err != nil {
		return err
	}
	for _, id := range ids {
		if err := l.guard(id); err != nil {
			return err
		}
		l.vet(id)
	}
	l.parameters(ids)
	return l.dryEnd(ctx, ids)
}

// membersOf are the ids of the members that serve, in order, and what the others
// do.
func (l *suite) membersOf(ctx context.Context) (ids, others []string, err error) {
	out, err := l.groups.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{l.Hosts.Group}})
	if err != nil {
		return nil, nil, fmt.Errorf("look at group %s: %w", l.Hosts.Group, err)
	}
	if len(out.AutoScalingGroups) != 1 {
		return nil, nil, refuse("there is no group %s in %s", l.Hosts.Group, l.Region)
	}
	for _, m := range out.AutoScalingGroups[0].Instances {
		if m.LifecycleState != astypes.LifecycleStateInService {
			others = append(others, fmt.Sprintf("%s is %s", aws.ToString(m.InstanceId), m.LifecycleState))
			continue
		}
		ids = append(ids, aws.ToString(m.InstanceId))
	}
	slices.Sort(ids)
	return ids, others, nil
}

// guard refuses hosts that are not of the sandbox. Tags of instances count and
// not those of the group, because IAM's conditions are on the former.
func (l *suite) guard(id string) error {
	in, known := l.members[id]
	if !known {
		return refuse("EC2 does not describe %s", id)
	}
	for _, key := range slices.Sorted(maps.Keys(l.Hosts.Tags)) {
		if got, tagged := in.Tags[key]; !tagged || got != l.Hosts.Tags[key] {
			return refuse("%s does not bear the tag %s=%s of hosts.tags", id, key, l.Hosts.Tags[key])
		}
	}
	if strings.EqualFold(in.Tags["Boundary"], "production") && !l.AllowProduction {
		return refuse("%s bears the tag Boundary=%s: this is no sandbox, unless allowProduction says so", id, in.Tags["Boundary"])
	}
	return nil
}

// vet holds a member to the daemon's rules. There is no cluster here: the node
// is made up from the instance, and what is asked of nodes is left out.
func (l *suite) vet(id string) {
	in := l.members[id]
	h := l.Hosts
	checks := runner.Vet(runner.Node{ProviderID: "aws:///" + in.Zone + "/" + in.ID, InternalIP: in.PrivateIP, Ready: true}, &in, runner.VetRules{
		Provider: "aws", Accounts: []string{l.Account}, Regions: []string{l.Region}, Subnets: h.Subnets,
		ImageNames: h.ImageNames, ImageOwners: h.ImageOwners, ImageParameters: h.ImageParameters, Profiles: h.InstanceProfiles,
		InstanceTags: h.Tags, Groups: []string{h.Group}, BootModes: h.BootModes,
	})
	var failed []string
	asked := 0
	for _, c := range checks {
		if !strings.HasPrefix(c.Name, "host.") && !strings.HasPrefix(c.Name, "image.") {
			continue
		}
		asked++
		if c.Verdict != runner.Pass {
			failed = append(failed, c.Name+" "+string(c.Verdict))
		}
	}
	l.holds(rowCalls, "vet "+id, len(failed) == 0, "%d of %d checks do not pass: %s", len(failed), asked, cmp.Or(strings.Join(failed, ", "), "none"))
	l.holds(rowCalls, "image metadata of "+id, in.ImageName != "" && in.ImageOwner != "", "%s is %s, of owner %s (%s)", in.ImageID, in.ImageName, in.ImageOwner, in.ImageOwnerAlias)
	l.holds(rowCalls, "subnet of "+id, in.PrivateSubnet != nil && *in.PrivateSubnet, "routes of %s were read: private is %s", in.Subnet, threeValued(in.PrivateSubnet))
	if apart, known := attachedApart(in); !known {
		l.answer(rowAttach, "attach times of "+id, Unknown, "EC2 does not say when volumes and the primary interface were attached")
	} else {
		l.holds(rowAttach, "attach times of "+id, apart <= time.Minute, "volumes and primary interface at most %s apart", apart)
	}
	if h.Nodegroup == "" {
		l.answer(rowPolicy, "eks:nodegroup-name of "+id, Skipped, "hosts.nodegroup is empty")
	} else {
		l.holds(rowPolicy, "eks:nodegroup-name of "+id, in.Tags["eks:nodegroup-name"] == h.Nodegroup, "it is %q", in.Tags["eks:nodegroup-name"])
	}
}

func threeValued(b *bool) string {
	if b == nil {
		return "unknown"
	}
	return fmt.Sprint(*b)
}

// attachedApart is the longest time between the primary interface and a volume.
func attachedApart(in runner.Instance) (longest time.Duration, known bool) {
	known = !in.InterfaceAt.IsZero() && len(in.Attachments) > 0
	for _, a := range in.Attachments {
		known = known && !a.At.IsZero()
		longest = max(longest, a.At.Sub(in.InterfaceAt).Abs())
	}
	return longest, known
}

// parameters says what the public parameters name; the driver read them when it
// described the members.
func (l *suite) parameters(ids []string) {
	for _, name := range l.Hosts.ImageParameters {
		image, known := l.members[ids[0]].ParameterImages[name]
		l.holds(rowParameters, "parameter "+name, known, "it names %s", cmp.Or(image, "no image"))
	}
}

// dryEnd asks EC2 whether we could end a host. Auto Scaling has no dry run.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html
func (l *suite) dryEnd(ctx context.Context, ids []string) error {
	id := l.Hosts.EndInstance
	if id != "" {
		if err := l.unused(ctx, id); err != nil {
			return err
		}
	}
	id = cmp.Or(id, ids[0])
	_, err := l.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}, DryRun: aws.Bool(true)})
	switch code(err) {
	case "DryRunOperation":
		l.answer(rowPolicy, "may end "+id, Yes, "EC2 would have (DryRunOperation); whether its group may be asked to, only the second stage shows")
	case "UnauthorizedOperation":
		l.answer(rowPolicy, "may end "+id, No, "UnauthorizedOperation: the role, or a tag in its conditions, is not that of configs/iam-policy-live.json")
	default:
		l.answer(rowPolicy, "may end "+id, Unknown, "%v", err)
	}
	return nil
}

// unused refuses a host that may be in use. A daemon protects its host from
// scale-in when it claims it; the claim itself is on the node, which is not
// looked at here, unless its owner wrote it on the instance too.
func (l *suite) unused(ctx context.Context, id string) error {
	in, member := l.members[id]
	if !member {
		return refuse("hosts.endInstance %s is no member InService of group %s", id, l.Hosts.Group)
	}
	for _, tag := range []string{cluster.ClaimedBy, cluster.ClaimedTaint} {
		if _, claimed := in.Tags[tag]; claimed {
			return refuse("%s bears the tag %s: it is claimed", id, tag)
		}
	}
	out, err := l.groups.DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return fmt.Errorf("ask whether %s is in use: %w", id, err)
	}
	if len(out.AutoScalingInstances) != 1 {
		return refuse("Auto Scaling does not list %s", id)
	}
	if aws.ToBool(out.AutoScalingInstances[0].ProtectedFromScaleIn) {
		return refuse("%s is protected from scale-in, as a daemon does with a host that it claimed", id)
	}
	return nil
}

// retention is how long an object of the sandbox stays.
const retention = 24 * time.Hour

// store is the ledger's store below a folder of the prefix, with locks of a day.
func (l *suite) store(folder string) *s3store.Store {
	prefix := l.S3.Prefix
	if folder != "" {
		prefix += "/" + folder
	}
	return s3store.New(l.configS3, s3store.Options{
		Bucket: l.S3.Bucket, Prefix: prefix, ViewBucket: l.S3.ViewBucket, ViewPrefix: prefix, Owner: l.Account, PathStyle: l.S3.Endpoint != "",
		KeepUntil: func(_ string, at time.Time) time.Time { return at.Add(retention).Truncate(time.Second).UTC() },
	})
}
