package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/test/kube/kubelet"
)

// crowd is hosts by the hundred: kwok reports for their kubelets, and what runs
// in their pods runs here, with real tokens.
type crowd struct {
	client    kubernetes.Interface
	namespace string
	container simcluster.ContainerFunc
	// orders are what shall be done with nodes; they are buffered, because the
	// world that gives them must not wait.
	orders chan func(context.Context) error
	wg     sync.WaitGroup

	mu       sync.Mutex
	pods     map[types.UID]chan struct{} // closed when the pod shall end
	problems []error
}

func newCrowd(t *testing.T, namespace string) *crowd {
	return &crowd{client: admin(t), namespace: namespace, orders: make(chan func(context.Context) error, 4096), pods: map[types.UID]chan struct{}{}}
}

func (c *crowd) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, err)
}

// join registers the instance's node; kwok makes it ready.
func (c *crowd) join(in simaws.Instance) {
	spec := world.Node(in)
	labels := map[string]string{corev1.LabelHostname: spec.Name}
	maps.Copy(labels, spec.Labels)
	capacity := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("58")}
	c.orders <- func(ctx context.Context) error {
		_, err := c.client.CoreV1().Nodes().Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Labels: labels, Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"}},
			Spec:       corev1.NodeSpec{ProviderID: spec.ProviderID, Taints: spec.Taints},
			Status: corev1.NodeStatus{
				Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: spec.InternalIP}}, Capacity: capacity, Allocatable: capacity,
				NodeInfo: corev1.NodeSystemInfo{OSImage: spec.OSImage, KubeletVersion: spec.KubeletVersion, BootID: spec.BootID, MachineID: spec.MachineID},
			},
		}, metav1.CreateOptions{})
		return err
	}
}

// leave is the cloud controller's part in the end of an instance.
func (c *crowd) leave(in simaws.Instance) {
	c.orders <- func(ctx context.Context) error {
		err := c.client.CoreV1().Nodes().Delete(ctx, in.PrivateDNS, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
}

// ready counts the nodes that are.
func (c *crowd) ready(ctx context.Context) (n int, err error) {
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: world.PoolLabelKey + "=" + world.PoolLabelValue, ResourceVersion: "0"})
	if err != nil {
		return 0, err
	}
	for _, node := range nodes.Items {
		for _, cond := range node.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
				n++
			}
		}
	}
	return n, nil
}

// run carries out orders and runs pods until the context ends.
func (c *crowd) run(ctx context.Context) {
	for range 8 {
		c.wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case order := <-c.orders:
					if err := order(ctx); err != nil && ctx.Err() == nil {
						c.note(err)
					}
				}
			}
		})
	}
	source := cache.NewListWatchFromClient(c.client.CoreV1().RESTClient(), "pods", c.namespace, fields.Everything())
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: source, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { c.see(ctx, obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { c.see(ctx, obj.(*corev1.Pod)) },
	}})
	c.wg.Go(func() { informer.RunWithContext(ctx) })
}

// see starts what runs in a pod that kwok says is running, and ends it when the
// pod is being deleted.
func (c *crowd) see(ctx context.Context, pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop, known := c.pods[pod.UID]
	switch {
	case !known && pod.Status.Phase == corev1.PodRunning:
		stop = make(chan struct{})
		c.pods[pod.UID] = stop
		c.wg.Go(func() {
			if err := c.play(ctx, pod, stop); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
				c.note(fmt.Errorf("pod %s: %w", pod.Name, err))
			}
		})
	case known && pod.DeletionTimestamp != nil && stop != nil:
		close(stop)
		c.pods[pod.UID] = nil
	}
}

func (c *crowd) play(ctx context.Context, pod *corev1.Pod, stop <-chan struct{}) error {
	ct, err := kubelet.Mount(ctx, c.client, pod)
	if err != nil {
		return err
	}
	ct.Stop = stop
	code := c.container(ctx, ct)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"runnerward.test/exit":"%d"}}}`, code)
	_, err = c.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// startKwok runs kwok until the test ends.
func startKwok(t *testing.T) {
	t.Helper()
	log, err := os.Create(t.TempDir() + "/kwok.log")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary(t, "kwok"), "--kubeconfig="+planeOf(t).AdminKubeconfig(), "--config=testdata/stages.yaml",
		"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--node-lease-duration-seconds=120", "--v=WARN")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"HOME=" + t.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
		if content, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("the end of kwok's log:\n%s", content[max(0, len(content)-4096):])
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
}

// residentOf is the resident memory of a process now and at its peak, in bytes.
// proc_pid_status(5)
func residentOf(t *testing.T, pid int) (now, peak int64) {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		key, value, _ := strings.Cut(line, ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if key == "VmRSS" {
			now = kB << 10
		} else {
			peak = kB << 10
		}
	}
	return now, peak
}

// close ends the crowd's pods and removes its nodes.
func (c *crowd) close(ctx context.Context) error {
	c.wg.Wait()
	err := c.client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: world.PoolLabelKey + "=" + world.PoolLabelValue})
	return errors.Join(append(c.problems, err)...)
}
