package simgithub_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// get reads a REST path as the organization's owner.
func (w *world) get(path string) (int, http.Header, map[string]any) {
	w.t.Helper()
	return w.raw("GET", "/api/v3"+path, "Bearer "+pat, nil)
}

// https://docs.github.com/en/rest/git/tags: "Creating a tag object does not create
// the reference": an annotated tag's reference names the object, the object the
// commit.
func TestAnAnnotatedTagIsAnObjectOfItsOwn(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		named := func() (kind, sha string) {
			_, _, ref := w.get("/repos/acme/shop/git/ref/tags/v9")
			object := ref["object"].(map[string]any)
			return object["type"].(string), object["sha"].(string)
		}
		if _, err := w.sim.AnnotateTag("shop", "v9", "bob", "x"); err == nil {
			t.Error("a tag that does not exist was annotated")
		}
		w.sim.PushTag("shop", "v9", sha1, "bob")
		if kind, sha := named(); kind != "commit" || sha != sha1 {
			t.Errorf("a lightweight tag names %s %s", kind, sha)
		}
		id, err := w.sim.AnnotateTag("shop", "v9", "bob", "release")
		if err != nil {
			t.Fatal(err)
		}
		if kind, sha := named(); kind != "tag" || sha != id {
			t.Errorf("an annotated tag names %s %s, want tag %s", kind, sha, id)
		}
		_, _, object := w.get("/repos/acme/shop/git/tags/" + id)
		if of := object["object"].(map[string]any); of["type"] != "commit" || of["sha"] != sha1 || object["tagger"].(map[string]any)["name"] != "bob" || object["tag"] != "v9" {
			t.Errorf("the tag object = %v", object)
		}
		w.sim.PushTag("shop", "v9", sha2, "mallory") // a lightweight one in its place
		if kind, sha := named(); kind != "commit" || sha != sha2 {
			t.Errorf("the moved tag names %s %s", kind, sha)
		}
	})
}

func TestBranchesAreReferencesToo(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		if status, _, _ := w.get("/repos/acme/shop/git/ref/heads/main"); status != http.StatusNotFound {
			t.Errorf("main of a repository without a commit = %d, want 404", status)
		}
		w.dispatch(func(s *simgithub.RunSpec) { s.Tag, s.HeadSHA = "", sha2 })
		w.sim.PushBranch("shop", "release/1.x", sha1, "bob")
		for branch, want := range map[string]string{"main": sha2, "release/1.x": sha1} {
			_, _, ref := w.get("/repos/acme/shop/git/ref/heads/" + branch)
			_, _, commit := w.get("/repos/acme/shop/commits/heads/" + branch)
			if ref["ref"] != "refs/heads/"+branch || ref["object"].(map[string]any)["sha"] != want || commit["sha"] != want {
				t.Errorf("%s = %v, commit %v, want %s", branch, ref, commit["sha"], want)
			}
		}
	})
}

var linkTo = regexp.MustCompile(`<http://ghes\.test/api/v3([^>]+)>; rel="([a-z]+)"`)

// rels reads a Link header as clients do.
func rels(h http.Header) map[string]string {
	out := map[string]string{}
	for _, m := range linkTo.FindAllStringSubmatch(h.Get("Link"), -1) {
		out[m[2]] = m[1]
	}
	return out
}

// The activity and the audit log have cursors; the review history has no pages.
func TestCursorsLeadThroughAList(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		for i := range 5 {
			w.sim.PushTag("shop", fmt.Sprintf("v%d", i), sha1, "bob")
			sleep(time.Second)
			run := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "production" })
			if err := w.sim.Approve(run.ID, "bob"); err != nil {
				t.Fatal(err)
			}
		}
		for path, want := range map[string]int{"/repos/acme/shop/activity": 3, "/orgs/acme/audit-log": 3} {
			forward, last := 1, path+"?per_page=2"
			for {
				_, header, _ := w.get(last)
				next, more := rels(header)["next"]
				if (rels(header)["prev"] != "") != (forward > 1) {
					t.Errorf("page %d of %s has the links %v", forward, path, rels(header))
				}
				if !more {
					break
				}
				forward, last = forward+1, next
			}
			if forward != want {
				t.Errorf("%s has %d pages, want %d", path, forward, want)
			}
			back := 1
			for {
				_, header, _ := w.get(last)
				prev, more := rels(header)["prev"]
				if !more {
					break
				}
				back, last = back+1, prev
			}
			if back != want {
				t.Errorf("%s has %d pages backwards, want %d", path, back, want)
			}
			if status, _, _ := w.get(path + "?after=nonsense"); status != http.StatusUnprocessableEntity {
				t.Errorf("%s with an unknown cursor = %d, want 422", path, status)
			}
		}
		if _, header, _ := w.get("/repos/acme/shop/actions/runs/9000000001/approvals?per_page=1"); header.Get("Link") != "" {
			t.Errorf("the review history links to %q, and it has no pages", header.Get("Link"))
		}
	})
}

// https://docs.github.com/en/enterprise-cloud@latest/organizations/keeping-your-organization-secure/managing-security-settings-for-your-organization/audit-log-events-for-your-organization#workflows
func TestTheAuditLogNamesReviewsAsGitHubDoes(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		for i, decide := range []func(int64, string) error{w.sim.Approve, w.sim.Reject} {
			run := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "production" })
			if err := decide(run.ID, []string{"bob", "carol"}[i]); err != nil {
				t.Fatal(err)
			}
		}
		for phrase, want := range map[string]int{
			"": 2, "actor:bob": 1, "action:workflows.approve_workflow_job": 1, "action:workflows.reject_workflow_job+actor:carol": 1,
			"action:workflows.reject_workflow_job+actor:bob": 0,
		} {
			req, err := w.rest().NewRequest("GET", "orgs/acme/audit-log?phrase="+phrase, nil)
			if err != nil {
				t.Fatal(err)
			}
			var entries []map[string]any
			if _, err := w.rest().Do(t.Context(), req, &entries); err != nil || len(entries) != want {
				t.Errorf("phrase %q: %v, %v, want %d entries", phrase, entries, err, want)
			}
		}
	})
}

func TestAnAnswerThatIsKnownCostsNothing(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		ask := func(etag string) (int, string, string) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://ghes.test/api/v3/orgs/acme", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+pat)
			req.Header.Set("If-None-Match", etag)
			resp, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			return resp.StatusCode, resp.Header.Get("ETag"), resp.Header.Get("X-RateLimit-Remaining")
		}
		status, etag, before := ask("")
		again, _, after := ask(etag)
		if status != 200 || again != http.StatusNotModified || !strings.HasPrefix(etag, `W/"`) || before != after {
			t.Errorf("asked twice = %d, then %d; %s of the rate limit remain, then %s", status, again, before, after)
		}
		if other, _, less := ask(`W/"another"`); other != 200 || less == after {
			t.Errorf("with another ETag = %d, %s remain, want 200 and one less than %s", other, less, after)
		}
	})
}

func TestRequestsThatNobodyAnswersAreKept(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.get("/orgs/acme")
		w.get("/orgs/acme/gists")
		w.raw("POST", "/rest/_apis/nonsense", "", nil)
		if got := strings.Join(w.sim.UnknownRequests(), ", "); got != "GET /api/v3/orgs/acme/gists, POST /rest/_apis/nonsense" {
			t.Errorf("UnknownRequests() = %s", got)
		}
	})
}
