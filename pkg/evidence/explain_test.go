package evidence_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// theLog holds one job of each fate: 0 completed, 1 denied, 2 refused, 3
// reached no job, and 4 is a second job of the run of 0.
func theLog(t *testing.T) (*evidence.Report, []runnertest.Cast) {
	t.Helper()
	f := newForge(t)
	s := f.script()
	stories := [][]runner.Kind{
		runnertest.CompletedStory(), runnertest.DeniedStory(), runnertest.RefusedStory(), runnertest.RetiredStory(),
		runnertest.Upto(runnertest.CompletedStory(), runner.KindAuthorized),
	}
	var casts []runnertest.Cast
	for i, story := range stories {
		c := runnertest.NewCast(i)
		if i == 4 {
			c.RunID = casts[0].RunID
		}
		if err := s.Tell(c, story); err != nil {
			t.Fatal(err)
		}
		casts = append(casts, c)
	}
	rep := verify(t, f.publish().files, f.root)
	if !rep.OK() {
		t.Fatalf("findings = %v", rep.Findings)
	}
	return rep, casts
}

func explain(t *testing.T, rep *evidence.Report, query string) (*evidence.Explanation, string) {
	t.Helper()
	x, err := evidence.Explain(rep, query, func(code string) string {
		return map[string]string{"approval-missing": "Nobody is known to have approved this."}[code]
	})
	if err != nil {
		t.Fatalf("Explain(%s) = %v", query, err)
	}
	var text strings.Builder
	if err := x.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	return x, text.String()
}

func wantText(t *testing.T, text string, want ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(text), " ")
	for _, w := range want {
		if !strings.Contains(flat, w) {
			t.Errorf("explanation lacks %q:\n%s", w, text)
		}
	}
}

func TestAnExplanationSaysWhichRecordsWaitedForTheStore(t *testing.T) {
	f := newForge(t)
	s, c := f.script(), runnertest.NewCast(0)
	story := runnertest.CompletedStory()
	if err := s.Tell(c, story[:len(story)-1]); err != nil {
		t.Fatal(err)
	}
	n := uint64(len(s.Records))
	e := runner.Spooled{First: n - 2, Last: n - 1, Count: 2, Since: s.Records[n-2].At, Until: s.Now}
	if err := s.Must(e); err != nil {
		t.Fatal(err)
	}
	if err := s.Tell(c, []runner.Kind{runner.KindSealed}); err != nil {
		t.Fatal(err)
	}
	rep := verify(t, f.publish().files, f.root)
	if !rep.OK() {
		t.Fatalf("findings = %v", rep.Findings)
	}
	x, _ := explain(t, rep, string(c.Runner))
	var records []uint64
	for _, answer := range x.Stories[0].Answers {
		for _, fact := range answer.Facts {
			if fact.Name == "kept on the daemon's disk until" {
				records = append(records, fact.Record)
			}
		}
	}
	if !slices.Equal(records, []uint64{n - 2, n - 1}) {
		t.Errorf("said to have waited: records %v, want %d and %d, once each", records, n-2, n-1)
	}
}

func TestEveryNameOfAJobFindsItsStory(t *testing.T) {
	rep, casts := theLog(t)
	c := casts[0]
	for _, query := range []string{
		c.JobURL(), c.JobURL() + "?pr=1#step:3:1", c.JobURL() + "/", strings.ToUpper(string(c.Job)), string(c.Job),
		fmt.Sprintf("%s/attempts/1/job/%d", c.RunURL(), c.CheckRunID), string(c.Runner), c.Host.InstanceID, " " + string(c.Runner) + "\n",
		strings.Replace(c.JobURL(), "hipaa-app-org", "HIPAA-app-org", 1),
	} {
		x, _ := explain(t, rep, query)
		if len(x.Stories) != 1 || x.Stories[0].Job != c.Job || x.Stories[0].Runner != c.Runner {
			t.Errorf("Explain(%q) = %+v, want the story of %s", query, x.Stories, c.Job)
		}
	}
	for _, query := range []string{c.RunURL(), fmt.Sprint(c.RunID), c.RunURL() + "/attempts/1"} {
		x, text := explain(t, rep, query)
		if len(x.Stories) != 2 || x.Stories[0].Job != c.Job || x.Stories[1].Job != casts[4].Job {
			t.Errorf("Explain(%q) = %d stories, want both jobs of the run", query, len(x.Stories))
		}
		wantText(t, text, "means 2 jobs")
	}
}

func TestACompletedJobAnswersTheAuditor(t *testing.T) {
	rep, casts := theLog(t)
	x, text := explain(t, rep, casts[0].JobURL())
	wantText(t, text,
		"The log was verified", "Outcome: succeeded, its host is gone and the record is sealed.",
		"#2 approved by octo-approver (id 2002)", "through team release-approvers, a member", "for attempt 1",
		"told by GitHub 2026-03-02 08:45:02.000 UTC, delivery 0b989ba4-242f-11e5-81e1-021000000000",
		"#1 review on record approved by octo-approver (id 2002) for attempt 1",
		"pull request author octo-author", "tag pushed by octo-author",
		"commit author octo-author (id 1001)", "actor octo-author", "triggered by octo-author",
		"workflow hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v2.1.0",
		"workflow commit aabbccddeeff", "build-sign.yml@refs/tags/v2.1.0, commit aabbccddeeff", "head commit 1f0c6a4b", "ref refs/tags/v1.4.2", "environment production (id 88001)",
		"decided 2026-03-02 09:00:02.000 UTC", "policy "+string(runner.DigestOf([]byte("policy bundle"))),
		"host aws "+casts[0].Host.InstanceID+", assurance L1", "account 111122223333", "region us-east-1 us-east-1a",
		"image ami-0123456789abcdef0", "node "+casts[0].Host.NodeName, "uid "+casts[0].PodUID,
		"runners on this host, ever 1", "jobs on this host, ever 1",
		"#5 JIT config released", "#6 started", "#7 GitHub said concluded 2026-03-02 09:00:07.000 UTC, result succeeded",
		"#8 completed", "#10 host terminated", "volumes gone "+casts[0].Host.Volumes[0], "#11 sealed",
	)
	b, err := json.Marshal(x)
	if err != nil || !strings.Contains(string(b), `{"name":"approved by","value":"octo-approver (id 2002)","record":2}`) {
		t.Errorf("JSON = %s, %v, want the approver with its record", b, err)
	}
}

func TestJobsThatDidNotRunSayWhy(t *testing.T) {
	rep, casts := theLog(t)
	_, denied := explain(t, rep, casts[1].RunURL())
	wantText(t, denied, "Outcome: denied: it may not run here.",
		"because approval-missing: Nobody is known to have approved this.", "decided", "policy sha256:")
	refused, text := explain(t, rep, string(casts[2].Job))
	wantText(t, text, "Outcome: refused when it reached runner "+string(casts[2].Runner), "because claims-run: claims run",
		"approved by octo-approver", "jobs on this host, ever 0", "host terminated")
	if refused.Stories[0].Runner != casts[2].Runner {
		t.Errorf("runner = %s, want the one that refused", refused.Stories[0].Runner)
	}
	_, byRunner := explain(t, rep, string(casts[2].Runner))
	wantText(t, byRunner, "refused what reached it", "because claims-run")
	_, retired := explain(t, rep, casts[3].Host.InstanceID)
	wantText(t, retired, "Outcome: ended without a job: surplus, its host is gone and the record is sealed.")
	_, waiting := explain(t, rep, string(casts[4].Job))
	wantText(t, waiting, "Outcome: allowed, not started.")
}

// TestWhoWasTurnedAwayIsToldInWords: every cause at every gate has words of its
// own, none of them the bare code.
func TestWhoWasTurnedAwayIsToldInWords(t *testing.T) {
	f := newForge(t)
	s, c := f.script(), runnertest.NewCast(0)
	story := runnertest.CompletedStory()
	if err := s.Tell(c, story[:len(story)-1]); err != nil {
		t.Fatal(err)
	}
	own := runner.Caller{Namespace: "gha-runners", ServiceAccount: "hipaa-prod-runner", PodUID: c.PodUID, NodeName: c.Host.NodeName, NodeUID: c.Host.NodeUID}
	other := own
	other.PodUID, other.NodeName, other.NodeUID = "0aa1-stranger", "ip-10-9-9-9.ec2.internal", "0bb2-stranger"
	records := 0
	for _, gate := range []runner.Gate{runner.GateClaim, runner.GateStart} {
		for _, cause := range runner.RebuffCauses(gate) {
			e := runner.Rebuffed{Runner: c.Runner, Gate: gate, Cause: cause, Caller: &other}
			switch cause {
			case runner.RebuffRejected:
				e.Caller = nil
			case runner.RebuffReplay:
				e.Caller = &own
			case runner.RebuffOtherAccount:
				e.Caller = &runner.Caller{}
			}
			if err := s.Must(e); err != nil {
				t.Fatal(err)
			}
			records++
		}
	}
	if err := s.Tell(c, []runner.Kind{runner.KindSealed}); err != nil {
		t.Fatal(err)
	}
	x, text := explain(t, verify(t, f.publish().files, f.root), c.JobURL())
	said := map[string]bool{}
	for _, a := range x.Stories[0].Answers {
		for _, fact := range a.Facts {
			if fact.Name != "turned away" {
				continue
			}
			records--
			_, words, _ := strings.Cut(fact.Value, ": ")
			what, _, _ := strings.Cut(words, ";")
			said[what] = true
			if !strings.Contains(what, " ") {
				t.Errorf("a cause without words: %s", fact.Value)
			}
		}
	}
	if records != 0 || len(said) != 10 {
		t.Errorf("%d records are not told, %d causes have words of their own, want 0 and 10", records, len(said))
	}
	wantText(t, text, "at gate claim: somebody presented a genuine token of another pod; the cluster names account gha-runners/hipaa-prod-runner, pod uid 0aa1-stranger, node ip-10-9-9-9.ec2.internal, uid 0bb2-stranger",
		"of another account; it named neither account nor pod", "(expired, forged, or of a pod that was gone)")
}

func TestAQuestionWithoutAnAnswerSaysWhatWasSearched(t *testing.T) {
	rep, casts := theLog(t)
	for query, want := range map[string]string{
		"12345":                 "searched the runs of 5 jobs and 3 runners",
		"i-0000000000000000":    "searched the job ids, runner names and instance ids of 5 jobs",
		"":                      "searched the job ids",
		casts[0].RunURL() + "0": "searched the runs",
		strings.Replace(casts[0].RunURL(), "clinical-platform", "other", 1): "searched the runs",
		strings.Replace(casts[0].RunURL(), "github.com", "ghes.example", 1): "searched the runs",
		casts[0].RunURL() + "/attempts/2":                                   "searched the runs",
		casts[0].RunURL() + "/job/1":                                        "searched the runs",
		"https://github.com/hipaa-app-org/clinical-platform/pull/3":         "is not the address of a GitHub Actions run or job",
	} {
		if x, err := evidence.Explain(rep, query, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Explain(%q) = %v, %v, want an error that says %q", query, x, err, want)
		}
	}
	if _, err := evidence.Explain(&evidence.Report{}, "1", nil); err == nil {
		t.Error("Explain without a state = nil, want an error")
	}
}

func TestAnExplanationOfABrokenLogSaysSo(t *testing.T) {
	f := told(t, runnertest.CompletedStory())
	files := f.copy()
	delete(files, evidence.ViewCheckpoint)
	_, text := explain(t, verify(t, files, f.root), runnertest.NewCast(0).JobURL())
	wantText(t, text, "THE LOG DOES NOT VERIFY: 1 finding.")
}
