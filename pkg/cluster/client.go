package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// callTimeout bounds one call, the reading of its answer included. Watches last
// for as long as they ask for.
const callTimeout = 30 * time.Second

// NewConfig is how the cluster that the kubeconfig file names is reached, or the
// cluster we run in when the file is empty. Every call but a watch ends within 30
// seconds. Bodies are JSON, so that audit logs and proxies can read them. Calls
// are counted in requests, unless it is nil.
func NewConfig(kubeconfigFile string, requests *Requests) (*rest.Config, error) {
	// With an empty path BuildConfigFromFlags falls back to a default file
	// when the in-cluster configuration is missing; we do not want to guess.
	load := rest.InClusterConfig
	if kubeconfigFile != "" {
		load = func() (*rest.Config, error) { return clientcmd.BuildConfigFromFlags("", kubeconfigFile) }
	}
	cfg, err := load()
	if err != nil {
		return nil, fmt.Errorf("load the cluster's configuration: %w", err)
	}
	cfg.ContentType = runtime.ContentTypeJSON
	cfg.AcceptContentTypes = runtime.ContentTypeJSON
	// What protects an API server is its own priority and fairness. This bound is
	// for one that has none, and as wide as Karpenter's.
	// https://karpenter.sh/docs/reference/settings/
	cfg.QPS, cfg.Burst = 200, 300
	// A timeout of the client would end watches with the calls.
	cfg.Timeout = 0
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	if requests != nil {
		cfg.Wrap(requests.Wrap)
	}
	cfg.UserAgent = "runnerward"
	return cfg, nil
}

// NewClient makes a client of the cluster that [NewConfig] names.
func NewClient(kubeconfigFile string, requests *Requests) (kubernetes.Interface, error) {
	cfg, err := NewConfig(kubeconfigFile, requests)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's client: %w", err)
	}
	return client, nil
}

// bounded ends calls that take too long.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if watches(r) {
		return b.next.RoundTrip(r)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), callTimeout, fmt.Errorf("the API server took longer than %s", callTimeout))
	answer, err := b.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	answer.Body = body{answer.Body, cancel}
	return answer, nil
}

type body struct {
	io.ReadCloser
	done context.CancelFunc
}

// Close implements [io.Closer].
func (b body) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

func watches(r *http.Request) bool {
	w := r.URL.Query().Get("watch")
	return w == "true" || w == "1"
}
