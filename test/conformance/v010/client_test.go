// Package v010 holds the simulator to the rules of test/conformance through the
// first published version of the official client. It is a module of its own,
// because a module has one version of another.
package v010_test

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/test/conformance"
)

func TestOfficialClient(t *testing.T) {
	conformance.Run(t, conformance.Options{New: newOfficial, Sockets: true})
}

func TestFaultsThroughTheOfficialClient(t *testing.T) {
	conformance.RunFaults(t, conformance.Options{New: newOfficial, Sockets: true})
}

// official adapts github.com/actions/scaleset v0.1.0.
type official struct{ c *upstream.Client }

func newOfficial(t *testing.T, to conformance.Target) conformance.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(to.RootsPEM) {
		t.Fatal("the target has no certificate")
	}
	c, err := upstream.NewClientWithPersonalAccessToken(upstream.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL: to.URL, PersonalAccessToken: to.Token,
	}, upstream.WithRootCAs(roots), upstream.WithRetryMax(0), upstream.WithRetryWaitMax(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return official{c}
}

func (o official) GroupID(ctx context.Context, name string) (int, error) {
	g, err := o.c.GetRunnerGroupByName(ctx, name)
	if err != nil {
		return 0, err
	}
	return g.ID, nil
}

func setOf(s *upstream.RunnerScaleSet) *conformance.Set {
	if s == nil {
		return nil
	}
	out := &conformance.Set{ID: s.ID, GroupID: s.RunnerGroupID, Name: s.Name}
	for _, l := range s.Labels {
		out.Labels = append(out.Labels, l.Name)
	}
	return out
}

func (o official) FindSet(ctx context.Context, group int, name string) (*conformance.Set, error) {
	s, err := o.c.GetRunnerScaleSet(ctx, group, name)
	return setOf(s), err
}

func (o official) CreateSet(ctx context.Context, set conformance.Set) (*conformance.Set, error) {
	in := &upstream.RunnerScaleSet{Name: set.Name, RunnerGroupID: set.GroupID, RunnerSetting: upstream.RunnerSetting{DisableUpdate: true}}
	for _, name := range set.Labels {
		in.Labels = append(in.Labels, upstream.Label{Type: "System", Name: name})
	}
	s, err := o.c.CreateRunnerScaleSet(ctx, in)
	return setOf(s), err
}

func (o official) DeleteSet(ctx context.Context, id int) error {
	return o.c.DeleteRunnerScaleSet(ctx, id)
}

func (o official) Register(ctx context.Context, set int, name string) (conformance.Registration, error) {
	jit, err := o.c.GenerateJitRunnerConfig(ctx, &upstream.RunnerScaleSetJitRunnerSetting{Name: name, WorkFolder: "_work"}, set)
	if err != nil {
		return conformance.Registration{}, err
	}
	return conformance.Registration{ID: jit.Runner.ID, Encoded: jit.EncodedJITConfig}, nil
}

func (o official) FindRunner(ctx context.Context, name string) (int, error) {
	r, err := o.c.GetRunnerByName(ctx, name)
	if err != nil || r == nil {
		return 0, err
	}
	return r.ID, nil
}

func (o official) RemoveRunner(ctx context.Context, id int) error {
	return o.c.RemoveRunner(ctx, int64(id))
}

func (o official) Open(ctx context.Context, set int, owner string) (conformance.Session, error) {
	s, err := o.c.MessageSessionClient(ctx, set, owner)
	if err != nil {
		return nil, err
	}
	return session{s}, nil
}

type session struct {
	c *upstream.MessageSessionClient
}

func (s session) Poll(ctx context.Context, last, capacity int) (*conformance.Message, error) {
	m, err := s.c.GetMessage(ctx, last, capacity)
	if err != nil || m == nil {
		return nil, err
	}
	out := &conformance.Message{ID: m.MessageID, NoStatistics: m.Statistics == nil}
	if s := m.Statistics; s != nil {
		out.TotalAssigned, out.TotalRunning, out.TotalIdle = s.TotalAssignedJobs, s.TotalRunningJobs, s.TotalIdleRunners
	}
	for _, j := range m.JobAssignedMessages {
		out.Assigned = append(out.Assigned, j.JobID)
	}
	for _, j := range m.JobStartedMessages {
		out.Started = append(out.Started, j.JobID)
	}
	for _, j := range m.JobCompletedMessages {
		out.Completed = append(out.Completed, j.JobID)
	}
	return out, nil
}

func (s session) Acknowledge(ctx context.Context, id int) error { return s.c.DeleteMessage(ctx, id) }

func (s session) Close(ctx context.Context) error { return s.c.Close(ctx) }
