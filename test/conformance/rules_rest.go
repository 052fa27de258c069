package conformance

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// restRules are about the REST API, which the clients under test hardly use: they
// are asked over plain HTTP beside each of them.
func restRules() []Rule {
	return []Rule{
		{Name: "rule 12: a list is cut into pages, and Link says where they are", Test: func(w *World) {
			const path = "/orgs/" + org + "/actions/runner-groups"
			link := func(page int, rel string) string {
				return fmt.Sprintf(`<%s/api/v3%s?page=%d&per_page=1>; rel="%s"`, w.base(), path, page, rel)
			}
			w.Sim.AddGroup(simgithub.Group{Name: "third", Visibility: "all"})
			for page, want := range map[int][]string{
				1: {"Default", link(2, "next"), link(3, "last")},
				2: {group, link(1, "prev"), link(3, "next"), link(3, "last"), link(1, "first")},
				3: {"third", link(2, "prev"), link(1, "first")},
				4: {"", link(3, "prev"), link(1, "first")},
			} {
				var list struct {
					Total  int                     `json:"total_count"`
					Groups []struct{ Name string } `json:"runner_groups"`
				}
				_, header := w.rest("GET", path+"?per_page=1&page="+strconv.Itoa(page), nil, &list)
				name := ""
				if len(list.Groups) == 1 {
					name = list.Groups[0].Name
				}
				if list.Total != 3 || name != want[0] || header.Get("Link") != strings.Join(want[1:], ", ") {
					w.Errorf("page %d = %+v with %s, want %q", page, list, header.Get("Link"), want)
				}
			}
			if _, header := w.rest("GET", path, nil, nil); header.Get("Link") != "" {
				w.Errorf("a list of one page has the links %s", header.Get("Link"))
			}
		}},
		{Name: "rule 12: each call is counted against the rate limit, and one too many is refused", Config: func(c *simgithub.Config) { c.RateLimit = 10 }, Test: func(w *World) {
			last := 0
			for used := 0; ; used++ {
				status, header := w.rest("GET", "/orgs/"+org, nil, nil)
				left, err := strconv.Atoi(header.Get("X-RateLimit-Remaining"))
				reset, resetErr := strconv.ParseInt(header.Get("X-RateLimit-Reset"), 10, 64)
				if err != nil || resetErr != nil || header.Get("X-RateLimit-Limit") != "10" || header.Get("X-RateLimit-Resource") != "core" || reset < time.Now().Unix() {
					w.Fatalf("the headers of the rate limit are %v", header)
				}
				if status == http.StatusForbidden {
					if left != 0 || used == 0 {
						w.Errorf("refused after %d calls with %d left", used, left)
					}
					return
				}
				if status != 200 || used > 10 || used > 0 && left != last-1 {
					w.Fatalf("call %d = %d with %d left after %d", used, status, left, last)
				}
				last = left
			}
		}},
		{Name: "rule 12: what did not change is 304 and costs nothing", Test: func(w *World) {
			const path = "/orgs/" + org
			_, first := w.rest("GET", path, nil, nil)
			status, again := w.rest("GET", path, http.Header{"If-None-Match": {first.Get("ETag")}}, nil)
			if first.Get("ETag") == "" || status != http.StatusNotModified || again.Get("X-RateLimit-Remaining") != first.Get("X-RateLimit-Remaining") {
				w.Errorf("the second call = %d with %s left, want 304 with %s", status, again.Get("X-RateLimit-Remaining"), first.Get("X-RateLimit-Remaining"))
			}
			const groups = path + "/actions/runner-groups"
			_, before := w.rest("GET", groups, nil, nil)
			w.Sim.AddGroup(simgithub.Group{Name: "third"})
			if status, _ := w.rest("GET", groups, http.Header{"If-None-Match": {before.Get("ETag")}}, nil); status != 200 {
				w.Errorf("a list that changed = %d, want 200", status)
			}
		}},
		{Name: "rule 12: a cancellation is accepted, and refused once the run is over", Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			w.next(s)
			cancel := fmt.Sprintf("/repos/%s/actions/runs/%d/cancel", run.Repository, run.ID)
			if status, _ := w.rest("POST", cancel, nil, nil); status != http.StatusAccepted {
				w.Errorf("the cancellation = %d, want 202", status)
			}
			if m := w.next(s); len(m.Completed) != 1 || m.Completed[0] != run.JobID {
				w.Errorf("Poll() = %+v, want job %s completed", m, run.JobID)
			}
			if status, _ := w.rest("POST", cancel, nil, nil); status != http.StatusConflict {
				w.Errorf("a second cancellation = %d, want 409", status)
			}
		}},
		{Name: "rule 12: who is not in a team is not found", Test: func(w *World) {
			w.Sim.AddTeam("deployers", "alice")
			w.Sim.AddUser("bob")
			for path, want := range map[string]int{"deployers/memberships/alice": 200, "deployers/memberships/bob": 404, "nobody/memberships/alice": 404} {
				if status, _ := w.rest("GET", "/orgs/"+org+"/teams/"+path, nil, nil); status != want {
					w.Errorf("%s = %d, want %d", path, status, want)
				}
			}
		}},
	}
}
