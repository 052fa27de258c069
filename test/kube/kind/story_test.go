package kind

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// patience bounds what happens within seconds on an idle machine.
const patience = 90 * time.Second

// told is a run, and what the auditor must be told of it.
type told struct {
	run  simgithub.Run
	says []string
}

func (s *story) tell(run simgithub.Run, says ...string) { s.runs = append(s.runs, told{run, says}) }

// install does what docs/install.md says, and asks as on-call does.
func (s *story) install(ctx context.Context) error {
	var err error
	if s.owned.role, err = s.prepare(ctx); err != nil {
		return err
	}
	if s.owned.agent, err = s.loadImages(ctx); err != nil {
		return err
	}
	if s.owned.runner, err = s.runnerImage(); err != nil {
		return err
	}
	if err := s.writeValues("values.yaml", nil, nil); err != nil {
		return err
	}
	if s.before, err = s.takeInventory(ctx); err != nil {
		return err
	}
	if err := s.helm(ctx, "install"); err != nil {
		return err
	}
	return s.canDeploy(ctx, oldVersion)
}

// canDeploy waits until a daemon of this version can, and knows a vetted host.
func (s *story) canDeploy(ctx context.Context, version string) error {
	return until(ctx, "the daemon "+version+" can deploy to a vetted host", patience, func(ctx context.Context) (bool, error) {
		v, err := s.Ask(ctx)
		if err != nil {
			return false, err
		}
		vetted := slices.ContainsFunc(v.Hosts, func(h supervisor.HostView) bool { return h.Vetted })
		if !v.CanDeploy || !vetted {
			return false, fmt.Errorf("can deploy: %t, because %q, hosts: %+v", v.CanDeploy, v.Why, v.Hosts)
		}
		return v.Version == version, fmt.Errorf("the daemon is %s", v.Version)
	})
}

// onCall is what operators are forwarded to.
const onCall = "service/" + release + "-status"

// asOnCall runs a command of operators at the end of a port-forward, until it
// succeeds.
func (s *story) asOnCall(ctx context.Context, to string, command ...string) error {
	kubectl, err := s.find("kubectl")
	if err != nil {
		return err
	}
	forward := exec.CommandContext(ctx, kubectl, "-n", world.Namespace, "port-forward", to, "9443:9443")
	forward.Env = s.env
	if err := forward.Start(); err != nil {
		return err
	}
	defer func() {
		_ = forward.Process.Kill()
		_ = forward.Wait() // it was killed
	}()
	command = append(command, "--url", "https://localhost:9443", "--ca", s.File("tls/ca.pem"))
	return until(ctx, "runnerward "+command[0]+" succeeds", patience, func(ctx context.Context) (bool, error) {
		out, code, err := s.CLI(ctx, command...)
		return err == nil && code == 0, errors.Join(err, fmt.Errorf("exit code %d: %s", code, out))
	})
}

func (s *story) approved(ctx context.Context) error {
	if err := s.asOnCall(ctx, onCall, "status"); err != nil {
		return err
	}
	run, err := s.Deploy(world.Deploy("v2.0.0", "bob", "bob", time.Second), "carol")
	if err != nil {
		return err
	}
	s.tell(run, "carol", world.DeployWorkflow, world.DeploySHA, "terminated")
	return s.ends(ctx, run)
}

// ends waits until the run's job is sealed, and says what befell hosts if it is not.
func (s *story) ends(ctx context.Context, run simgithub.Run) error {
	_, err := s.Ends(ctx, run, patience)
	return errors.Join(err, s.trouble())
}

func (s *story) selfApproved(ctx context.Context) error {
	run, _, err := s.SelfApproved(ctx, "v2.0.1", patience)
	s.tell(run, "approver-is-author")
	return err
}

func (s *story) branchPinned(ctx context.Context) error {
	in, err := s.BranchPinned(ctx, "v2.0.2", "v2.0.3", patience)
	if err != nil {
		return errors.Join(err, s.trouble())
	}
	s.tell(in.Bad, "workflow-not-tag-pinned")
	s.tell(in.Good, "dave", "terminated")
	_, err = s.Recovers(ctx, in, patience)
	return errors.Join(err, s.trouble())
}

// works waits until the run's job is in its steps, and says on which runner.
func (s *story) works(ctx context.Context, run simgithub.Run) (supervisor.RunnerView, error) {
	if err := until(ctx, "the job works", patience, func(context.Context) (bool, error) {
		on, _ := s.World.GitHub.Job(run.JobID)
		return on.StepsRan && on.HookSucceeded, fmt.Errorf("GitHub says %+v", on)
	}); err != nil {
		return supervisor.RunnerView{}, errors.Join(err, s.trouble())
	}
	return s.Runner(ctx, "the runner works", patience, func(r supervisor.RunnerView) bool {
		return r.Job == runner.JobID(run.JobID) && r.Phase == runner.KindStarted
	})
}

func (s *story) evict(ctx context.Context, pod runner.Name) error {
	return s.client.PolicyV1().Evictions(world.Namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: string(pod), Namespace: world.Namespace}})
}

// evicted has two jobs at once: the host of one is drained, the pod of the other
// evicted.
func (s *story) evicted(ctx context.Context) error {
	drained, err := s.Deploy(world.Deploy("v2.1.0", "bob", "bob", 15*time.Second), "carol")
	if err != nil {
		return err
	}
	lost, err := s.Deploy(world.Deploy("v2.1.1", "bob", "bob", 5*time.Minute), "carol")
	if err != nil {
		return err
	}
	of, err := s.works(ctx, drained)
	if err != nil {
		return err
	}
	victim, err := s.works(ctx, lost)
	if err != nil {
		return err
	}
	if err := s.drain(ctx, of, drained); err != nil {
		return err
	}
	s.tell(drained, "carol", "Outcome: succeeded", "terminated")
	if err := s.evict(ctx, victim.Name); !apierrors.IsTooManyRequests(err) {
		return fmt.Errorf("evicting a runner's pod = %v, want a refusal by the chart's disruption budget", err)
	}
	// Somebody finds the budget in the way.
	if _, err := s.run(ctx, "kubectl", "-n", world.Namespace, "delete", "poddisruptionbudget", release+"-runners"); err != nil {
		return err
	}
	if err := s.evict(ctx, victim.Name); err != nil {
		return fmt.Errorf("evict a pod that nothing protects: %w", err)
	}
	s.tell(lost, "carol", "Outcome: failed", "EvictionByEvictionAPI", "terminated")
	r, err := s.Sealed(ctx, lost.JobID, patience)
	if err != nil {
		return errors.Join(err, s.trouble())
	}
	if on, _ := s.World.GitHub.Job(lost.JobID); on.Conclusion == "success" || on.Status != "completed" {
		return fmt.Errorf("GitHub says that the evicted job is %s, %s", on.Status, on.Conclusion)
	}
	return errors.Join(s.Gone(r), s.trouble())
}

// drain drains the host of a runner. kubectl does not touch a pod that no
// controller would make again, unless it is forced to, and then it waits for the job.
func (s *story) drain(ctx context.Context, of supervisor.RunnerView, run simgithub.Run) error {
	_, err := s.run(ctx, "kubectl", "drain", of.Node, "--ignore-daemonsets", "--timeout=30s")
	if err == nil || !strings.Contains(err.Error(), "cannot delete") {
		return fmt.Errorf("draining a runner's host = %v, want a refusal", err)
	}
	over := make(chan error, 1)
	go func() {
		_, err := s.run(ctx, "kubectl", "drain", of.Node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=120s")
		over <- err
	}()
	err = s.ends(ctx, run)
	// It ends with the pod, or finds that the node is gone already.
	if drained := <-over; drained != nil && !strings.Contains(drained.Error(), "not found") {
		err = errors.Join(err, drained)
	}
	return err
}

// loseHost cuts the power of a host in the middle of a job. EC2 finds out and
// ends the instance.
func (s *story) loseHost(ctx context.Context) error {
	run, err := s.Deploy(world.Deploy("v2.2.0", "bob", "bob", 5*time.Minute), "dave")
	if err != nil {
		return err
	}
	r, err := s.works(ctx, run)
	if err != nil {
		return err
	}
	s.lost = run
	s.tell(run, "dave", "Outcome: failed", "host-ended", "terminated")
	if _, err := s.run(ctx, "docker", "kill", r.Instance); err != nil {
		return err
	}
	if err := s.World.AWS.Terminate(r.Instance); err != nil {
		return err
	}
	// The runner renews its lease no more, and nobody waits ten minutes here.
	_, err = s.World.GitHub.Advance(11 * time.Minute)
	return err
}

// lostHost waits for what is known of it only when Kubernetes gives the pod up.
func (s *story) lostHost(ctx context.Context) error {
	r, err := s.Sealed(ctx, s.lost.JobID, 2*patience)
	if err != nil {
		return errors.Join(err, s.trouble())
	}
	if on, _ := s.World.GitHub.Job(s.lost.JobID); on.Conclusion == "success" || on.Status != "completed" {
		return fmt.Errorf("GitHub says that the job of the lost host is %s, %s", on.Status, on.Conclusion)
	}
	return errors.Join(s.Gone(r), s.trouble())
}

// upgraded exchanges the daemon under a job, and then kills it. The job needs none
// while it works.
func (s *story) upgraded(ctx context.Context) error {
	if err := s.canDeploy(ctx, oldVersion); err != nil {
		return err
	}
	run, err := s.Deploy(world.Deploy("v2.3.0", "bob", "bob", 40*time.Second), "carol")
	if err != nil {
		return err
	}
	before, err := s.works(ctx, run)
	if err != nil {
		return err
	}
	s.tell(run, "carol", "Outcome: succeeded", "terminated")
	if err := s.helm(ctx, "upgrade", "--set", "image.tag="+newVersion); err != nil {
		return err
	}
	if err := s.ready(ctx, 1); err != nil {
		return err
	}
	if v, err := s.view(ctx); err != nil || v.Version != newVersion {
		return errors.Join(err, fmt.Errorf("after the upgrade the daemon is %q, want %s", v.Version, newVersion))
	}
	if _, err := s.client.PolicyV1().PodDisruptionBudgets(world.Namespace).Get(ctx, release+"-runners", metav1.GetOptions{}); err != nil {
		return fmt.Errorf("the upgrade brings back what was deleted: %w", err)
	}
	if on, _ := s.World.GitHub.Job(run.JobID); on.Status != "in_progress" || on.RunnerName != string(before.Name) {
		return fmt.Errorf("after the upgrade GitHub says that the job is %s on %s, want it in progress on %s", on.Status, on.RunnerName, before.Name)
	}
	// Its successor may start before it is over: then the log tells them apart.
	if _, err := s.run(ctx, "kubectl", "-n", world.Namespace, "delete", "pod", "-l", "app.kubernetes.io/component=supervisor", "--force", "--grace-period=0"); err != nil {
		return err
	}
	return s.ends(ctx, run)
}
