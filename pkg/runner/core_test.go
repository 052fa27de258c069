package runner_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// everyEvent holds one valid event of each kind.
func everyEvent(t *testing.T) []runner.Event {
	t.Helper()
	w := newWorld()
	out := []runner.Event{
		runner.Opened{Version: "v1", Instance: "pod-1", ConfigDigest: runner.DigestOf(nil), PolicyDigest: runner.DigestOf(nil), RootDigest: runner.DigestOf(nil)},
		rotated(runner.RecordKey, "a", "b"),
		runner.Heartbeat{OpenJobs: 1}, runner.Gap{Since: epoch, Until: epoch}, runner.Frozen{By: "cert:x", Reason: "CVE-1"},
		runner.Spooled{Count: 1, Since: epoch, Until: epoch}, runner.Closed{Year: 2027},
		runner.Continued{Origin: "a.example/b", Size: 1, Root: runner.DigestOf(nil), Checkpoint: runner.DigestOf(nil), Before: 1, InEffect: []runner.Digest{runner.DigestOf(nil)}},
		runner.Unfrozen{By: "cert:x"}, w.denied("z", "no"), refused("r9", "", "no"), w.reported("z", "r9"),
		runner.Retired{Runner: "r9", Cause: runner.CauseIdle}, runner.Cancelled{Job: "z", Repository: "org/app", RunID: 1},
		runner.Ending{Runner: "r9", InstanceID: "i-0123456789abcdef0", State: "shutting-down"},
		runner.Overdue{Runner: "r9", Pending: []runner.Stage{runner.StageNode}, Since: epoch},
		w.rebuffed("r9", runner.GateClaim, runner.RebuffOtherPod),
	}
	for _, line := range lifePaths()[0][1:] {
		f := append(strings.Fields(line), "", "", "")
		e, err := w.event(f[0], f[1], f[2], f[3])
		if err != nil {
			t.Fatal(err)
		}
		if err := w.add(e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, e)
	}
	return append(out, w.Seal("r1"))
}

func TestEveryEventSurvivesEncoding(t *testing.T) {
	kinds := map[runner.Kind]bool{}
	for _, e := range everyEvent(t) {
		kinds[e.Kind()] = true
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("%s: %v", e.Kind(), err)
		}
		back, err := runner.DecodeEvent(e.Kind(), body)
		if err != nil {
			t.Fatalf("DecodeEvent(%s) = %v", e.Kind(), err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != string(body) {
			t.Errorf("DecodeEvent(%s) encodes as\n%s, want\n%s", e.Kind(), again, body)
		}
	}
	for _, kind := range declaredKinds(t) {
		if !kinds[kind] {
			t.Errorf("no event of kind %s is tested", kind)
		}
	}
}

// declaredKinds reads the constants from the source, so that a kind without
// decoder, rule or test is noticed.
func declaredKinds(t *testing.T) []runner.Kind {
	t.Helper()
	src, err := os.ReadFile("events.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []runner.Kind
	for _, m := range regexp.MustCompile(`Kind\w+\s+Kind = "(\w+)"`).FindAllStringSubmatch(string(src), -1) {
		out = append(out, runner.Kind(m[1]))
	}
	if len(out) < 20 {
		t.Fatalf("found only %d kinds in events.go", len(out))
	}
	return out
}

// TestNoFreeText proves that no string can enter a record without a pattern:
// it puts a sentence into every string of every event in turn.
func TestNoFreeText(t *testing.T) {
	const sentence = "patient John Doe, room 4"
	tried := 0
	for _, e := range everyEvent(t) {
		v := reflect.New(reflect.TypeOf(e)).Elem()
		v.Set(reflect.ValueOf(e))
		eachString(v, func(path string, s reflect.Value) {
			old := s.String()
			s.SetString(sentence)
			if err := runner.Validate(v.Interface()); err == nil {
				t.Errorf("%s%s accepts free text", e.Kind(), path)
			}
			s.SetString("ghp_0123456789abcdefghij")
			if err := runner.Validate(v.Interface()); err == nil {
				t.Errorf("%s%s accepts a token", e.Kind(), path)
			}
			s.SetString(old)
			tried++
		})
	}
	if tried < 150 {
		t.Errorf("only %d strings tried", tried)
	}
}

func eachString(v reflect.Value, f func(string, reflect.Value), path ...string) {
	switch v.Kind() {
	case reflect.String:
		f(strings.Join(path, ""), v)
	case reflect.Pointer:
		if !v.IsNil() {
			c := reflect.New(v.Type().Elem())
			c.Elem().Set(v.Elem())
			v.Set(c)
			eachString(c.Elem(), f, path...)
		}
	case reflect.Slice:
		v.Set(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, v.Len()), v))
		for i := range v.Len() {
			eachString(v.Index(i), f, append(path, fmt.Sprintf("[%d]", i))...)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			eachString(v.Field(i), f, append(path, "."+v.Type().Field(i).Name)...)
		}
	}
}

// TestMatrix is the whole transition table: every event against every phase of
// a runner's life. A cell says what the core says; the file is the reference.
func TestMatrix(t *testing.T) {
	lines := lifePaths()[0][1:]
	verbs := []string{"offer a", "authorize a", "deny a no", "report a r1", "conclude a succeeded", "claim r1 a h1", "claim r2 a h1", "claim r2 a h2",
		"bind r1", "release r1", "start r1 a", "refuse r1 a no", "retire r1 idle", "complete r1", "cancel-job a", "cancel-runner r1",
		"teardown r1", "overdue r1", "terminated r1", "seal r1", "rebuff r1 claim token-rejected", "rebuff r1 claim second-pod",
		"rebuff r1 claim replay", "rebuff r1 claim runner-over", "rebuff r1 start not-bound"}
	var out strings.Builder
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "event \\ after\tnothing")
	for _, line := range append(slices.Clone(lines), "seal r1") {
		fmt.Fprintf(tw, "\t%s", strings.Fields(line)[0])
	}
	fmt.Fprintln(tw)
	for _, verb := range verbs {
		fmt.Fprint(tw, verb)
		for cut := range len(lines) + 2 {
			w := newWorld()
			for _, line := range append(slices.Clone(lines), "seal r1")[:cut] {
				if _, err := w.command(strings.Fields(line)); err != nil {
					t.Fatal(err)
				}
			}
			f := append(strings.Fields(verb), "", "", "")
			if f[0] == "offer" && w.Jobs["a"] != nil {
				f[0] = "redeliver-offer"
			}
			e, err := w.event(f[0], f[1], f[2], f[3])
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(tw, "\t%s", cell(w.Check(e, w.now)))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/golden/matrix.golden"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != out.String() {
		t.Errorf("the matrix differs (%v):\n%s", err, out.String())
	}
}

func cell(err error) string {
	v, ok := errors.AsType[*runner.Violation](err)
	switch {
	case err == nil:
		return "yes"
	case errors.Is(err, runner.ErrRecorded):
		return "again"
	case ok:
		return fmt.Sprintf("%d/%s", v.Invariant, v.Rule)
	}
	return err.Error()
}

func TestClockMayNotGoBack(t *testing.T) {
	w := newWorld()
	if err := w.add(runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	err := w.Check(runner.Heartbeat{}, w.now.Add(-time.Nanosecond))
	if v, ok := errors.AsType[*runner.Violation](err); !ok || v.Invariant != 8 {
		t.Errorf("Check(earlier) = %v, want a violation of invariant 8", err)
	}
}

func TestApplyRefusesAnotherIndex(t *testing.T) {
	w := newWorld()
	err := w.Apply(runner.Record{Index: 1, At: epoch, Event: runner.Heartbeat{}})
	if v, ok := errors.AsType[*runner.Violation](err); !ok || v.Invariant != 7 {
		t.Errorf("Apply(index 1 first) = %v, want a violation of invariant 7", err)
	}
	if w.Size != 0 {
		t.Errorf("Size = %d after a refused record, want 0", w.Size)
	}
}

func TestAudienceNamesTheRecord(t *testing.T) {
	d := runner.DigestOf([]byte("x"))
	if got, err := runner.ParseAudience(d.Audience()); err != nil || got != d {
		t.Errorf("ParseAudience(Audience()) = %q, %v, want %q", got, err, d)
	}
	for _, bad := range []string{"", "sts.amazonaws.com", "urn:runnerward:record:", "urn:runnerward:record:sha256:12", d.Audience() + "0"} {
		if got, err := runner.ParseAudience(bad); err == nil {
			t.Errorf("ParseAudience(%q) = %q, want an error", bad, got)
		}
	}
}

// FuzzLife folds arbitrary sequences of plausible and implausible events and
// checks the invariants on whatever the core let through.
func FuzzLife(f *testing.F) {
	f.Add([]byte{0, 1, 10, 22, 23})
	f.Add([]byte("\x00\x05\x01\x06\x0b\x0d\x1e\x1f"))
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newWorld()
		for _, b := range script {
			all := w.candidates()
			_ = w.add(all[int(b)%len(all)])
			if b > 200 {
				w.now = w.now.Add(time.Minute)
			}
			w.Next(w.now, w.limits)
		}
		checkHistory(t, w.history)
	})
}

// FuzzDecodeEvent feeds arbitrary bytes as any kind: no panic, and whatever is
// accepted is valid and survives encoding.
func FuzzDecodeEvent(f *testing.F) {
	f.Add("claimed", []byte(`{"runner":"r1"}`))
	f.Add("sealed", []byte(`{}`))
	f.Add("offered", []byte(`{"job":"a","repository":"org/app","runId":"1","labels":["prod"],"messageId":"1","runnerRequestId":"0","queuedAt":"2026-11-22T09:00:00Z","implied":false}`))
	f.Fuzz(func(t *testing.T, kind string, detail []byte) {
		e, err := runner.DecodeEvent(runner.Kind(kind), detail)
		if err != nil {
			return
		}
		if err := runner.Validate(e); err != nil {
			t.Errorf("DecodeEvent let through %v", err)
		}
		_ = runner.NewState().Check(e, epoch)
	})
}

// TestAnAccessKeyIDHasOnePlace: the id of an AWS key is recorded where it names
// the caller, and looks like a leak everywhere else.
func TestAnAccessKeyIDHasOnePlace(t *testing.T) {
	const id = "ASIA0123456789EXAMPL"
	for name, tc := range map[string]struct {
		request runner.Request
		ok      bool
	}{
		"as the key":      {runner.Request{Call: "ec2:TerminateInstances", AccessKeyID: id}, true},
		"as the call":     {runner.Request{Call: id}, false},
		"in the session":  {runner.Request{Call: "x", Session: "arn:aws:sts::1:assumed-role/" + id}, false},
		"with its secret": {runner.Request{Call: "x", AccessKeyID: id + "/wJalrXUtnFEMI"}, false},
		"a secret alone":  {runner.Request{Call: "x", AccessKeyID: "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"}, false},
	} {
		if err := runner.Validate(tc.request); (err == nil) != tc.ok {
			t.Errorf("%s: Validate = %v, want ok %t", name, err, tc.ok)
		}
	}
}

// TestARequestIsRecordedWhateverTheCloudAnswers: what does not fit is left out,
// field by field.
func TestARequestIsRecordedWhateverTheCloudAnswers(t *testing.T) {
	good := runner.Request{Call: "ec2:TerminateInstances", At: epoch, RequestID: "req-1", AccessKeyID: "ASIA0123456789EXAMPL",
		Session: "arn:aws:sts::111122223333:assumed-role/runnerward/pod", Code: "Throttling"}
	if got := good.Recordable(); got != good {
		t.Errorf("Recordable = %+v, want all of %+v", got, good)
	}
	odd := good
	odd.RequestID, odd.Session = "patient John Doe", "arn:aws:sts::1:assumed-role/ghp_0123456789abcdefghij"
	want := good
	want.RequestID, want.Session = "", ""
	if got := odd.Recordable(); got != want {
		t.Errorf("Recordable = %+v, want %+v", got, want)
	}
}
