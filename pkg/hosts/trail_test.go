package hosts_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

const sessionARN = "arn:aws:sts::111122223333:assumed-role/runnerward/0b2f5c1e-pod-uid"

// TestEveryRequestLeavesItsTrail: one call makes three requests; each is named
// as CloudTrail names it, with who made it.
func TestEveryRequestLeavesItsTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		who := &caller{arn: sessionARN}
		driver := w.with(t, map[string]http.Handler{"sts": who}, nil)
		w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Throttle})
		w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.InProgress})
		before := time.Now()
		receipt, err := driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || len(receipt.Requests) != 3 {
			t.Fatalf("Terminate = %+v, %v, want three requests", receipt, err)
		}
		ids := map[string]bool{}
		for _, r := range w.sim.Requests() {
			ids[r.RequestID] = true
		}
		for i, want := range []string{"Throttling", "ScalingActivityInProgress", ""} {
			q := receipt.Requests[i]
			if q.Code != want || q.Call != "autoscaling:TerminateInstanceInAutoScalingGroup" || !ids[q.RequestID] ||
				q.AccessKeyID != keyID || q.Session != sessionARN || q.At.Before(before) || q.At.After(time.Now()) {
				t.Errorf("request %d = %+v, want %q by %s as %s with an id that the service gave", i, q, want, keyID, sessionARN)
			}
		}
		if _, err := driver.Terminate(t.Context(), w.sim.Instances()[1].ID, plainly); err != nil || who.asked != 1 {
			t.Errorf("STS was asked %d times (%v), want once for one key", who.asked, err)
		}
	})
}

// TestWhoWeAreNeverDelaysAnEnd: STS hangs, denies or says nonsense. The host
// ends, the session stays unknown, and STS is left in peace for a while.
func TestWhoWeAreNeverDelaysAnEnd(t *testing.T) {
	for name, sts := range map[string]http.Handler{
		"hangs":    http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"denies":   &caller{fails: 9},
		"nonsense": &caller{arn: "John Doe"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				driver := w.with(t, map[string]http.Handler{"sts": sts}, nil)
				began := time.Now()
				receipt, err := driver.Terminate(t.Context(), w.first.ID, plainly)
				if err != nil || len(receipt.Requests) != 1 || receipt.Requests[0].Session != "" || receipt.Requests[0].AccessKeyID != keyID {
					t.Errorf("Terminate = %+v, %v, want one request of the key with its session unknown", receipt, err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("Terminate took %s, want it not to wait for STS", took)
				}
				began = time.Now()
				if _, err := driver.Terminate(t.Context(), w.sim.Instances()[1].ID, plainly); err != nil || time.Since(began) > time.Second {
					t.Errorf("the next Terminate took %s, %v, want STS not to be asked again at once", time.Since(began), err)
				}
			})
		})
	}
}

// TestASessionIsThatOfItsKey: credentials are renewed between two calls.
func TestASessionIsThatOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		who := &caller{arn: sessionARN}
		key := keyID
		driver := w.with(t, map[string]http.Handler{"sts": who}, func(c *aws.Config, _ *hosts.Options) {
			c.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: key, SecretAccessKey: keySecret}, nil
			})
		})
		if _, err := driver.Preflight(t.Context()); err != nil {
			t.Fatal(err)
		}
		if who.asked != 1 {
			t.Errorf("STS was asked %d times by Preflight, want once, ahead of any end", who.asked)
		}
		// The simulator knows one key: the other is refused, and still recorded.
		key, who.arn = "AKIDRENEWED", sessionARN+"-2"
		receipt, err := driver.Terminate(t.Context(), w.first.ID, plainly)
		if err == nil {
			t.Fatal("the simulator took a key that it does not know")
		}
		if len(receipt.Requests) != 0 {
			t.Errorf("requests = %+v, want none: the look at the group was refused first", receipt.Requests)
		}
		key = keyID
		receipt, err = driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || receipt.Requests[0].Session != sessionARN {
			t.Errorf("Terminate = %+v, %v, want the first session %s for the first key", receipt, err, sessionARN)
		}
	})
}

// TestALostAnswerIsRecordedWithoutItsID: the request was made, whoever answers.
func TestALostAnswerIsRecordedWithoutItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Hang, After: true})
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || len(receipt.Requests) != 1 {
			t.Fatalf("Terminate = %+v, %v, want success with one request", receipt, err)
		}
		if q := receipt.Requests[0]; q.RequestID != "" || q.Code != "NoAnswer" || q.AccessKeyID != keyID {
			t.Errorf("request = %+v, want no id, NoAnswer, and the key", q)
		}
	})
}
