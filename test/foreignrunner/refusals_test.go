package foreignrunner_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/test/foreignrunner"
)

func TestAJITConfigServesOneConnection(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		jit := w.jit("r1")
		w.connect(jit)
		again, err := foreignrunner.Configure(w.http, jit)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Authenticate(t.Context()); err != nil {
			t.Fatalf("Authenticate() = %v", err)
		}
		if err := again.CreateSession(t.Context()); !errors.Is(err, foreignrunner.ErrSessionConflict) {
			t.Errorf("a second CreateSession() = %v, want %v", err, foreignrunner.ErrSessionConflict)
		}
	})
}

func TestTheRunnersSignatureIsThatOfItsCredentials(t *testing.T) {
	bubble(t, simgithub.Config{PKCS1Runners: true}, func(t *testing.T, w *world) {
		jit := w.jit("r1")
		w.connect(jit)
		// The same key, with the padding that these credentials do not ask for.
		text, err := base64.StdEncoding.DecodeString(jit)
		if err != nil {
			t.Fatal(err)
		}
		var files map[string][]byte
		if err := json.Unmarshal(text, &files); err != nil {
			t.Fatal(err)
		}
		files[".credentials"] = bytes.Replace(files[".credentials"], []byte(`"False"`), []byte(`"True"`), 1)
		if text, err = json.Marshal(files); err != nil {
			t.Fatal(err)
		}
		other, err := foreignrunner.Configure(w.http, base64.StdEncoding.EncodeToString(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Authenticate(t.Context()); err == nil {
			t.Error("a signature with PSS is accepted from a runner whose credentials ask for PKCS #1")
		}
	})
}

// TestAGhostKeepsListening is the runner whose job went away between the offer
// and its acquisition: actions/runner Runner.cs goes on after a 404 or 409.
func TestAGhostKeepsListening(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		run := w.dispatch()
		r := w.connect(w.jit("r1"))
		o := w.offer(r)
		if err := w.sim.Cancel(run.ID); err != nil {
			t.Fatal(err)
		}
		if err := r.Acknowledge(t.Context(), o); !errors.Is(err, foreignrunner.ErrNothingToAck) {
			t.Errorf("Acknowledge() of a job that is gone = %v, want %v", err, foreignrunner.ErrNothingToAck)
		}
		if _, err := r.Acquire(t.Context(), o); !errors.Is(err, foreignrunner.ErrJobNotFound) {
			t.Errorf("Acquire() of a job that is gone = %v, want %v", err, foreignrunner.ErrJobNotFound)
		}
		if m, err := r.GetMessage(t.Context(), "Online"); m != nil || err != nil {
			t.Errorf("GetMessage() = %+v, %v, want no news after the hold", m, err)
		}
		w.call("DELETE", "/rest/_apis/distributedtask/pools/0/agents/11", w.admin, nil)
		if _, err := r.GetMessage(t.Context(), "Online"); !errors.Is(err, foreignrunner.ErrRunnerNotFound) {
			t.Errorf("GetMessage() of a removed runner = %v, want %v", err, foreignrunner.ErrRunnerNotFound)
		}
		if err := r.Authenticate(t.Context()); !errors.Is(err, foreignrunner.ErrInvalidClient) {
			t.Errorf("Authenticate() of a removed runner = %v, want %v", err, foreignrunner.ErrInvalidClient)
		}
	})
}

func TestAJobIsAcquiredOnceAndCancelledThroughItsRunner(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		run := w.dispatch()
		r := w.connect(w.jit("r1"))
		o := w.offer(r)
		j, err := r.Acquire(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Acquire(t.Context(), o); !errors.Is(err, foreignrunner.ErrAlreadyAcquired) {
			t.Errorf("a second Acquire() = %v, want %v", err, foreignrunner.ErrAlreadyAcquired)
		}
		if err := w.sim.Cancel(run.ID); err != nil {
			t.Fatal(err)
		}
		m, err := r.GetMessage(t.Context(), "Busy")
		if err != nil {
			t.Fatal(err)
		}
		if id, _, err := m.Cancellation(); id != j.ID || err != nil {
			t.Errorf("Cancellation() = %s, %v, want %s", id, err, j.ID)
		}
	})
}

// TestThePollBesideAJobOutlivesIt is how a runner waits for a cancellation while
// its worker reports the end.
func TestThePollBesideAJobOutlivesIt(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		run := w.dispatch()
		r := w.connect(w.jit("r1"))
		j := w.acquire(r)
		if err := w.sim.FinishJob(run.JobID, "success"); err == nil {
			t.Error("FinishJob() says that it reached a runner that does not know its message")
		}
		beside := make(chan error, 1)
		go func() {
			m, err := r.GetMessage(t.Context(), "Busy")
			if m != nil {
				err = fmt.Errorf("message %+v", m)
			}
			beside <- err
		}()
		synctest.Wait()
		if err := r.Complete(t.Context(), j, "succeeded"); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := <-beside; err != nil || time.Since(begin) != 50*time.Second {
			t.Errorf("the poll ended after %v with %v, want no news after its hold", time.Since(begin), err)
		}
		if _, err := r.GetMessage(t.Context(), "Online"); !errors.Is(err, foreignrunner.ErrRunnerNotFound) {
			t.Errorf("the next GetMessage() = %v, want %v", err, foreignrunner.ErrRunnerNotFound)
		}
	})
}

func TestARunnerOfAnOldVersionIsToldSo(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		r := w.connect(w.jit("r1"))
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultVersion, Path: "/broker/message"})
		if _, err := r.GetMessage(t.Context(), "Online"); !errors.Is(err, foreignrunner.ErrVersionTooOld) {
			t.Errorf("GetMessage() = %v, want %v", err, foreignrunner.ErrVersionTooOld)
		}
	})
}
