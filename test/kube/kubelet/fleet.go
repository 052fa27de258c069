package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/test/kube/plane"
)

// Fleet is the kubelets of hosts that come and go, and the cloud controller
// that removes the nodes of those that went. Its methods do not block and are
// safe for concurrent use.
type Fleet struct {
	plane *plane.Plane
	admin kubernetes.Interface
	// live runs something until it ends or its power is cut.
	live func(run func(context.Context)) (cut context.CancelFunc)
	wg   sync.WaitGroup
	// serving is closed when container is set.
	serving   chan struct{}
	container simcluster.ContainerFunc

	mu       sync.Mutex
	hosts    map[string]*host
	problems []error
}

// host is one whose power is on. kubelet is nil until it has booted.
type host struct {
	cut     context.CancelFunc
	kubelet *Kubelet
}

// NewFleet makes a fleet without hosts, whose life ends with the context. Hosts
// join once [Fleet.Serve] said what pods do.
func NewFleet(ctx context.Context, p *plane.Plane) (*Fleet, error) {
	admin, err := p.Client()
	if err != nil {
		return nil, err
	}
	f := &Fleet{plane: p, admin: admin, serving: make(chan struct{}), hosts: map[string]*host{}}
	f.live = func(run func(context.Context)) context.CancelFunc {
		ctx, cut := context.WithCancel(ctx)
		f.wg.Go(func() {
			select {
			case <-f.serving:
				run(ctx)
			case <-ctx.Done():
			}
		})
		return cut
	}
	return f, nil
}

// Serve says what runs in place of a pod's main container. It is called once.
func (f *Fleet) Serve(container simcluster.ContainerFunc) {
	f.container = container
	close(f.serving)
}

// Join boots a host.
func (f *Fleet) Join(spec simcluster.NodeSpec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &host{}
	h.cut = f.live(func(ctx context.Context) {
		if err := f.boot(ctx, h, spec); err != nil && ctx.Err() == nil {
			f.note(err)
		}
	})
	f.hosts[spec.Name] = h
}

func (f *Fleet) boot(ctx context.Context, h *host, spec simcluster.NodeSpec) error {
	content, err := f.plane.NodeKubeconfig(spec.Name)
	if err != nil {
		return err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(content)
	if err != nil {
		return err
	}
	k, err := Join(ctx, Options{Config: config, Node: spec, Container: f.container})
	if err != nil {
		return err
	}
	f.mu.Lock()
	h.kubelet = k
	f.mu.Unlock()
	return k.Run(ctx)
}

// Kubelet is the one of a host that has booted, nil when there is none.
func (f *Fleet) Kubelet(name string) *Kubelet {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, ok := f.hosts[name]; ok {
		return h.kubelet
	}
	return nil
}

// Cut ends a host without a word. It reports whether there was such a host.
func (f *Fleet) Cut(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[name]
	if ok {
		delete(f.hosts, name)
		h.cut()
	}
	return ok
}

// Leave is the end of a host's instance, and of its node object, which the
// cloud controller deletes when the cloud no longer has the instance:
// https://kubernetes.io/docs/concepts/architecture/cloud-controller/#node-controller
func (f *Fleet) Leave(name string) {
	f.Cut(name)
	f.live(func(ctx context.Context) {
		err := f.admin.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			f.note(fmt.Errorf("delete node %s: %w", name, err))
		}
	})
}

func (f *Fleet) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = append(f.problems, err)
}

// Close ends every host and removes its node. It returns what went wrong in the
// fleet's life.
func (f *Fleet) Close(ctx context.Context) error {
	f.mu.Lock()
	var names []string
	for name := range f.hosts {
		names = append(names, name)
	}
	f.mu.Unlock()
	for _, name := range names {
		f.Cut(name)
	}
	f.wg.Wait()
	problems := f.problems
	for _, name := range names {
		if err := f.admin.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("delete node %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}
