package simcluster

import (
	"crypto/ecdsa"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// claims are those of a bound service-account token.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#schema-for-service-account-private-claims
type claims struct {
	Audience  []string `json:"aud"`
	Expiry    int64    `json:"exp"`
	IssuedAt  int64    `json:"iat"`
	NotBefore int64    `json:"nbf"`
	Issuer    string   `json:"iss"`
	ID        string   `json:"jti"`
	Subject   string   `json:"sub"`
	Private   private  `json:"kubernetes.io"`
}

type private struct {
	Namespace      string `json:"namespace"`
	Node           *ref   `json:"node,omitempty"`
	Pod            *ref   `json:"pod,omitempty"`
	ServiceAccount ref    `json:"serviceaccount"`
}

type ref struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// header is fixed: the cluster has one key.
const header = `{"alg":"ES256","kid":"sim","typ":"JWT"}`

// Mint makes a token for a live, bound pod as its kubelet requests it:
// audience and lifetime are the projected volume's. Errors say that the pod or
// node is gone.
func (c *Cluster) Mint(pod *corev1.Pod, audience string, lifetime time.Duration) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, ok := c.objects["pods"][key(pod.Namespace, pod.Name)]
	if !ok || obj.(*corev1.Pod).UID != pod.UID {
		return "", fmt.Errorf("mint a token: pod %s is gone", pod.Name)
	}
	node, ok := c.objects["nodes"][key("", pod.Spec.NodeName)]
	if !ok {
		return "", fmt.Errorf("mint a token: node %s is gone", pod.Spec.NodeName)
	}
	account := pod.Spec.ServiceAccountName
	now := time.Now()
	return c.sign(claims{
		Audience: []string{audience}, Issuer: c.opts.Issuer, ID: string(c.newUID()),
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expiry: now.Add(lifetime).Unix(),
		Subject: "system:serviceaccount:" + pod.Namespace + ":" + account,
		Private: private{
			Namespace: pod.Namespace, ServiceAccount: ref{account, accountUID(pod.Namespace, account)},
			Pod: &ref{pod.Name, pod.UID}, Node: &ref{nameOf(node), accessor(node).GetUID()},
		},
	})
}

// MintUnbound makes a token of any service account of any namespace that is
// bound to no pod, as kubectl create token does.
func (c *Cluster) MintUnbound(namespace, account, audience string, lifetime time.Duration) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return c.sign(claims{
		Audience: []string{audience}, Issuer: c.opts.Issuer, ID: string(c.newUID()),
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expiry: now.Add(lifetime).Unix(),
		Subject: "system:serviceaccount:" + namespace + ":" + account,
		Private: private{Namespace: namespace, ServiceAccount: ref{account, accountUID(namespace, account)}},
	})
}

func accountUID(namespace, account string) types.UID {
	sum := sha256.Sum256([]byte(key(namespace, account)))
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

// sign is JWS compact serialization with ES256 (RFC 7518 section 3.4).
func (c *Cluster) sign(cl claims) (string, error) {
	body, err := json.Marshal(cl)
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString(body)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(cryptorand.Reader, c.key, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64.EncodeToString(sig), nil
}

var errToken = errors.New("invalid bearer token")

func (c *Cluster) verify(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, errToken
	}
	b64 := base64.RawURLEncoding
	head, errHead := b64.DecodeString(parts[0])
	body, errBody := b64.DecodeString(parts[1])
	sig, errSig := b64.DecodeString(parts[2])
	if errors.Join(errHead, errBody, errSig) != nil || string(head) != header || len(sig) != 64 {
		return claims{}, errToken
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(&c.key.PublicKey, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return claims{}, errToken
	}
	var cl claims
	if err := json.Unmarshal(body, &cl); err != nil {
		return claims{}, errToken
	}
	return cl, nil
}

// deletedLeeway is how long a token outlives its pod's deletion timestamp
// (pkg/serviceaccount/claims.go, jwt.DefaultLeeway).
const deletedLeeway = time.Minute

// valid checks what pkg/serviceaccount/claims.go checks: times, and that the
// account and the bound pod still exist with the same UID. The node of a
// pod-bound token is told, not checked.
func (c *Cluster) valid(cl claims, now time.Time) error {
	if now.After(time.Unix(cl.Expiry, 0)) {
		return errors.New("service account token has expired")
	}
	p := cl.Private
	if p.Namespace == c.opts.Namespace && !slices.Contains(c.opts.ServiceAccounts, p.ServiceAccount.Name) {
		return errors.New("service account has been deleted")
	}
	if p.Pod == nil {
		return nil
	}
	obj, ok := c.objects["pods"][key(p.Namespace, p.Pod.Name)]
	if !ok || accessor(obj).GetUID() != p.Pod.UID {
		return errors.New("service account token has been invalidated")
	}
	if at := accessor(obj).GetDeletionTimestamp(); at != nil && at.Time.Before(now.Add(-deletedLeeway)) {
		return errors.New("service account token has been invalidated")
	}
	return nil
}

// review answers a TokenReview. Like the real one it says 201 for any token;
// the verdict is in the status. The caller holds the lock.
func (c *Cluster) review(in *authv1.TokenReview) runtime.Object {
	out := in.DeepCopy()
	out.Status = authv1.TokenReviewStatus{}
	cl, err := c.verify(in.Spec.Token)
	if err == nil {
		err = c.valid(cl, time.Now())
	}
	wanted := in.Spec.Audiences
	if len(wanted) == 0 {
		wanted = []string{c.opts.Issuer}
	}
	var shared []string
	for _, aud := range wanted {
		if slices.Contains(cl.Audience, aud) {
			shared = append(shared, aud)
		}
	}
	if err == nil && len(shared) == 0 {
		err = fmt.Errorf("token audiences %q is invalid for the target audiences %q", cl.Audience, wanted)
	}
	if err != nil {
		out.Status.Error = "[invalid bearer token, " + err.Error() + "]"
		return out
	}
	p := cl.Private
	extra := map[string]authv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"JTI=" + cl.ID}}
	if p.Pod != nil {
		extra["authentication.kubernetes.io/pod-name"] = authv1.ExtraValue{p.Pod.Name}
		extra["authentication.kubernetes.io/pod-uid"] = authv1.ExtraValue{string(p.Pod.UID)}
	}
	if p.Node != nil {
		extra["authentication.kubernetes.io/node-name"] = authv1.ExtraValue{p.Node.Name}
		extra["authentication.kubernetes.io/node-uid"] = authv1.ExtraValue{string(p.Node.UID)}
	}
	out.Status = authv1.TokenReviewStatus{Authenticated: true, Audiences: shared, User: authv1.UserInfo{
		Username: cl.Subject, UID: string(p.ServiceAccount.UID), Extra: extra,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + p.Namespace, "system:authenticated"},
	}}
	out.ObjectMeta = metav1.ObjectMeta{}
	return out
}
