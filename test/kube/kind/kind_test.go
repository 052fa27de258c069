// Package kind plays the whole story in a kind cluster: the chart is installed
// with helm next to simulators of GitHub and AWS, whose instances are the
// cluster's nodes, and jobs run in real pods of real kubelets, are refused,
// evicted, drained, lose their host and outlive their daemon.
//
// The pod network here enforces no NetworkPolicy: those of the chart are made,
// and not tested.
package kind

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// target is what runs this.
const target = "make test-kind"

// story is what the acts share.
type story struct {
	*stage.Stage
	*fleet
	before inventory // of the cluster, when the chart was not installed
	owned  owned
	values string // the file of the release's
	runs   []told
	lost   simgithub.Run // whose host is gone
	pair   pair
}

func TestStory(t *testing.T) {
	dir := os.Getenv("RUNNERWARD_KIND")
	if dir == "" {
		t.Skip("it needs a cluster of its own: " + target)
	}
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &cluster{shell: newShell(dir, root, os.Getenv("RUNNERWARD_KIND_BIN")), image: os.Getenv("KIND_IMAGE")}
	s := &story{fleet: newFleet(c)}
	began := time.Now()
	for _, act := range []struct {
		name string
		play func(context.Context) error
	}{
		{"docker starts and makes the images", s.setUp},
		{"kind makes a control plane and a host, another host joins", s.populate},
		{"helm installs the chart, and the daemon is ready", s.install},
		{"an approved deploy runs on a host of its own and is sealed", s.approved},
		{"a self-approved deploy is denied before a runner exists", s.selfApproved},
		{"a branch-pinned workflow is refused on its host", s.branchPinned},
		{"a runner is not evicted, a drain waits for its job, and an eviction all the same is recorded", s.evicted},
		{"a host is lost in the middle of a job", s.loseHost},
		{"helm upgrades the daemon, and then it is killed, in the middle of a job", s.upgraded},
		{"the lost host is recorded and its runner sealed", s.lostHost},
		{"helm uninstalls and leaves nothing but the evidence", s.uninstall},
		{"the auditor verifies a copy of the volume", s.audit},
		{"helm installs two daemons with the ledger in S3 and keys in KMS: one leads", s.installPair},
		{"both are upgraded, and then the leader's pod is lost, in the middle of a job", s.takenOver},
		{"helm uninstalls both and leaves nothing but their volumes", s.uninstallPair},
		{"the auditor verifies the bucket", s.auditPair},
	} {
		from := time.Now()
		err := act.play(ctx)
		fmt.Printf("[%5.1f s] %5.1f s: %s\n", time.Since(began).Seconds(), time.Since(from).Seconds(), act.name)
		if err != nil {
			t.Errorf("%s: %v\n%s", act.name, err, c.dump(ctx))
			break
		}
	}
	if err := s.trouble(); err != nil && !t.Failed() {
		t.Errorf("hosts came and went, but: %v", err)
	}
	cancel() // what still boots
	if err := s.close(context.WithoutCancel(ctx)); err != nil {
		t.Error(err)
	}
}

// setUp finds docker and makes images of what is tested.
func (s *story) setUp(ctx context.Context) error {
	if err := s.cluster.start(ctx); err != nil {
		return err
	}
	return s.buildImages(ctx)
}

// populate makes the world and the cluster of its instances.
func (s *story) populate(ctx context.Context) error {
	var err error
	s.Stage, err = stage.New(ctx, stage.Options{
		Dir: s.file("stage"), Binary: s.file(oldVersion + "/bin/runnerward"), Address: gateway, Names: []string{admissionHost},
		Kubeconfig: []byte{}, // daemons have their own
		World: func(o *world.Options) {
			o.Join, o.Leave = s.hooks(ctx)
			o.Hosts = hosts
		},
	})
	if err != nil {
		return err
	}
	s.Ask = s.view
	first := s.World.AWS.Instances()[0]
	s.first = first.ID
	if err := s.create(ctx, hostOf(first)); err != nil {
		return err
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.ready(ctx, hosts)
}

// hosts is how many the node group keeps: one works while the other boots.
const hosts = 2

// close ends the world before the cluster, whose ends of hosts it would report.
func (s *story) close(ctx context.Context) error {
	if s.Stage != nil {
		if err := s.Close(); err != nil {
			return fmt.Errorf("close the stage: %w", err)
		}
	}
	if err := s.pair.close(); err != nil {
		return fmt.Errorf("close the simulated S3: %w", err)
	}
	s.work.Wait()
	return s.cluster.end(ctx)
}
