package runner_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

var launched = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// goodHost is the good node on the good instance, as it would be claimed.
func goodHost() runner.Host {
	in := goodInstance()
	in.LaunchedAt = launched
	return runner.HostOf(goodNode(), &in, vetRules())
}

func goodIdentity() runner.HostIdentity {
	return runner.HostIdentity{
		Document: runner.DigestOf([]byte("document")), Signature: runner.DigestOf([]byte("signature")), Certificate: runner.DigestOf([]byte("certificate")),
		InstanceID: "i-0123456789abcdef0", AccountID: "111122223333", Region: "us-east-1", ImageID: "ami-1", InstanceType: "m6i.large",
		PrivateIP: "10.0.1.2", PendingTime: launched.Add(2 * time.Second), BootID: "boot", WitnessPod: "pod", SeenAt: launched.Add(time.Minute),
	}
}

func TestADocumentThatAgreesMakesTheHostL2(t *testing.T) {
	before := goodHost()
	h := before.WithIdentity(new(goodIdentity()), true)
	if h.Assurance != runner.L2 || h.Identity == nil || !runner.Vetted(h.Checks) || len(h.Checks) != len(before.Checks)+8 {
		t.Errorf("host = %+v, want it vetted at L2 with eight checks more", h)
	}
	if err := runner.Validate(h); err != nil {
		t.Errorf("Validate = %v", err)
	}
	if before.Identity != nil || before.Assurance != runner.L1 || slices.ContainsFunc(before.Checks, isIdentity) {
		t.Errorf("the host that it was made of changed: %+v", before)
	}
}

func isIdentity(c runner.Check) bool { return strings.HasPrefix(c.Name, "identity.") }

func TestAnAbsentDocumentIsAbsent(t *testing.T) {
	for _, required := range []bool{false, true} {
		h := goodHost().WithIdentity(nil, required)
		unknown := slices.Contains(h.Checks, runner.Check{Name: "identity.document", Verdict: runner.Unknown})
		if h.Assurance != runner.L1 || h.Identity != nil || unknown != required || runner.Vetted(h.Checks) == required {
			t.Errorf("required %t: host = %+v, want L1, and vetted only if no document is required", required, h)
		}
		b, err := json.Marshal(h)
		if err != nil || strings.Contains(string(b), `"identity"`) {
			t.Errorf("JSON = %s, %v, want no identity in it", b, err)
		}
	}
}

func TestADocumentThatDisagreesFailsTheHost(t *testing.T) {
	for what, tc := range map[string]struct {
		change func(*runner.Host, *runner.HostIdentity)
		check  string
		want   runner.Verdict
	}{
		"another instance":           {func(_ *runner.Host, id *runner.HostIdentity) { id.InstanceID = "i-0fffffffffffffff0" }, "identity.instance", runner.Fail},
		"EC2 described another":      {func(h *runner.Host, _ *runner.HostIdentity) { h.InstanceID = "i-0fffffffffffffff0" }, "identity.instance", runner.Fail},
		"the node names no instance": {func(h *runner.Host, _ *runner.HostIdentity) { h.ProviderID = "" }, "identity.instance", runner.Unknown},
		"another account":            {func(_ *runner.Host, id *runner.HostIdentity) { id.AccountID = "999999999999" }, "identity.account", runner.Fail},
		"another region":             {func(_ *runner.Host, id *runner.HostIdentity) { id.Region = "us-west-2" }, "identity.region", runner.Fail},
		"another image":              {func(_ *runner.Host, id *runner.HostIdentity) { id.ImageID = "ami-2" }, "identity.image", runner.Fail},
		"another address":            {func(_ *runner.Host, id *runner.HostIdentity) { id.PrivateIP = "10.0.9.9" }, "identity.address", runner.Fail},
		"no address":                 {func(_ *runner.Host, id *runner.HostIdentity) { id.PrivateIP = "" }, "identity.address", runner.Unknown},
		"an earlier launch": {func(_ *runner.Host, id *runner.HostIdentity) {
			id.PendingTime = launched.Add(-5*time.Minute - time.Second)
		}, "identity.pendingTime", runner.Fail},
		"a later launch": {func(_ *runner.Host, id *runner.HostIdentity) {
			id.PendingTime = launched.Add(5*time.Minute + time.Second)
		}, "identity.pendingTime", runner.Fail},
		"EC2 told no launch":     {func(h *runner.Host, _ *runner.HostIdentity) { h.LaunchedAt = time.Time{} }, "identity.pendingTime", runner.Unknown},
		"another boot":           {func(_ *runner.Host, id *runner.HostIdentity) { id.BootID = "boot-2" }, "identity.bootId", runner.Fail},
		"the cloud said nothing": {func(h *runner.Host, _ *runner.HostIdentity) { *h = runner.HostOf(goodNode(), nil, vetRules()) }, "identity.account", runner.Unknown},
	} {
		t.Run(what, func(t *testing.T) {
			h, id := goodHost(), goodIdentity()
			tc.change(&h, &id)
			got := h.WithIdentity(&id, false)
			if got.Assurance == runner.L2 || runner.Vetted(got.Checks) || !slices.Contains(got.Checks, runner.Check{Name: tc.check, Verdict: tc.want}) {
				t.Errorf("host at %s, checks %v, want it not vetted because %s says %s", got.Assurance, got.Checks, tc.check, tc.want)
			}
		})
	}
	edge := goodIdentity()
	edge.PendingTime = launched.Add(5 * time.Minute)
	if h := goodHost().WithIdentity(&edge, false); h.Assurance != runner.L2 {
		t.Errorf("five minutes apart: %s, want L2", h.Assurance)
	}
}

// A record may not say more of its host than it shows, whoever signed it.
func TestAClaimHoldsItsLevel(t *testing.T) {
	for what, tc := range map[string]struct {
		change func(*runner.Host)
		ok     bool
	}{
		"L1 without a document":            {func(*runner.Host) {}, true},
		"L2 with a document":               {func(h *runner.Host) { *h = identified(*h) }, true},
		"L2 without a document":            {func(h *runner.Host) { h.Assurance = runner.L2 }, false},
		"L1 with a document":               {func(h *runner.Host) { *h = identified(*h); h.Assurance = runner.L1 }, false},
		"L3":                               {func(h *runner.Host) { *h = identified(*h); h.Assurance = "L3" }, false},
		"no level":                         {func(h *runner.Host) { h.Assurance = "" }, false},
		"a document of another instance":   {func(h *runner.Host) { *h = identified(*h); h.Identity.InstanceID = "i-0fffffffffffffff0" }, false},
		"a document of another boot":       {func(h *runner.Host) { *h = identified(*h); h.Identity.BootID = "boot-2" }, false},
		"L2 that lists no check of it":     {func(h *runner.Host) { *h = identified(*h); h.Checks = slices.DeleteFunc(h.Checks, isIdentity) }, false},
		"L2 that lists a check less of it": {func(h *runner.Host) { *h = identified(*h); h.Checks = h.Checks[:len(h.Checks)-1] }, false},
	} {
		t.Run(what, func(t *testing.T) {
			s, c := runnertest.NewScript(runnertest.Memory(), nil), runnertest.NewCast(0)
			if err := s.Tell(c, runnertest.Upto(runnertest.CompletedStory(), runner.KindAuthorized)); err != nil {
				t.Fatal(err)
			}
			tc.change(&c.Host)
			e, err := s.Next(c, runner.KindClaimed)
			if err != nil {
				t.Fatal(err)
			}
			err = s.State.Check(e, s.Now)
			if tc.ok && err != nil {
				t.Errorf("Check = %v, want nil", err)
			}
			if broken, ok := errors.AsType[*runner.Violation](err); !tc.ok && (!ok || broken.Invariant != 10 || broken.Rule != "assurance") {
				t.Errorf("Check = %v, want invariant 10 (assurance)", err)
			}
		})
	}
}

func identified(h runner.Host) runner.Host {
	c := runnertest.Cast{Host: h}
	return c.Identified([]byte("document"), []byte("signature"), []byte("certificate")).Host
}

func TestTheSealedStatementTellsTheLevel(t *testing.T) {
	for _, want := range []runner.Assurance{runner.L1, runner.L2} {
		s, c := runnertest.NewScript(runnertest.Memory(), nil), runnertest.NewCast(0)
		if want == runner.L2 {
			c.Host = identified(c.Host)
		}
		if err := s.Tell(c, runnertest.CompletedStory()); err != nil {
			t.Fatal(err)
		}
		seal := s.State.Seal(c.Runner)
		if seal.Assurance.Host != want || (seal.Host.Identity != nil) != (want == runner.L2) {
			t.Errorf("sealed with %s and identity %v, want %s", seal.Assurance.Host, seal.Host.Identity, want)
		}
	}
}
