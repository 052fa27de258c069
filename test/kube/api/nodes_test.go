package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/test/kube/kubelet"
)

func hostOf(node *corev1.Node) runner.Host {
	return runner.Host{NodeName: node.Name, NodeUID: string(node.UID), BootID: node.Status.NodeInfo.BootID}
}

// noise writes to the node without pause, as its kubelet does now and then,
// until it shall be quiet.
func noise(ctx context.Context, k *kubelet.Kubelet, quiet *atomic.Bool) error {
	for n := 0; !quiet.Load(); n++ {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"test/noise":"%d"}}}`, n)
		_, err := k.Client().CoreV1().Nodes().Patch(ctx, k.Node().Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil {
			return err
		}
	}
	return nil
}

// insist claims until there is an answer: other writers may win more often than
// one call of ClaimNode tries.
func insist(ctx context.Context, c *cluster.Cluster, host runner.Host, name runner.Name) error {
	for {
		err := c.ClaimNode(ctx, host, name)
		if err == nil || errors.Is(err, supervisor.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// TestOneOfTwoClaimsWins has two supervisors claim the same node again and
// again while its kubelet writes to it.
func TestOneOfTwoClaimsWins(t *testing.T) {
	t.Parallel()
	ns := runnersNamespace(t)
	const rounds = 15
	var retried atomic.Int64
	for i := range rounds {
		k := join(t, fmt.Sprintf("claimed-%d", i), ns)
		host := hostOf(k.Node())
		var quiet atomic.Bool
		var writer, claimers sync.WaitGroup
		writer.Go(func() {
			if err := noise(t.Context(), k, &quiet); err != nil {
				t.Errorf("the kubelet's own writes: %v", err)
			}
		})
		names := []runner.Name{"runner-a", "runner-b"}
		answers := make([]error, len(names))
		for j, name := range names {
			c := adapter(t, ns)
			claimers.Go(func() {
				if answers[j] = c.ClaimNode(t.Context(), host, name); answers[j] != nil && !errors.Is(answers[j], supervisor.ErrConflict) {
					retried.Add(1)
					answers[j] = insist(t.Context(), c, host, name)
				}
			})
		}
		claimers.Wait()
		quiet.Store(true)
		writer.Wait()
		winner := names[0]
		if answers[0] != nil {
			winner = names[1]
		}
		for j, err := range answers {
			if won := err == nil; won != (names[j] == winner) || !won && !errors.Is(err, supervisor.ErrConflict) {
				t.Fatalf("round %d: %s got %v, and %s won", i, names[j], err, winner)
			}
		}
		node, err := admin(t).CoreV1().Nodes().Get(t.Context(), host.NodeName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		marks := 0
		for _, taint := range node.Spec.Taints {
			if taint.Key == cluster.ClaimedTaint {
				marks++
				if taint.Value != string(winner) {
					t.Errorf("round %d: the taint is %s's, and %s won", i, taint.Value, winner)
				}
			}
		}
		if marks != 1 || node.Annotations[cluster.ClaimedBy] != string(winner) || !node.Spec.Unschedulable {
			t.Errorf("round %d: %d taints, claimed by %q, cordoned %t; %s won", i, marks, node.Annotations[cluster.ClaimedBy], node.Spec.Unschedulable, winner)
		}
		forget(t, host.NodeName)
	}
	t.Logf("%d of %d claims lost to other writers more often than one call tries, and were asked again", retried.Load(), 2*rounds)
}

// TestANodeIsDeletedByItsUIDAlone deletes a node that has come back under its name.
func TestANodeIsDeletedByItsUIDAlone(t *testing.T) {
	t.Parallel()
	ns := runnersNamespace(t)
	c := adapter(t, ns)
	former := join(t, "back-again", ns).Node()
	forget(t, former.Name)
	again := join(t, "back-again", ns).Node()
	if again.UID == former.UID {
		t.Fatal("the node has its former UID")
	}
	if err := c.ClaimNode(t.Context(), hostOf(former), "runner-a"); !errors.Is(err, supervisor.ErrConflict) {
		t.Errorf("ClaimNode of the former node = %v, want ErrConflict", err)
	}
	if err := c.DeleteNode(t.Context(), former.Name, string(former.UID)); err != nil {
		t.Errorf("DeleteNode of the former node = %v, want nil: it is gone", err)
	}
	for _, tt := range []struct {
		node *corev1.Node
		gone bool
	}{{former, true}, {again, false}} {
		if gone, err := c.NodeGone(t.Context(), tt.node.Name, string(tt.node.UID)); err != nil || gone != tt.gone {
			t.Errorf("NodeGone(%s) = %t, %v, want %t", tt.node.UID, gone, err, tt.gone)
		}
	}
	if err := c.DeleteNode(t.Context(), again.Name, string(again.UID)); err != nil {
		t.Fatal(err)
	}
	if gone, err := c.NodeGone(t.Context(), again.Name, string(again.UID)); err != nil || !gone {
		t.Errorf("NodeGone after DeleteNode = %t, %v, want true", gone, err)
	}
}

// TestEventsAreTaken looks for events where kubectl describe does: by the UID of
// what they are about, those of nodes in the namespace default.
func TestEventsAreTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pod, node := b.pod(t, "runner-a"), b.kubelet.Node()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	b.Event("runner-a", node.Name, "Refused", "the job may not run here")
	for _, tt := range []struct {
		namespace string
		uid       types.UID
	}{{b.namespace, pod.UID}, {metav1.NamespaceDefault, node.UID}} {
		until(t, "the event is there", patience, func() (bool, error) {
			events, err := admin(t).CoreV1().Events(tt.namespace).List(t.Context(), metav1.ListOptions{
				FieldSelector: "reason=Refused,involvedObject.uid=" + string(tt.uid),
			})
			return err == nil && len(events.Items) == 1 && events.Items[0].Type == corev1.EventTypeWarning, err
		})
	}
	cancel()
	<-ended
	if n := b.DroppedEvents(); n != 0 {
		t.Errorf("%d events were dropped", n)
	}
}

// TestAKubeletMayNotTouchWhatHoldsAClaim: the marks of a claim are the
// supervisor's, and a host cannot rid itself of them.
// https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
func TestAKubeletMayNotTouchWhatHoldsAClaim(t *testing.T) {
	t.Parallel()
	ns := runnersNamespace(t)
	k := join(t, "captive", ns)
	if err := adapter(t, ns).ClaimNode(t.Context(), hostOf(k.Node()), "runner-a"); err != nil {
		t.Fatal(err)
	}
	for name, patch := range map[string]string{
		"its taints":            `{"spec":{"taints":[]}}`,
		"a protected label":     `{"metadata":{"labels":{"node-restriction.kubernetes.io/pool":"x"}}}`,
		"itself, by a deletion": "",
	} {
		var err error
		if patch == "" {
			err = k.Client().CoreV1().Nodes().Delete(t.Context(), k.Node().Name, metav1.DeleteOptions{})
		} else {
			_, err = k.Client().CoreV1().Nodes().Patch(t.Context(), k.Node().Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		}
		if err == nil {
			t.Errorf("the kubelet changed %s", name)
		}
	}
	other := join(t, "neighbour", ns)
	if _, err := other.Client().CoreV1().Nodes().Patch(t.Context(), k.Node().Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err == nil {
		t.Error("a kubelet changed another node")
	}
}
