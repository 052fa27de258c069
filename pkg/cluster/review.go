package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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

// Review asks the cluster whose token this is. It returns a
// [supervisor.Rebuff] unless the cluster vouches for a token of a live pod of
// our service account, for this audience.
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
		return runner.PodIdentity{}, reject(runner.RebuffRejected, nil, "no token or no audience")
	}
	st, err := c.ask(ctx, token, audience)
	if err != nil {
		return runner.PodIdentity{}, err
	}
	// An authenticator that knows no audiences returns none: not for us.
	if !st.Authenticated || !slices.Contains(st.Audiences, audience) {
		return runner.PodIdentity{}, c.misdirected(ctx, token, audience)
	}
	id := identity(st)
	switch {
	case st.User.Username != "system:serviceaccount:"+namespace+":"+account:
		return runner.PodIdentity{}, reject(runner.RebuffOtherAccount, &id, "another user")
	case id.PodName == "" || id.PodUID == "" || id.NodeName == "" || id.NodeUID == "":
		return runner.PodIdentity{}, reject(runner.RebuffNoPod, &id, "not bound to one pod on one node")
	}
	id.Token = runner.DigestOf([]byte(token))
	return id, nil
}

func (c *Cluster) ask(ctx context.Context, token string, audiences ...string) (*authv1.TokenReviewStatus, error) {
	answer, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, &authv1.TokenReview{
		Spec: authv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("review a token: %w", err)
	}
	return &answer.Status, nil
}

func reject(cause runner.RebuffCause, id *runner.PodIdentity, why string) error {
	no := &supervisor.Rebuff{Cause: cause, Err: fmt.Errorf("%w: %s", supervisor.ErrTokenRejected, why)}
	if id != nil {
		no.Caller = new(id.Caller())
	}
	return no
}

// misdirected finds out whether a token that is no good for this audience is
// good for its own. The API server says which only in free text; so it is asked
// once more, about the audiences that the token itself names. Those are read
// without trust: only its yes makes them true. Expired, forged and orphaned
// tokens stay indistinct.
func (c *Cluster) misdirected(ctx context.Context, token, audience string) error {
	own := slices.DeleteFunc(audiencesOf(token), func(a string) bool { return a == audience })
	if len(own) == 0 {
		return reject(runner.RebuffRejected, nil, "not authenticated")
	}
	st, err := c.ask(ctx, token, own...)
	switch {
	case err != nil: // refused all the same, and nobody knows why
		return reject("", nil, "not authenticated, and not known for what else it is")
	case !st.Authenticated || !slices.ContainsFunc(st.Audiences, func(a string) bool { return slices.Contains(own, a) }):
		return reject(runner.RebuffRejected, nil, "not authenticated")
	}
	return reject(runner.RebuffOtherAudience, new(identity(st)), "another audience")
}

// maxAudiences bounds what a token may make us ask about.
const maxAudiences = 8

// audiencesOf reads the aud claim of a JWT whose signature nobody checked; none
// if there is none. RFC 7519 section 4.1.3 allows a string and a list.
func audiencesOf(token string) []string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var claims struct {
		Audience json.RawMessage `json:"aud"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return nil
	}
	var many []string
	if json.Unmarshal(claims.Audience, &many) != nil {
		var one string
		if json.Unmarshal(claims.Audience, &one) != nil {
			return nil
		}
		many = []string{one}
	}
	many = slices.DeleteFunc(many, func(a string) bool { return a == "" })
	return many[:min(len(many), maxAudiences)]
}

// identity is who the cluster says it is, as far as it says: a token that is
// bound to no pod has none, and a person no account.
func identity(st *authv1.TokenReviewStatus) (id runner.PodIdentity) {
	if rest, ok := strings.CutPrefix(st.User.Username, "system:serviceaccount:"); ok {
		id.Namespace, id.ServiceAccount, _ = strings.Cut(rest, ":")
	}
	for key, field := range map[string]*string{
		extraPodName: &id.PodName, extraPodUID: &id.PodUID, extraNodeName: &id.NodeName, extraNodeUID: &id.NodeUID,
	} {
		if values := st.User.Extra[key]; len(values) == 1 {
			*field = values[0]
		}
	}
	return id
}
