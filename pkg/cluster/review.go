package cluster

import (
	"context"
	"fmt"
	"slices"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// The claims of a pod-bound token as TokenReview returns them.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#additional-metadata-in-pod-bound-tokens
const (
	extraPodName  = "authentication.kubernetes.io/pod-name"
	extraPodUID   = "authentication.kubernetes.io/pod-uid"
	extraNodeName = "authentication.kubernetes.io/node-name"
	extraNodeUID  = "authentication.kubernetes.io/node-uid"
)

// Review asks the cluster whose token this is. It returns
// [supervisor.ErrTokenRejected] unless the cluster vouches for a token of a
// live pod of our service account, for this audience.
func (c *Cluster) Review(ctx context.Context, token, audience string) (runner.PodIdentity, error) {
	return c.review(ctx, token, audience, c.opts.Namespace, c.opts.ServiceAccount)
}

// ReviewWitness is [Cluster.Review] for the account of the hosts' witnesses,
// which lives in a namespace of its own. Without one no token counts.
func (c *Cluster) ReviewWitness(ctx context.Context, token, audience string) (runner.PodIdentity, error) {
	if c.opts.WitnessNamespace == "" || c.opts.WitnessServiceAccount == "" {
		return runner.PodIdentity{}, fmt.Errorf("%w: hosts have no witness here", supervisor.ErrTokenRejected)
	}
	return c.review(ctx, token, audience, c.opts.WitnessNamespace, c.opts.WitnessServiceAccount)
}

func (c *Cluster) review(ctx context.Context, token, audience, namespace, account string) (runner.PodIdentity, error) {
	// With no audience the API server would check for its own.
	if token == "" || audience == "" {
		return runner.PodIdentity{}, fmt.Errorf("%w: no token or no audience", supervisor.ErrTokenRejected)
	}
	answer, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, &authv1.TokenReview{
		Spec: authv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return runner.PodIdentity{}, fmt.Errorf("review a token: %w", err)
	}
	id, problem := identity(&answer.Status, audience, namespace, account)
	if problem != "" {
		return runner.PodIdentity{}, fmt.Errorf("%w: %s", supervisor.ErrTokenRejected, problem)
	}
	id.Token = runner.DigestOf([]byte(token))
	return id, nil
}

func identity(st *authv1.TokenReviewStatus, audience, namespace, account string) (id runner.PodIdentity, problem string) {
	switch {
	case !st.Authenticated:
		return id, "not authenticated"
	// An authenticator that knows no audiences returns none: not for us.
	case !slices.Contains(st.Audiences, audience):
		return id, "another audience"
	case st.User.Username != "system:serviceaccount:"+namespace+":"+account:
		return id, "another user"
	}
	id = runner.PodIdentity{Namespace: namespace, ServiceAccount: account}
	for key, field := range map[string]*string{
		extraPodName: &id.PodName, extraPodUID: &id.PodUID, extraNodeName: &id.NodeName, extraNodeUID: &id.NodeUID,
	} {
		values := st.User.Extra[key]
		if len(values) != 1 || values[0] == "" {
			return runner.PodIdentity{}, "not bound to one pod on one node"
		}
		*field = values[0]
	}
	return id, ""
}
