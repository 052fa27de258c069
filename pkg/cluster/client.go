package cluster

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// NewClient makes a client of the cluster that the kubeconfig file names, or
// of the cluster we run in when the file is empty. Every call ends within 30
// seconds. Bodies are JSON, so that audit logs and proxies can read them.
func NewClient(kubeconfigFile string) (kubernetes.Interface, error) {
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
	cfg.QPS, cfg.Burst = 50, 100
	cfg.Timeout = 30 * time.Second
	cfg.UserAgent = "runnerward"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's client: %w", err)
	}
	return client, nil
}
