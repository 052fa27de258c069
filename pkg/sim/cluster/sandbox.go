package simcluster

import (
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prepare mounts the volumes and reports the pod running; init containers are
// taken to succeed. A pod whose ConfigMap is missing stays in
// ContainerCreating until it is deleted or the kubelet ends: then ok is false.
func (w *worker) prepare(ctx context.Context) (ct Container, ok bool) {
	w.c.mu.Lock()
	obj, exists := w.c.objects["pods"][key(w.pod.Namespace, w.pod.Name)]
	deleted := exists && accessor(obj).GetDeletionTimestamp() != nil
	if deleted {
		w.c.erase(w.pod)
		w.c.notify()
	}
	if !exists || deleted {
		w.c.mu.Unlock()
		return Container{}, false
	}
	w.c.mu.Unlock()

	main := w.pod.Spec.Containers[0]
	files, tokens, err := w.mount(main)
	if err != nil {
		w.stuck(ctx)
		return Container{}, false
	}
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	pod, ok := w.setStatus(func(st *corev1.PodStatus) {
		now := metav1.Now()
		st.Phase, st.StartTime = corev1.PodRunning, &now
		st.ContainerStatuses = []corev1.ContainerStatus{{
			Name: main.Name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}}
	})
	if !ok {
		return Container{}, false
	}
	return Container{Pod: pod, Env: Environment(pod, main), Files: files, Token: tokens.read}, true
}

// stuck shows why the pod does not start and waits for its deletion.
func (w *worker) stuck(ctx context.Context) {
	w.c.mu.Lock()
	w.setStatus(func(st *corev1.PodStatus) {
		st.ContainerStatuses = []corev1.ContainerStatus{{
			Name:  w.pod.Spec.Containers[0].Name,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		}}
	})
	w.c.mu.Unlock()
	for w.idle(ctx, time.Hour) {
	}
}

// Environment is that of a container of this pod, as far as it is made of literals
// and of fields of the pod.
func Environment(pod *corev1.Pod, ct corev1.Container) map[string]string {
	env := map[string]string{}
	for _, e := range ct.Env {
		env[e.Name] = e.Value
		if e.ValueFrom == nil || e.ValueFrom.FieldRef == nil {
			continue
		}
		switch e.ValueFrom.FieldRef.FieldPath {
		case "metadata.name":
			env[e.Name] = pod.Name
		case "metadata.namespace":
			env[e.Name] = pod.Namespace
		case "metadata.uid":
			env[e.Name] = string(pod.UID)
		case "spec.nodeName":
			env[e.Name] = pod.Spec.NodeName
		case "spec.serviceAccountName":
			env[e.Name] = pod.Spec.ServiceAccountName
		}
	}
	return env
}

// mount fills the container's ConfigMap and token volumes.
func (w *worker) mount(ct corev1.Container) (files map[string]string, tokens *tokenFiles, err error) {
	files = map[string]string{}
	tokens = &tokenFiles{c: w.c, pod: w.pod, files: map[string]*tokenFile{}}
	volumes := map[string]corev1.Volume{}
	for _, v := range w.pod.Spec.Volumes {
		volumes[v.Name] = v
	}
	for _, m := range ct.VolumeMounts {
		v := volumes[m.Name]
		if cm := v.ConfigMap; cm != nil {
			if err := w.mountMap(files, m.MountPath, cm.Name, cm.Items); err != nil {
				return nil, nil, err
			}
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if cm := s.ConfigMap; cm != nil {
				if err := w.mountMap(files, m.MountPath, cm.Name, cm.Items); err != nil {
					return nil, nil, err
				}
			}
			if t := s.ServiceAccountToken; t != nil {
				tokens.files[path.Join(m.MountPath, t.Path)] = &tokenFile{spec: t}
			}
		}
	}
	for p := range tokens.files {
		if files[p], err = tokens.read(p); err != nil {
			return nil, nil, err
		}
	}
	return files, tokens, nil
}

func (w *worker) mountMap(files map[string]string, dir, name string, items []corev1.KeyToPath) error {
	data, ok := w.c.opts.ConfigMaps[name]
	if !ok {
		return fmt.Errorf("configmap %q not found", name)
	}
	if len(items) == 0 {
		for k, v := range data {
			files[path.Join(dir, k)] = v
		}
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			return fmt.Errorf("configmap references non-existent config key: %s", item.Key)
		}
		files[path.Join(dir, item.Path)] = v
	}
	return nil
}

// tokenFiles are a pod's projected tokens. It is safe for concurrent use.
type tokenFiles struct {
	c   *Cluster
	pod *corev1.Pod

	mu    sync.Mutex
	files map[string]*tokenFile
}

type tokenFile struct {
	spec  *corev1.ServiceAccountTokenProjection
	value string
	renew time.Time
}

// read returns the token in the file. The kubelet renews it when 80 % of its
// life has passed (pkg/kubelet/token/token_manager.go); while that fails the
// old one stays in place.
func (t *tokenFiles) read(file string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.files[file]
	if !ok {
		return "", fmt.Errorf("open %s: no such file or directory", file)
	}
	if f.value != "" && time.Now().Before(f.renew) {
		return f.value, nil
	}
	lifetime := time.Hour
	if s := f.spec.ExpirationSeconds; s != nil {
		lifetime = time.Duration(*s) * time.Second
	}
	audience := f.spec.Audience
	if audience == "" {
		audience = t.c.opts.Issuer
	}
	value, err := t.c.Mint(t.pod, audience, lifetime)
	if err != nil {
		if f.value != "" {
			return f.value, nil
		}
		return "", err
	}
	f.value, f.renew = value, time.Now().Add(lifetime*8/10)
	return value, nil
}
