// Package leader plays what may befall the leader of two daemons: it ends, is
// killed, is stopped and goes on, loses the API server. Two processes of the
// production binary run on one ledger, and the scenarios are the same against a
// pretend cluster and a real one.
package leader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// The lease of the scenarios is shorter than in production, and long enough for
// a machine that does much else.
const (
	leaseDuration = 8 * time.Second
	renewDeadline = 5 * time.Second
	retryPeriod   = time.Second
	// patience bounds every wait.
	patience = 90 * time.Second
)

// Pair is two daemons on one ledger.
type Pair struct {
	*stage.Stage
	t       testing.TB
	daemons []*Daemon
}

// Daemon is one of them.
type Daemon struct {
	*stage.Daemon
	name string
	api  *Wire // to the API server
}

// Names are what the two are called.
var Names = [2]string{"one", "two"}

// Options say how a [Pair] reaches the API server: its address, and a
// kubeconfig of each daemon by its name, for another URL of it.
type Options struct {
	API        string
	Kubeconfig func(name, url string) []byte
	// Change changes the configuration of both; it may be nil.
	Change func(stage.Config)
}

// NewPair starts two daemons on this stage. Agents reach them through one
// address, as through a Service.
func NewPair(t testing.TB, s *stage.Stage, opts Options) *Pair {
	t.Helper()
	p := &Pair{Stage: s, t: t}
	service, err := NewWire()
	p.must(err)
	t.Cleanup(func() { p.check(service.Close()) })
	for _, name := range Names {
		wire, err := NewWire(opts.API)
		p.must(err)
		t.Cleanup(func() { p.check(wire.Close()) })
		p.must(os.WriteFile(s.File(name+".kubeconfig"), opts.Kubeconfig(name, "https://"+wire.Address()), 0o600))
		d, err := s.NewDaemon(name, func(c stage.Config) {
			c.Set("cluster.kubeconfigFile", s.File(name+".kubeconfig"))
			c.Set("cluster.admissionURL", "https://"+service.Address())
			c.Set("supervisor.leaderElection.enabled", true)
			c.Set("supervisor.leaderElection.leaseDuration", leaseDuration.String())
			c.Set("supervisor.leaderElection.renewDeadline", renewDeadline.String())
			c.Set("supervisor.leaderElection.retryPeriod", retryPeriod.String())
			if opts.Change != nil {
				opts.Change(c)
			}
		})
		p.must(err)
		service.To(d.Admission)
		p.must(d.Start())
		p.daemons = append(p.daemons, &Daemon{d, name, wire})
	}
	s.Ask = p.ask
	return p
}

func (p *Pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *Pair) check(err error) {
	if err != nil {
		p.t.Error(err)
	}
}

// until polls a condition, and shows both daemons' logs when it never holds.
func (p *Pair) until(what string, limit time.Duration, ok func() bool) {
	p.t.Helper()
	err := p.Until(p.t.Context(), what, limit, func() (bool, error) { return ok(), nil })
	if err != nil {
		p.t.Fatal(errors.Join(err, p.tails()))
	}
}

func (p *Pair) tails() error {
	var all []error
	for _, d := range p.daemons {
		content, err := os.ReadFile(d.Log)
		const most = 6 << 10
		all = append(all, fmt.Errorf("log of %s, %v:\n%s", d.name, err, bytes.ToValidUTF8(content[max(0, len(content)-most):], nil)))
	}
	return errors.Join(all...)
}

// ask is the view of the one that leads.
func (p *Pair) ask(ctx context.Context) (supervisor.View, error) {
	var problems []error
	for _, d := range p.daemons {
		v, err := d.view(ctx)
		if err == nil && v.Leading {
			return v, nil
		}
		problems = append(problems, err)
	}
	return supervisor.View{}, errors.Join(append(problems, errors.New("nobody leads"))...)
}

// view does not wait for a daemon that is stopped.
func (d *Daemon) view(ctx context.Context) (supervisor.View, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return d.View(ctx)
}

// leads waits until this daemon leads and serves, the other standing by.
func (p *Pair) leads(d *Daemon) {
	p.t.Helper()
	p.until(d.name+" leads and has the queue", patience, func() bool {
		v, err := d.view(p.t.Context())
		return err == nil && v.Leading && v.Queue.Session == "open"
	})
}

// roles waits until one leads with a host to give, and says which.
func (p *Pair) roles() (leader, standby *Daemon) {
	p.t.Helper()
	p.until("one leads and can deploy, the other stands by", patience, func() bool {
		leader, standby = nil, nil
		for _, d := range p.daemons {
			switch v, err := d.view(p.t.Context()); {
			case err != nil:
			case v.Leading && v.CanDeploy:
				leader = d
			case v.StandingBy && v.Leader != "" && v.Checks[0].OK:
				standby = d
			}
		}
		return leader != nil && standby != nil
	})
	return leader, standby
}

// standsBy starts a daemon that ended, and waits until it stands by.
func (p *Pair) standsBy(d *Daemon) {
	p.t.Helper()
	p.must(d.Start())
	p.Ask = p.ask // starting a daemon sets it
	p.until(d.name+" stands by", patience, func() bool {
		v, err := d.view(p.t.Context())
		return err == nil && v.StandingBy && v.Leader != ""
	})
	if out, code, err := p.CLI(p.t.Context(), "status", "--url", d.StatusURL, "--ca", p.File("tls/ca.pem")); err != nil || code != 4 || !strings.Contains(string(out), "Only the leader knows.") {
		p.t.Errorf("status of a standby exits %d: %s, %v", code, out, err)
	}
}

// running starts a deploy and waits until its job runs on its host.
func (p *Pair) running(tag string, lasts time.Duration) simgithub.Run {
	p.t.Helper()
	run, err := p.Deploy(world.Deploy(tag, "bob", "bob", lasts), "carol")
	p.must(err)
	p.until("the job of "+tag+" runs", patience, func() bool {
		job, _ := p.World.GitHub.Job(run.JobID)
		return job.HookSucceeded
	})
	return run
}

// sealed waits until the job is sealed, and asks GitHub and EC2 how it ended.
func (p *Pair) sealed(run simgithub.Run) {
	p.t.Helper()
	if _, err := p.Ends(p.t.Context(), run, patience); err != nil {
		p.t.Fatal(errors.Join(err, p.tails()))
	}
}

// ends waits until a daemon has ended by itself, which is no orderly end, and
// wants one of these words in its log.
func (p *Pair) ends(d *Daemon, limit time.Duration, words ...string) {
	p.t.Helper()
	select {
	case <-d.Ended():
	case <-time.After(limit):
		p.t.Fatal(errors.Join(fmt.Errorf("%s does not end within %s", d.name, limit), p.tails()))
	}
	if d.Err() == nil {
		p.t.Errorf("%s ends as if all was well", d.name)
	}
	log, err := os.ReadFile(d.Log)
	p.must(err)
	for _, word := range words {
		if bytes.Contains(log, []byte(word)) {
			return
		}
	}
	p.t.Errorf("the log of %s has none of %q\n%v", d.name, words, p.tails())
}

// wait lets time pass in a daemon's life that no condition marks: that nothing
// happens in it is what is looked for.
func (p *Pair) wait(d time.Duration) {
	p.t.Helper()
	select {
	case <-time.After(d):
	case <-p.t.Context().Done():
		p.t.Fatal(context.Cause(p.t.Context()))
	}
}

// done looks at the whole: the ledger is clean, each of its records was written
// by one daemon, each host served one runner, and nothing is left over.
func (p *Pair) done(runs ...simgithub.Run) {
	p.t.Helper()
	for _, run := range runs {
		p.sealed(run)
	}
	p.until("no registration is left over", patience, func() bool { return len(p.World.GitHub.Runners()) == 0 })
	v, err := p.ask(p.t.Context())
	p.must(err)
	used := map[string]runner.Name{}
	for _, r := range v.Runners {
		if other, twice := used[r.Instance]; twice {
			p.t.Errorf("host %s served %s and %s", r.Instance, other, r.Name)
		}
		used[r.Instance] = r.Name
	}
	if len(v.Strays) > 0 {
		p.t.Errorf("strays: %+v", v.Strays)
	}
	p.writers()
	for _, d := range p.daemons {
		if err := d.End(); err != nil {
			p.t.Errorf("end %s: %v", d.name, err)
		}
	}
	p.check(p.Verify(p.t.Context()))
}

// writers compares what the daemons say to have written: no place of the log
// was written by both.
func (p *Pair) writers() {
	p.t.Helper()
	by := map[uint64]string{}
	terms := 0
	for _, d := range p.daemons {
		for _, rec := range d.records(p.t) {
			if other, twice := by[rec.Index]; twice {
				p.t.Errorf("record %d was written by %s and %s", rec.Index, other, d.name)
			}
			by[rec.Index] = d.name
			if rec.Kind == string(runner.KindOpened) {
				terms++
			}
		}
	}
	if terms < 2 {
		p.t.Errorf("%d daemons wrote to the log: nobody took over", terms)
	}
	p.t.Logf("%d records, %d terms", len(by), terms)
}

// line is one that a daemon logs of a record.
type line struct {
	Msg, Kind string
	Index     uint64
}

func (d *Daemon) records(t testing.TB) (all []line) {
	t.Helper()
	content, err := os.ReadFile(d.Log)
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(content) {
		var l line
		if json.Unmarshal(text, &l) == nil && l.Msg == "recorded" {
			all = append(all, l)
		}
	}
	return all
}

// Build builds the daemon.
func Build(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "runnerward")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/runnerward/runnerward/cmd/runnerward").CombinedOutput(); err != nil {
		t.Fatalf("build the daemon: %v\n%s", err, out)
	}
	return binary
}
