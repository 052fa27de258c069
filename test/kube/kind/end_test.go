package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	marks "github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// inventory is every object of the cluster, as RESOURCE NAMESPACE/NAME.
type inventory []string

// takeInventory lists every resource that can be listed. What the cluster itself
// makes and removes all the time is left out: reports of what happened, and
// objects of its nodes, which come and go with hosts.
func (s *story) takeInventory(ctx context.Context) (inventory, error) {
	client, err := metadata.NewForConfig(s.rest)
	if err != nil {
		return nil, err
	}
	lists, err := s.client.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("find the resources: %w", err)
	}
	var all inventory
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, lists) {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			objects, err := client.Resource(group.WithResource(r.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", r.Name, err)
			}
			for _, o := range objects.Items {
				if !passing(r.Name, o.Namespace) {
					all = append(all, r.Name+" "+o.Namespace+"/"+o.Name)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func passing(resource, namespace string) bool {
	switch resource {
	case "events", "nodes", "csinodes", "certificatesigningrequests":
		return true
	case "leases":
		return namespace == "kube-node-lease"
	case "pods", "ipaddresses":
		return namespace == "kube-system" // of the nodes' daemons
	}
	return false
}

// uninstall does what docs/install.md says about it, and looks for what is left.
func (s *story) uninstall(ctx context.Context) error {
	if err := s.quiet(ctx, onCall); err != nil {
		return err
	}
	if err := s.copyLedger(ctx); err != nil {
		return err
	}
	if err := s.helm(ctx, "uninstall"); err != nil {
		return err
	}
	return s.nothingLeft(ctx, release+"-ledger")
}

// quiet freezes and waits until no runner is open.
func (s *story) quiet(ctx context.Context, daemon string) error {
	if err := s.asOnCall(ctx, daemon, "freeze", "uninstall", "--cert", s.File("tls/oncall.pem"), "--key", s.File("tls/oncall.key")); err != nil {
		return err
	}
	return until(ctx, "no runner is open", patience, func(ctx context.Context) (bool, error) {
		v, err := s.Ask(ctx)
		open := slices.ContainsFunc(v.Runners, func(r supervisor.RunnerView) bool { return r.Phase != runner.KindSealed })
		return err == nil && !open, err
	})
}

// nothingLeft waits until of all that was made these claims alone are there.
func (s *story) nothingLeft(ctx context.Context, claims ...string) error {
	var want []string
	for _, claim := range claims {
		want = append(want, "persistentvolumeclaims "+world.Namespace+"/"+claim)
	}
	if err := until(ctx, "nothing but claims of volumes is left", patience, func(ctx context.Context) (bool, error) {
		after, err := s.takeInventory(ctx)
		if err != nil {
			return false, err
		}
		left := slices.DeleteFunc(after, func(o string) bool { return slices.Contains(s.before, o) })
		return slices.Equal(left, want), fmt.Errorf("left are %q, want %q", left, want)
	}); err != nil {
		return err
	}
	nodes, err := s.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		if n.Annotations[marks.ClaimedBy] != "" || n.Spec.Unschedulable {
			err = errors.Join(err, fmt.Errorf("node %s is still claimed for %q, or cordoned", n.Name, n.Annotations[marks.ClaimedBy]))
		}
	}
	return err
}

// copier is the pod that docs/install.md, 6, copies the evidence with: it mounts
// ledger and root, and not the keys.
const copier = `apiVersion: v1
kind: Pod
metadata: {name: ledger-copy, namespace: %s}
spec:
  nodeName: %s
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: copy
      image: %s
      command: [/bin/busybox, sleep, "3600"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: ledger, mountPath: /copy/ledger, subPath: ledger, readOnly: true}
        - {name: ledger, mountPath: /copy/root.json, subPath: root.json, readOnly: true}
  volumes: [{name: ledger, persistentVolumeClaim: {claimName: runnerward-ledger}}]
`

func (s *story) copyLedger(ctx context.Context) error {
	// The runner's image has a busybox.
	if _, err := s.in(ctx, controller, importRunner...); err != nil {
		return err
	}
	ns := "--namespace=" + world.Namespace
	if err := s.apply(ctx, fmt.Sprintf(copier, world.Namespace, controller, s.owned.runner)); err != nil {
		return err
	}
	if _, err := s.run(ctx, "kubectl", ns, "wait", "--for=condition=Ready", "pod/ledger-copy", "--timeout=60s"); err != nil {
		return err
	}
	if _, err := s.run(ctx, "bash", "-euo", "pipefail", "-c",
		`mkdir "$2"; kubectl "$1" exec ledger-copy -- /bin/busybox tar -C /copy -cf - ledger root.json | tar -C "$2" -xf -`,
		"copy", ns, s.file("evidence")); err != nil {
		return err
	}
	_, err := s.run(ctx, "kubectl", ns, "delete", "pod", "ledger-copy", "--grace-period=1")
	return err
}

// audit leaves the cluster and uses the copy alone.
func (s *story) audit(ctx context.Context) error {
	return s.auditAt(ctx, s.runs, "--ledger", s.file("evidence/ledger"), "--root", s.file("evidence/root.json"))
}

// auditAt verifies this ledger and asks it about runs.
func (s *story) auditAt(ctx context.Context, runs []told, ledger ...string) error {
	out, code, err := s.CLI(ctx, append([]string{"verify"}, ledger...)...)
	if err != nil || code != 0 {
		return errors.Join(err, fmt.Errorf("verify exits %d:\n%s", code, out))
	}
	fmt.Printf("%s", out)
	for _, t := range runs {
		url := fmt.Sprintf("%s/%s/%s/actions/runs/%d", s.GitHubURL, world.Org, world.Repository, t.run.ID)
		out, code, err := s.CLI(ctx, append(append([]string{"explain"}, ledger...), url)...)
		if err != nil || code != 0 {
			return errors.Join(err, fmt.Errorf("explain %s exits %d:\n%s", url, code, out))
		}
		for _, what := range t.says {
			if !bytes.Contains(out, []byte(what)) {
				err = errors.Join(err, fmt.Errorf("explain %s does not say %q:\n%s", url, what, out))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
