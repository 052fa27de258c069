package hosts_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simworld "github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const clusterToken = "a-token-of-the-cluster"

// karpenter is a world whose hosts Karpenter launches, with the driver that asks
// it, and a client of somebody else.
type karpenter struct {
	*hosts.Karpenter
	t       *testing.T
	world   *simworld.World
	claims  dynamic.ResourceInterface
	classes dynamic.ResourceInterface
}

// gitHubKey is made once: no test here looks at what it signs.
var gitHubKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// onKarpenter runs f in a bubble with such a world.
func onKarpenter(t *testing.T, change func(*hosts.KarpenterOptions), f func(k *karpenter)) {
	t.Helper()
	key, err := gitHubKey()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w, err := simworld.New(simworld.Options{
			Dir: t.TempDir(), GitHubURL: "http://github.sim", ClusterToken: clusterToken, Karpenter: true, SigningKey: key,
			Boot: 30 * time.Second, ShuttingDown: 40 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = w.Run(ctx)
		}()
		defer func() {
			cancel()
			<-ended
			w.GitHub.Close()
		}()
		k := &karpenter{t: t, world: w}
		k.connect(w.Karpenter.Handler(), change)
		f(k)
	})
}

// connect makes the driver and the client of an API.
func (k *karpenter) connect(api http.Handler, change func(*hosts.KarpenterOptions)) {
	k.t.Helper()
	cfg := &rest.Config{Host: "https://cluster.example", BearerToken: clusterToken, QPS: -1, Transport: inProcess{api}}
	client, err := hosts.NewNodeClaims(cfg)
	if err != nil {
		k.t.Fatal(err)
	}
	made := 0
	opt := hosts.KarpenterOptions{
		Region: simworld.Region, Pool: "hipaa-prod", NodeClass: simworld.NodeClass, Max: 3, RegisterBy: 5 * time.Minute, TerminationGracePeriod: 2 * time.Hour,
		NewName: func() string { made++; return fmt.Sprintf("hipaa-prod-%d", made) }, CallTimeout: 10 * time.Second,
		Requirements: []hosts.Requirement{{Key: "kubernetes.io/arch", Operator: "In", Values: []string{"amd64"}}},
		Rules: runner.VetRules{
			Provider: "aws", NodeClaims: true, Labels: map[string]string{simworld.PoolLabelKey: simworld.PoolLabelValue, "kubernetes.io/os": "linux"},
			Taint:   runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"},
			Subnets: []string{simworld.Subnet}, Profiles: []string{simworld.Profile}, ImageNames: []string{"bottlerocket-aws-k8s-"},
			InstanceTags: map[string]string{"Compliance": "HIPAA"},
		},
	}
	if change != nil {
		change(&opt)
	}
	k.Karpenter, err = hosts.NewKarpenter(aws.Config{
		Region: simworld.Region, Credentials: credentials.NewStaticCredentialsProvider(simworld.AccessKeyID, simworld.SecretKey, ""),
		HTTPClient: &http.Client{Transport: inProcess{k.world.AWS}}, BaseEndpoint: aws.String("https://aws.example"),
	}, client, opt)
	if err != nil {
		k.t.Fatal(err)
	}
	k.claims = client.Resource(schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"})
	k.classes = client.Resource(schema.GroupVersionResource{Group: "karpenter.k8s.aws", Version: "v1", Resource: "ec2nodeclasses"})
}

func (k *karpenter) list() []unstructured.Unstructured {
	k.t.Helper()
	list, err := k.claims.List(k.t.Context(), metav1.ListOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	return list.Items
}

// host starts one and waits until it could serve.
func (k *karpenter) host() (instance simaws.Instance, claim unstructured.Unstructured) {
	k.t.Helper()
	if err := k.Ensure(k.t.Context(), supervisor.Demand{Ready: 1}); err != nil {
		k.t.Fatal(err)
	}
	wait(k.t, 2*time.Minute)
	claim = k.list()[0]
	for _, in := range k.world.AWS.Instances() {
		if in.ProviderID() == text(claim, "status", "providerID") {
			return in, claim
		}
	}
	k.t.Fatalf("no instance of %v", claim.Object)
	return instance, claim
}

func text(obj unstructured.Unstructured, path ...string) string {
	s, _, _ := unstructured.NestedString(obj.Object, path...)
	return s
}

// states are EC2's, of all instances.
func (k *karpenter) states() []string {
	var out []string
	for _, in := range k.world.AWS.Instances() {
		out = append(out, in.State)
	}
	return out
}

func (k *karpenter) terminations() (n int) {
	for _, r := range k.world.AWS.Requests() {
		if r.Action == "TerminateInstances" {
			n++
		}
	}
	return n
}
