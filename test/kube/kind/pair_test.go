package kind

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	sims3 "github.com/runnerward/runnerward/pkg/sim/s3"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// pair is the chart once more, with two replicas: the ledger in S3 and its keys in
// KMS, as docs/install.md says of a second replica.
type pair struct {
	s3       *http.Server
	endpoint string
	run      told
}

// The buckets of the pair.
const evidenceBucket, viewBucket = "evidence", "view"

// pods are the two daemons.
var pods = [2]string{release + "-0", release + "-1"}

// buckets serves them until [pair.close].
func (p *pair) buckets(s *stage.Stage) error {
	config, err := s.CA.Server("simulator", gateway)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(gateway, "0"), config)
	if err != nil {
		return fmt.Errorf("listen for the simulated S3: %w", err)
	}
	p.endpoint = "https://" + listener.Addr().String()
	p.s3 = &http.Server{
		Handler: sims3.New(map[string]sims3.Bucket{
			evidenceBucket: {Owner: world.Account, Versioned: true, Locked: true}, viewBucket: {Owner: world.Account},
		}),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), // daemons are killed
	}
	go func() { _ = p.s3.Serve(listener) }() // ends with close
	return nil
}

func (p *pair) close() error {
	if p.s3 == nil {
		return nil
	}
	return p.s3.Close()
}

// installPair installs the chart with two replicas.
func (s *story) installPair(ctx context.Context) error {
	if err := s.pair.buckets(s.Stage); err != nil {
		return err
	}
	record, err := s.World.AWS.AddKey(simaws.Key{Spec: simaws.SpecP256})
	if err != nil {
		return err
	}
	checkpoint, err := s.World.AWS.AddKey(simaws.Key{Spec: simaws.SpecEd25519})
	if err != nil {
		return err
	}
	if err := s.writeValues("pair.yaml", map[string]any{"replicas": len(pods)}, map[string]any{
		"ledger.dir": "", "ledger.keysDir": "", "ledger.origin": "runnerward.pair/hipaa-prod", "ledger.spoolDir": "/var/lib/runnerward/spool",
		"ledger.s3": map[string]any{
			"bucket": evidenceBucket, "prefix": "prod", "viewBucket": viewBucket, "viewPrefix": "prod", "region": world.Region,
			"endpoint": s.pair.endpoint, "caFile": authority, "bucketOwner": world.Account,
		},
		"ledger.kms": map[string]any{"recordKey": record, "checkpointKey": checkpoint, "endpoint": s.AWSURL},
	}); err != nil {
		return err
	}
	s.Ask = s.leading
	if err := s.helm(ctx, "install"); err != nil {
		return err
	}
	return errors.Join(s.canDeploy(ctx, oldVersion), s.standsBy(ctx))
}

// viewOf asks one daemon through the API server.
func (s *story) viewOf(ctx context.Context, pod string) (supervisor.View, error) {
	return s.viewAt(ctx, "pods", "https:"+pod+":9443")
}

// leading is the view of the daemon that leads.
func (s *story) leading(ctx context.Context) (supervisor.View, error) {
	var problems []error
	for _, pod := range pods {
		v, err := s.viewOf(ctx, pod)
		if err == nil && v.Leading {
			return v, nil
		}
		problems = append(problems, err)
	}
	return supervisor.View{}, errors.Join(append(problems, errors.New("nobody leads"))...)
}

// standsBy waits until one of the two does, and both are ready.
func (s *story) standsBy(ctx context.Context) error {
	return until(ctx, "one leads and the other stands by", patience, func(ctx context.Context) (bool, error) {
		set, err := s.client.AppsV1().StatefulSets(world.Namespace).Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		holder, leader, err := s.leader(ctx)
		if err != nil {
			return false, err
		}
		other := pods[0]
		if other == leader {
			other = pods[1]
		}
		v, err := s.viewOf(ctx, other)
		return err == nil && v.StandingBy && v.Leader == holder && int(set.Status.ReadyReplicas) == len(pods),
			errors.Join(err, fmt.Errorf("%d are ready, %s stands by: %t, for %q", set.Status.ReadyReplicas, other, v.StandingBy, v.Leader))
	})
}

// leader is whom the lease names, and its pod.
func (s *story) leader(ctx context.Context) (holder, pod string, err error) {
	holder, err = s.run(ctx, "kubectl", "-n", world.Namespace, "get", "lease", release, "-o", "jsonpath={.spec.holderIdentity}")
	pod, _, named := strings.Cut(holder, "_")
	if err == nil && !named {
		err = fmt.Errorf("the lease is held by %q, want the name of a pod and more", holder)
	}
	return holder, pod, err
}

// takenOver has a job outlive an upgrade of both daemons, and then the one that
// leads, whose pod is lost with all that it had in memory.
func (s *story) takenOver(ctx context.Context) error {
	run, err := s.Deploy(world.Deploy("v3.0.0", "bob", "bob", time.Minute), "carol")
	if err != nil {
		return err
	}
	before, err := s.works(ctx, run)
	if err != nil {
		return err
	}
	s.pair.run = told{run, []string{"carol", "Outcome: succeeded", "terminated"}}
	if err := s.helm(ctx, "upgrade", "--set", "image.tag="+newVersion); err != nil {
		return err
	}
	if err := errors.Join(s.canDeploy(ctx, newVersion), s.standsBy(ctx)); err != nil {
		return err
	}
	holder, leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	if on, _ := s.World.GitHub.Job(run.JobID); on.Status != "in_progress" || on.RunnerName != string(before.Name) {
		return fmt.Errorf("after the upgrade GitHub says that the job is %s on %s, want it in progress on %s", on.Status, on.RunnerName, before.Name)
	}
	if _, err := s.run(ctx, "kubectl", "-n", world.Namespace, "delete", "pod", leader, "--force", "--grace-period=0"); err != nil {
		return err
	}
	began := time.Now()
	// It may be one of the same name: the pod is made anew at once.
	if err := until(ctx, "another daemon leads", patience, func(ctx context.Context) (bool, error) {
		v, err := s.leading(ctx)
		return err == nil && v.Leader != holder, err
	}); err != nil {
		return err
	}
	fmt.Printf("          another daemon leads after %.1f s\n", time.Since(began).Seconds())
	return errors.Join(s.ends(ctx, run), s.standsBy(ctx))
}

// uninstallPair looks for what is left: the volumes of what the daemons had not
// yet brought to S3, and the evidence of the first release.
func (s *story) uninstallPair(ctx context.Context) error {
	_, leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	if err := s.quiet(ctx, "pod/"+leader); err != nil {
		return err
	}
	if err := s.helm(ctx, "uninstall"); err != nil {
		return err
	}
	if _, err := s.run(ctx, "kubectl", "-n", world.Namespace, "delete", "lease", release); err != nil {
		return err
	}
	return s.nothingLeft(ctx, claims...)
}

// auditPair asks the bucket itself.
func (s *story) auditPair(ctx context.Context) error {
	root := s.file("pair-root.json")
	// It was published; here it is read from the volume of either daemon.
	content, err := s.in(ctx, controller, "sh", "-c", "for root in "+volumes+"/ledger-*/root.json; do cat \"$root\"; break; done")
	if err != nil {
		return err
	}
	if err := os.WriteFile(root, []byte(content), 0o600); err != nil {
		return err
	}
	return s.auditAt(ctx, []told{s.pair.run}, "--ledger", "s3://"+evidenceBucket+"/prod", "--view", "s3://"+viewBucket+"/prod",
		"--region", world.Region, "--endpoint", s.pair.endpoint, "--ca-file", s.File("tls/ca.pem"), "--bucket-owner", world.Account, "--root", root)
}
