//go:build linux

package node

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/test/kube/plane"
)

// fleet makes a host of every instance that the simulated AWS runs, and is the
// cloud controller, which removes the nodes of instances that are terminated.
type fleet struct {
	bin, tree, dir string
	plane          *plane.Plane
	client         kubernetes.Interface
	// system says what the nth host that is launched claims to run.
	system func(n int) string

	mu      sync.Mutex
	hosts   map[string]*Host // by instance
	wrong   []error
	pending sync.WaitGroup
}

// bottlerocket is what the instances' image really is.
const bottlerocket = "Bottlerocket OS 1.57.0 (aws-k8s-1.35)"

func (f *fleet) join(in simaws.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.hosts)
	f.hosts[in.ID] = nil
	f.pending.Go(func() {
		h, err := f.boot(in, f.system(n))
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hosts[in.ID] = h
		f.wrong = append(f.wrong, err)
	})
}

func (f *fleet) boot(in simaws.Instance, system string) (*Host, error) {
	kubeconfig, err := f.plane.NodeKubeconfig(in.PrivateDNS)
	if err != nil {
		return nil, err
	}
	return Boot(context.Background(), f.bin, f.tree, filepath.Join(f.dir, in.ID), Machine{
		Name: in.PrivateDNS, Address: in.PrivateIP, ProviderID: in.ProviderID(), System: system,
		Labels: map[string]string{world.PoolLabelKey: world.PoolLabelValue}, Taint: "workload=hipaa-runner:NoSchedule",
		Kubeconfig: kubeconfig, CAFile: f.plane.CAFile(),
	})
}

func (f *fleet) leave(in simaws.Instance) {
	f.pending.Go(func() {
		var off error
		if h := f.host(in.ID); h != nil {
			off = h.Off(context.Background())
		}
		err := f.client.CoreV1().Nodes().Delete(context.Background(), in.PrivateDNS, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wrong = append(f.wrong, off, err)
	})
}

// reboot reboots the instance's host.
func (f *fleet) reboot(t *testing.T, instance string) {
	t.Helper()
	h, err := f.host(instance).Reboot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts[instance] = h
}

// host is the instance's, nil while it is being switched on.
func (f *fleet) host(instance string) *Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[instance]
}

// close switches every host off and says what went wrong.
func (f *fleet) close(t *testing.T) {
	f.pending.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hosts {
		if h != nil {
			f.wrong = append(f.wrong, h.Off(context.Background()))
		}
	}
	if err := errors.Join(f.wrong...); err != nil {
		t.Error(err)
	}
}
