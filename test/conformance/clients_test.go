package conformance_test

import (
	"context"
	"net/http"
	"testing"

	upstream "github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/runnerward/runnerward/test/conformance"
)

func newPlain(_ *testing.T, to conformance.Target) conformance.Client { return conformance.NewRaw(to) }

func TestPlainHTTP(t *testing.T) { conformance.Run(t, conformance.Options{New: newPlain}) }

func TestOfficialClient(t *testing.T) { conformance.Run(t, conformance.Options{New: newOfficial}) }

func TestFaultsOverPlainHTTP(t *testing.T) {
	conformance.RunFaults(t, conformance.Options{New: newPlain})
}

func TestFaultsThroughTheOfficialClient(t *testing.T) {
	conformance.RunFaults(t, conformance.Options{New: newOfficial})
}

// official adapts github.com/actions/scaleset v0.4.0.
type official struct{ c *upstream.Client }

func newOfficial(t *testing.T, to conformance.Target) conformance.Client {
	t.Helper()
	rc := retryablehttp.NewClient()
	rc.Logger, rc.RetryMax = nil, 0
	transport := to.HTTP.Transport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	rc.HTTPClient = &http.Client{Transport: transport, Timeout: to.Timeout}
	c, err := upstream.NewClientWithPersonalAccessToken(upstream.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL: to.URL, PersonalAccessToken: to.Token,
	}, upstream.WithRetryableHTTPClint(rc))
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
	for _, j := range m.JobAvailableMessages {
		out.Available = append(out.Available, j.RunnerRequestID)
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

func (s session) Acquire(ctx context.Context, ids []int64) ([]int64, error) {
	return s.c.AcquireJobs(ctx, ids)
}

func (s session) Close(ctx context.Context) error { return s.c.Close(ctx) }
