package evidence_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// TestGenuineSignaturesDoNotHideABrokenInvariant writes what a daemon that
// misbehaves would sign, and wants the verifier to name the invariant and the
// record.
func TestGenuineSignaturesDoNotHideABrokenInvariant(t *testing.T) {
	cast, other := runnertest.NewCast(0), runnertest.NewCast(1)
	completed := runnertest.CompletedStory()
	type next = func(s *runnertest.Script) (runner.Event, error)
	plain := func(c runnertest.Cast, k runner.Kind) next {
		return func(s *runnertest.Script) (runner.Event, error) { return s.Next(c, k) }
	}
	changed := func(c runnertest.Cast, k runner.Kind, change func(runner.Event) runner.Event) next {
		return func(s *runnertest.Script) (runner.Event, error) {
			e, err := s.Next(c, k)
			return change(e), err
		}
	}
	cases := map[string]struct {
		before    []runner.Kind // of cast
		also      []runner.Kind // of other
		wrong     next
		invariant int
		rule      string
	}{
		"a host serves a second runner": {completed, runnertest.Upto(completed, runner.KindAuthorized),
			changed(other, runner.KindClaimed, func(e runner.Event) runner.Event {
				c := e.(runner.Claimed)
				c.Host = cast.Host
				return c
			}), 2, "host-reused"},
		"a node that booted before comes back as another instance": {completed, runnertest.Upto(completed, runner.KindAuthorized),
			changed(other, runner.KindClaimed, func(e runner.Event) runner.Event {
				c := e.(runner.Claimed)
				c.Host.BootID = cast.Host.BootID
				return c
			}), 2, "host-reused"},
		"sealed before the host was seen gone": {runnertest.Upto(completed, runner.KindTeardown), nil,
			changed(cast, runner.KindSealed, func(runner.Event) runner.Event {
				return runner.Sealed{
					Runner: cast.Runner, Outcome: runner.OutcomeCompleted,
					Assurance: runner.Levels{Host: runner.L1, Pod: runner.L1, Job: runner.L1}, Host: cast.Host,
					Teardown: runner.Gone{
						InstanceID: cast.Host.InstanceID, State: "terminated",
						Volumes: cast.Host.Volumes, Record: runner.DigestOf(nil),
					},
					Events: runner.ChainSeal{Head: runner.DigestOf(nil)},
				}
			}), 4, "sealed-alive"},
		"a volume was left": {runnertest.Upto(completed, runner.KindTeardown), nil,
			changed(cast, runner.KindTerminated, func(e runner.Event) runner.Event {
				gone := e.(runner.Terminated)
				gone.VolumesGone = nil
				return gone
			}), 4, "volume-left"},
		"the sealed statement says something else": {runnertest.Upto(completed, runner.KindTerminated), nil,
			changed(cast, runner.KindSealed, func(e runner.Event) runner.Event {
				seal := e.(runner.Sealed)
				seal.Job.Facts.Approvals = nil
				return seal
			}), 4, "seal-content"},
		"a denied job starts": {runnertest.Upto(completed, runner.KindReleased), runnertest.DeniedStory(),
			changed(cast, runner.KindStarted, func(e runner.Event) runner.Event {
				started := e.(runner.Started)
				started.Job = other.Job
				return started
			}), 3, "unauthorized"},
		"released before bound": {runnertest.Upto(completed, runner.KindClaimed), nil,
			plain(cast, runner.KindReleased), 1, "unbound"},
		"claimed before authorized": {runnertest.Upto(completed, runner.KindOffered), nil,
			plain(cast, runner.KindClaimed), 1, "unauthorized"},
		"a second job on a runner": {runnertest.Upto(completed, runner.KindStarted), runnertest.Upto(completed, runner.KindAuthorized),
			changed(cast, runner.KindStarted, func(e runner.Event) runner.Event {
				started := e.(runner.Started)
				started.Job = other.Job
				return started
			}), 3, "second-job"},
		"authorized against the policy": {runnertest.Upto(completed, runner.KindOffered), nil,
			changed(cast, runner.KindAuthorized, func(e runner.Event) runner.Event {
				a := e.(runner.Authorized)
				a.Decision.Reasons = []string{"approval-missing"}
				return a
			}), 1, "decision"},
		"a fact said twice": {runnertest.Upto(completed, runner.KindOffered), nil,
			plain(cast, runner.KindOffered), 5, "recorded-twice"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			s := f.script()
			if err := s.Tell(cast, tc.before); err != nil {
				t.Fatal(err)
			}
			if err := s.Tell(other, tc.also); err != nil {
				t.Fatal(err)
			}
			e, err := tc.wrong(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, refused, err := s.Say(e); err != nil || refused == nil {
				t.Fatalf("Say = %v, %v, want it appended and refused by the fold", refused, err)
			}
			rep := verify(t, f.publish().files, f.root)
			got := wantFinding(t, rep, tc.invariant, tc.rule)
			at := int64(len(s.Records) - 1)
			if got.Record != at || got.File != evidence.SegmentName(uint64(at)) || len(rep.Findings) != 1 {
				t.Errorf("findings = %v, want one, at record %d", rep.Findings, at)
			}
			if rep.Folded != uint64(at) {
				t.Errorf("folded = %d, want the fold to stop at %d", rep.Folded, at)
			}
		})
	}
}

func TestAClockThatGoesBackIsFound(t *testing.T) {
	f := newForge(t)
	for _, at := range []time.Duration{time.Hour, 0} {
		if _, err := f.append(runnertest.Start().Add(at), runner.Heartbeat{}); err != nil {
			t.Fatal(err)
		}
	}
	wantFinding(t, verify(t, f.files, f.root), 8, "clock")
}

// TestARecordThatIsSignedAndWrongIsFound changes what is inside an envelope
// and signs it again with the genuine key.
func TestARecordThatIsSignedAndWrongIsFound(t *testing.T) {
	set := func(key string, value any) func(st, p map[string]any) {
		return func(st, p map[string]any) {
			if _, ok := st[key]; ok {
				st[key] = value
				return
			}
			p[key] = value
		}
	}
	cases := map[string]struct {
		edit      func(st, p map[string]any)
		invariant int
		rule      string
	}{
		"the statement is of another type":  {set("_type", "https://in-toto.io/Statement/v0.1"), 7, "statement-type"},
		"the predicate is of another type":  {set("predicateType", evidence.JobToHostType), 7, "predicate-type"},
		"the subject is another job":        {set("subject", []any{map[string]any{"name": "x", "digest": map[string]any{"sha256": "00"}}}), 7, "subject"},
		"there is no subject":               {set("subject", nil), 7, "subject"},
		"the number in the chain is wrong":  {set("seq", 7), 7, "chain-seq"},
		"the previous record is another":    {set("prev", string(runner.DigestOf([]byte("x")))), 7, "chain-prev"},
		"the chain is another":              {set("chain", "runner/other"), 7, "chain"},
		"the time is not in UTC":            {set("observedAt", "2026-03-02T10:00:01+01:00"), 7, "time"},
		"the kind is unknown":               {set("event", "exploded"), 9, "closed-fields"},
		"the event holds free text":         {func(_, p map[string]any) { p["detail"].(map[string]any)["repository"] = "patient Jane Doe" }, 9, "closed-fields"},
		"the event holds a credential":      {func(_, p map[string]any) { p["detail"].(map[string]any)["labels"] = []any{"ghp_abcdef0123"} }, 9, "closed-fields"},
		"the time is before the key's time": {set("observedAt", "2026-03-01T00:00:00Z"), 7, "key-validity"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			donor := told(t, runnertest.Upto(runnertest.CompletedStory(), runner.KindOffered))
			entries, err := evidence.Entries(donor.files[evidence.SegmentName(0)].Data)
			if err != nil {
				t.Fatal(err)
			}
			f := newForge(t)
			f.commit(f.reseal(entries[0], tc.edit))
			got := wantFinding(t, verify(t, f.files, f.root), tc.invariant, tc.rule)
			if got.Record != 0 || got.File != evidence.SegmentName(0) {
				t.Errorf("finding = %v, want it at record 0", got)
			}
		})
	}
}

func TestAnEnvelopeThatIsNotOursIsFound(t *testing.T) {
	f := newForge(t)
	payload, _, err := f.chains.Statement(recorder(), runnertest.Start(), runner.Heartbeat{})
	if err != nil {
		t.Fatal(err)
	}
	stranger := newSigner(t)
	good, err := evidence.Sign(t.Context(), f.record, payload)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := evidence.Sign(t.Context(), stranger, payload)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(b []byte, change func(*evidence.Envelope)) []byte {
		var env evidence.Envelope
		if err := json.Unmarshal(b, &env); err != nil {
			t.Fatal(err)
		}
		change(&env)
		out, err := json.Marshal(env)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, tc := range map[string]struct {
		envelope  []byte
		invariant int
		rule      string
	}{
		"signed by a key that the root does not name": {foreign, 7, "key"},
		"signed by a stranger in our key's name": {edit(foreign, func(e *evidence.Envelope) {
			e.Signatures[0].KeyID = f.record.id
		}), 7, "signature"},
		"of another payload type": {edit(good, func(e *evidence.Envelope) { e.PayloadType = "text/plain" }), 7, "payload-type"},
		"with a second signature": {edit(good, func(e *evidence.Envelope) {
			e.Signatures = append(e.Signatures, e.Signatures[0])
		}), 7, "envelope"},
		"without a signature":     {edit(good, func(e *evidence.Envelope) { e.Signatures = nil }), 7, "envelope"},
		"with a field more":       {[]byte(strings.Replace(string(good), "{", `{"x":1,`, 1)), 7, "envelope"},
		"with white space":        {append([]byte(" "), good...), 7, "envelope"},
		"with a broken payload":   {edit(good, func(e *evidence.Envelope) { e.Payload = "*" }), 7, "envelope"},
		"that is no JSON":         {[]byte("x"), 7, "envelope"},
		"that is larger than any": {[]byte(strings.Repeat("x", evidence.MaxEnvelope+1)), 9, "size"},
		"with another payload": {edit(good, func(e *evidence.Envelope) {
			e.Payload = base64.StdEncoding.EncodeToString([]byte("{}"))
		}), 7, "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newForge(t)
			g.root.RecordKeys = f.root.RecordKeys
			g.commit(tc.envelope)
			wantFinding(t, verify(t, g.files, g.root), tc.invariant, tc.rule)
		})
	}
}

func TestAnEnvelopeOverTheLimitIsNotSigned(t *testing.T) {
	_, err := evidence.Sign(t.Context(), newSigner(t), make([]byte, evidence.MaxEnvelope))
	if err == nil || !strings.Contains(err.Error(), "exceeds the limit of 32768") {
		t.Errorf("Sign of a large payload = %v, want the limit", err)
	}
}

func TestAnAttachmentThatIsMissingOrChangedIsFound(t *testing.T) {
	f := told(t, runnertest.RefusedStory())
	blobs := names(f.files, evidence.BlobFolder)
	if len(blobs) != 3 {
		t.Fatalf("blobs = %q, want the inputs of two decisions and their policy", blobs)
	}
	for _, name := range blobs {
		files := f.copy()
		delete(files, name)
		if got := wantFinding(t, verify(t, files, f.root), 10, "blob-missing"); got.File != name || got.Record < 0 {
			t.Errorf("finding = %v, want record and file %s", got, name)
		}
		files = f.copy()
		files[name].Data = []byte("{}")
		if got := wantFinding(t, verify(t, files, f.root), 10, "blob-digest"); got.File != name || got.Record < 0 {
			t.Errorf("finding = %v, want record and file %s", got, name)
		}
	}
}

// TestWhatWasInEffectIsPartOfTheLedger: configuration, policy and keys.
func TestWhatWasInEffectIsPartOfTheLedger(t *testing.T) {
	f := newForge(t)
	if err := f.script().Open(); err != nil {
		t.Fatal(err)
	}
	blobs := names(f.files, evidence.BlobFolder)
	if rep := verify(t, f.files, f.root); len(blobs) != 3 || !rep.OK() || len(rep.Notes) != 1 {
		t.Fatalf("blobs = %q, findings %v, notes %v, want three and only that there is no view", blobs, rep.Findings, rep.Notes)
	}
	for _, name := range blobs {
		files := f.copy()
		delete(files, name)
		if got := wantFinding(t, verify(t, files, f.root), 10, "blob-missing"); got.File != name || got.Record != 0 {
			t.Errorf("finding = %v, want record 0 and file %s", got, name)
		}
	}
}

func TestSilenceNeedsAGapRecord(t *testing.T) {
	start := runnertest.Start()
	late := start.Add(3 * time.Hour)
	gap := runner.Gap{Since: start, Until: late}
	opened := runner.Opened{}
	for name, tc := range map[string]struct {
		after []runner.Event
		at    time.Time
		want  bool
	}{
		"just short enough":          {[]runner.Event{runner.Heartbeat{}}, start.Add(evidence.MaxSilence), true},
		"too long":                   {[]runner.Event{runner.Heartbeat{}}, late, false},
		"explained":                  {[]runner.Event{gap}, late, true},
		"explained after an opening": {[]runner.Event{opened, gap}, late, true},
		"opened, and not explained":  {[]runner.Event{opened, runner.Heartbeat{}}, late, false},
		"explained too late":         {[]runner.Event{runner.Heartbeat{}, gap}, late, false},
		"a gap of another time":      {[]runner.Event{runner.Gap{Since: late, Until: late}}, late, false},
	} {
		f := newForge(t)
		for i, e := range append([]runner.Event{runner.Heartbeat{}}, tc.after...) {
			at := start
			if i > 0 {
				at = tc.at
			}
			if _, opens := e.(runner.Opened); opens {
				root, err := f.putBlob(encoded(t, f.root))
				if err != nil {
					t.Fatal(err)
				}
				e = f.opened(root)
			}
			if _, err := f.append(at, e); err != nil {
				t.Fatal(err)
			}
		}
		rep := verify(t, f.files, f.root)
		if rep.OK() != tc.want {
			t.Errorf("silence %s: findings = %v, want clean %t", name, rep.Findings, tc.want)
		}
		if !tc.want {
			wantFinding(t, rep, 7, "silence")
		}
	}
}

func TestAReportListsSeveralFindings(t *testing.T) {
	f := told(t, runnertest.CompletedStory())
	files := f.copy()
	files[evidence.SegmentName(2)].Data[100] ^= 1
	delete(files, names(files, evidence.BlobFolder)[0])
	files["surprise"] = files[evidence.ViewCheckpoint]
	rep := verify(t, files, f.root)
	for _, rule := range []string{"unexpected-file", "checkpoint-root", "chain-prev", "view"} {
		wantFinding(t, rep, 7, rule)
	}
	wantFinding(t, rep, 10, "blob-missing")
	for _, f := range rep.Findings {
		if !strings.Contains(f.String(), f.Rule) || !strings.Contains(f.String(), "invariant") {
			t.Errorf("finding %q does not name its rule", f)
		}
	}
	var text strings.Builder
	if err := rep.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"FINDING   surprise: invariant 7 (unexpected-file): a ledger has no file of this name\n",
		"BROKEN    invariant 7: the log is whole", "BROKEN    invariant 10: every decision can be replayed",
		"findings: THIS LEDGER DOES NOT VERIFY\n",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("text lacks %q:\n%s", line, text.String())
		}
	}
}

func TestEveryInvariantHasAMeaning(t *testing.T) {
	for invariant := 1; invariant <= 10; invariant++ {
		if evidence.Meaning(invariant) == "" {
			t.Errorf("Meaning(%d) is empty", invariant)
		}
	}
	if got := evidence.Meaning(11); got != "" {
		t.Errorf("Meaning(11) = %q, want nothing", got)
	}
}
