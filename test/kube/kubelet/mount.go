package kubelet

import (
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

// mounted are the ConfigMaps and tokens that a container sees. It is safe for
// concurrent use.
type mounted struct {
	client kubernetes.Interface
	pod    *corev1.Pod
	files  map[string]string

	mu     sync.Mutex
	tokens map[string]*token
}

type token struct {
	spec  *corev1.ServiceAccountTokenProjection
	value string
	renew time.Time
}

// Mount reads what a pod's main container sees, with the rights of this client:
// a container without a way to stop it. Init containers are taken to have
// succeeded.
func Mount(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) (simcluster.Container, error) {
	main := pod.Spec.Containers[0]
	m := &mounted{client: client, pod: pod, files: map[string]string{}, tokens: map[string]*token{}}
	if err := m.mount(ctx, main); err != nil {
		return simcluster.Container{}, err
	}
	return simcluster.Container{Pod: pod, Env: simcluster.Environment(pod, main), Files: m.files, Token: m.token}, nil
}

// mount reads the container's ConfigMaps and asks for its tokens.
func (m *mounted) mount(ctx context.Context, ct corev1.Container) error {
	volumes := map[string]corev1.Volume{}
	for _, v := range m.pod.Spec.Volumes {
		volumes[v.Name] = v
	}
	for _, at := range ct.VolumeMounts {
		v := volumes[at.Name]
		sources := []corev1.VolumeProjection{}
		if cm := v.ConfigMap; cm != nil {
			sources = append(sources, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: cm.LocalObjectReference, Items: cm.Items}})
		}
		if v.Projected != nil {
			sources = append(sources, v.Projected.Sources...)
		}
		for _, s := range sources {
			if cm := s.ConfigMap; cm != nil {
				if err := m.configMap(ctx, at.MountPath, cm); err != nil {
					return err
				}
			}
			if t := s.ServiceAccountToken; t != nil {
				file := path.Join(at.MountPath, t.Path)
				m.tokens[file] = &token{spec: t}
				var err error
				if m.files[file], err = m.read(ctx, file); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (m *mounted) configMap(ctx context.Context, dir string, source *corev1.ConfigMapProjection) error {
	cm, err := m.client.CoreV1().ConfigMaps(m.pod.Namespace).Get(ctx, source.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	items := source.Items
	if len(items) == 0 {
		for key := range cm.Data {
			items = append(items, corev1.KeyToPath{Key: key, Path: key})
		}
	}
	for _, item := range items {
		content, ok := cm.Data[item.Key]
		if !ok {
			return fmt.Errorf("configmap references non-existent config key: %s", item.Key)
		}
		m.files[path.Join(dir, item.Path)] = content
	}
	return nil
}

// tokenTimeout bounds one request for a token.
const tokenTimeout = 10 * time.Second

// token reads a token's file.
func (m *mounted) token(file string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	return m.read(ctx, file)
}

// read returns the token in the file. The kubelet renews it when 80 % of its
// life has passed (pkg/kubelet/token/token_manager.go); while that fails the
// old one stays in place.
func (m *mounted) read(ctx context.Context, file string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tokens[file]
	if !ok {
		return "", fmt.Errorf("open %s: no such file or directory", file)
	}
	if t.value != "" && time.Now().Before(t.renew) {
		return t.value, nil
	}
	value, expires, err := requestToken(ctx, m.client, m.pod, t.spec)
	if err != nil {
		if t.value != "" {
			return t.value, nil
		}
		return "", err
	}
	now := time.Now()
	t.value, t.renew = value, now.Add(expires.Sub(now)*8/10)
	return value, nil
}

// Token requests a token as the kubelet does for a projection: bound to the pod,
// for its audience. The API server lets a kubelet have tokens of the pods on its
// node only, and only for audiences that the pod names.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
func (k *Kubelet) Token(ctx context.Context, pod *corev1.Pod, spec *corev1.ServiceAccountTokenProjection) (value string, expires time.Time, err error) {
	return requestToken(ctx, k.client, pod, spec)
}

func requestToken(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, spec *corev1.ServiceAccountTokenProjection) (value string, expires time.Time, err error) {
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: spec.ExpirationSeconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if spec.Audience != "" {
		request.Spec.Audiences = []string{spec.Audience}
	}
	answer, err := client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("request a token for pod %s: %w", pod.Name, err)
	}
	return answer.Status.Token, answer.Status.ExpirationTimestamp.Time, nil
}
