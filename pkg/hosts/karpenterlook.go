package hosts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// reviews is https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
var reviews = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}

// nodeClass is what we read of an EC2NodeClass (karpenter-provider-aws v1.15.1,
// pkg/apis/v1/ec2nodeclass.go). What the API server defaults is never empty.
type nodeClass struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		AMIFamily        string `json:"amiFamily"`
		AMISelectorTerms []struct {
			Alias string `json:"alias"`
		} `json:"amiSelectorTerms"`
		AssociatePublicIPAddress *bool             `json:"associatePublicIPAddress"`
		Tags                     map[string]string `json:"tags"`
		MetadataOptions          struct {
			HTTPTokens string `json:"httpTokens"`
			HopLimit   int64  `json:"httpPutResponseHopLimit"`
		} `json:"metadataOptions"`
	} `json:"spec"`
	Status struct {
		InstanceProfile string `json:"instanceProfile"`
		Subnets         []struct {
			ID string `json:"id"`
		} `json:"subnets"`
		AMIs []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"amis"`
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// Preflight looks at what would keep hosts from coming and going, and for what
// would have every host fail its checks: Karpenter's resources, our rights, and
// the node class. An error means that something is not known.
func (k *Karpenter) Preflight(ctx context.Context) (supervisor.HostsPool, error) {
	pool := supervisor.HostsPool{}
	claims, err := k.claims(ctx)
	if look, known := k.refusal(err, "list", nodeClaims); known {
		look.add(&pool, "Karpenter")
		return pool, nil
	}
	if err != nil {
		return pool, fmt.Errorf("preflight: %w", err)
	}
	k.identify(ctx, "")
	view := supervisor.GroupView{Name: "NodeClaims of " + k.opt.Pool, Max: k.opt.Max}
	for _, c := range claims {
		if c.DeletionTimestamp == nil {
			view.Desired++
		}
		if id := c.instance(); c.state() == runner.NodeClaimReady && id != "" {
			view.InService = append(view.InService, id)
		}
	}
	pool.Groups = []supervisor.GroupView{view}
	if err := k.attempts.trouble(); err != nil {
		pool.Notes = append(pool.Notes, err.Error())
	}
	k.inspectEnding(claims).add(&pool, "Karpenter")
	class, err := k.inspectNodeClass(ctx)
	if err != nil {
		return supervisor.HostsPool{}, fmt.Errorf("preflight of %s %s: %w", kindNodeClass, k.opt.NodeClass, err)
	}
	class.add(&pool, kindNodeClass+" "+k.opt.NodeClass)
	rights, err := k.inspectRights(ctx)
	if err != nil {
		return supervisor.HostsPool{}, fmt.Errorf("preflight: %w", err)
	}
	rights.add(&pool, "Karpenter")
	return pool, nil
}

// refusal is what is to be said of an error that says no. Any other error leaves
// it unknown.
func (k *Karpenter) refusal(err error, verb string, of schema.GroupVersionResource) (look inspection, known bool) {
	switch {
	case apierrors.IsNotFound(err):
		look.refuse("is not installed: the cluster serves no %s.%s %s", of.Resource, of.Group, of.Version)
	case apierrors.IsForbidden(err):
		look.refuse("cannot be used: the daemon's account may not %s %s.%s: install the chart with hosts.driver karpenter", verb, of.Resource, of.Group)
	default:
		return look, false
	}
	return look, true
}

// overlong is how long after its deletion a NodeClaim is worth a note.
const overlong = 10 * time.Minute

// inspectEnding names NodeClaims that do not come to their end: Karpenter is
// down, or somebody's pod keeps the node from being drained.
func (k *Karpenter) inspectEnding(claims []nodeClaim) inspection {
	var out inspection
	for _, c := range claims {
		if c.DeletionTimestamp == nil {
			continue
		}
		if since := time.Since(c.DeletionTimestamp.Time); since > overlong {
			out.note("has not ended NodeClaim %s (%s) for %s: is it running, and which pod of node %q does it wait for?",
				c.Name, c.instance(), since.Round(time.Minute), c.Status.NodeName)
		}
	}
	return out
}

// inspectRights asks the API server whether it would take a NodeClaim as we make
// them, and whether we may end and protect one.
func (k *Karpenter) inspectRights(ctx context.Context) (inspection, error) {
	var out inspection
	err := k.create(ctx, k.wanted(), true)
	switch look, known := k.refusal(err, "create", nodeClaims); {
	case known:
		out = look
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		out.refuse("takes no NodeClaim as hosts.karpenter says it: %.500v", err)
	case err != nil:
		return out, fmt.Errorf("try to create a NodeClaim: %w", err)
	}
	for _, verb := range []string{"delete", "patch"} {
		may, err := k.may(ctx, verb)
		if err != nil {
			return out, err
		}
		if !may {
			look, _ := k.refusal(apierrors.NewForbidden(nodeClaims.GroupResource(), "", errors.New(verb)), verb, nodeClaims)
			out.problems = append(out.problems, look.problems...)
		}
	}
	return out, nil
}

func (k *Karpenter) may(ctx context.Context, verb string) (bool, error) {
	ctx, cancel := k.call(ctx)
	defer cancel()
	review := map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": map[string]any{
		"resourceAttributes": map[string]any{"group": nodeClaims.Group, "version": nodeClaims.Version, "resource": nodeClaims.Resource, "verb": verb},
	}}
	got, err := k.api.Resource(reviews).Create(ctx, &unstructured.Unstructured{Object: review}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask whether NodeClaims may be changed: %w", because(ctx, err))
	}
	allowed, _, err := unstructured.NestedBool(got.Object, "status", "allowed")
	if err != nil {
		return false, fmt.Errorf("ask whether NodeClaims may be changed: %w", err)
	}
	return allowed, nil
}

// inspectNodeClass compares the class with what hosts are vetted by.
func (k *Karpenter) inspectNodeClass(ctx context.Context) (inspection, error) {
	callCtx, cancel := k.call(ctx)
	defer cancel()
	got, err := k.api.Resource(nodeClasses).Get(callCtx, k.opt.NodeClass, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		var out inspection
		out.refuse("does not exist: make it, or correct hosts.karpenter.nodeClass")
		return out, nil
	case apierrors.IsForbidden(err):
		out, _ := k.refusal(err, "get", nodeClasses)
		return out, nil
	case err != nil:
		return inspection{}, because(callCtx, err)
	}
	var class nodeClass
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(got.Object, &class); err != nil {
		return inspection{}, fmt.Errorf("read it: %w", err)
	}
	return k.compare(&class), nil
}

func (k *Karpenter) compare(class *nodeClass) inspection {
	var out inspection
	ready := condition(class.Status.Conditions, "Ready")
	switch {
	case class.DeletionTimestamp != nil:
		out.refuse("is being deleted: name another one")
	case ready.Status == metav1.ConditionFalse:
		out.refuse("is not ready (%.100s: %.300s): Karpenter deletes every NodeClaim of it", ready.Reason, ready.Message)
	case ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != class.Generation:
		out.refuse("is not known to be ready: Karpenter has not looked at it as it is now")
	}
	if alias := class.alias(); class.Spec.AMIFamily != "Bottlerocket" && !strings.HasPrefix(alias, "bottlerocket@") {
		out.refuse("launches %q: set amiFamily: Bottlerocket", class.Spec.AMIFamily)
	} else if strings.HasSuffix(alias, "@latest") {
		out.note("launches what is latest: a new release may be one that hosts.image* does not allow")
	}
	if got := class.Spec.MetadataOptions.HTTPTokens; got != "required" {
		out.refuse("allows IMDSv1 (metadataOptions.httpTokens %q): set it to required", got)
	}
	if got := class.Spec.MetadataOptions.HopLimit; got != 1 {
		out.refuse("lets pods reach the instance metadata (metadataOptions.httpPutResponseHopLimit %d): set it to 1", got)
	}
	if p := class.Spec.AssociatePublicIPAddress; p != nil && *p {
		out.refuse("gives hosts a public address: set associatePublicIPAddress: false")
	}
	for _, key := range slices.Sorted(maps.Keys(k.opt.Rules.InstanceTags)) {
		if want := k.opt.Rules.InstanceTags[key]; class.Spec.Tags[key] != want {
			out.refuse("does not tag its instances %s=%s: add it to spec.tags, or correct hosts.tags", key, want)
		}
	}
	k.compareStatus(&out, class)
	return out
}

// alias is the family and version by which images are chosen, empty if they are
// not chosen so.
func (c *nodeClass) alias() string {
	for _, term := range c.Spec.AMISelectorTerms {
		if term.Alias != "" {
			return term.Alias
		}
	}
	return ""
}

// compareStatus looks at what Karpenter found for the class. Images named by
// public parameters are left to vetting.
func (k *Karpenter) compareStatus(out *inspection, class *nodeClass) {
	for _, subnet := range class.Status.Subnets {
		if !slices.Contains(k.opt.Rules.Subnets, subnet.ID) {
			out.refuse("launches in %s: narrow its subnetSelectorTerms, or add it to hosts.subnets", subnet.ID)
		}
	}
	profile := class.Status.InstanceProfile
	if profile != "" && !slices.ContainsFunc(k.opt.Rules.Profiles, func(arn string) bool { return strings.HasSuffix(arn, "/"+profile) }) {
		out.refuse("launches with the instance profile %s: add its ARN to hosts.instanceProfiles, or set spec.instanceProfile", profile)
	}
	if len(k.opt.Rules.ImageParameters) > 0 {
		return
	}
	for _, ami := range class.Status.AMIs {
		named := slices.ContainsFunc(k.opt.Rules.ImageNames, func(prefix string) bool { return strings.HasPrefix(ami.Name, prefix) })
		if !named && !slices.Contains(k.opt.Rules.ImageIDs, ami.ID) {
			out.refuse("launches image %s (%s): correct its amiSelectorTerms, or add it to hosts.imageIds", ami.ID, ami.Name)
		}
	}
}
