package simgithub

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Dump is what the simulator knows, without credentials, as JSON shows it.
func (s *Server) Dump() map[string]any {
	jobs, runners, standIns := s.Jobs(), s.Runners(), s.StandIns()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	faults := make([]Fault, 0, len(s.faults))
	for _, f := range s.faults {
		faults = append(faults, *f)
	}
	mode := "hosted"
	if s.cfg.GHES {
		mode = "ghes"
	}
	return map[string]any{
		"now": s.now(), "ahead": time.Duration(s.ahead.Load()).String(), "mode": mode, "organization": s.cfg.Org,
		"accounts": s.dumpAccounts(), "repositories": s.dumpRepositories(), "groups": s.dumpGroups(), "scaleSets": s.dumpSets(),
		"runners": runners, "standIns": standIns, "runs": s.dumpRuns(), "jobs": jobs, "faults": faults,
		"deliveries": len(s.deliveries), "requests": len(s.log),
	}
}

func (s *Server) dumpAccounts() map[string]any {
	users, teams := map[string]int64{}, map[string][]string{}
	for _, u := range s.state.users {
		users[u.login] = u.id
	}
	for slug, t := range s.state.teams {
		for _, m := range t.members {
			teams[slug] = append(teams[slug], m.login)
		}
	}
	return map[string]any{"users": users, "teams": teams}
}

func (s *Server) dumpRepositories() []map[string]any {
	out := []map[string]any{}
	for _, r := range s.state.repos {
		var envs []Environment
		for _, e := range r.envs {
			envs = append(envs, e.Environment)
		}
		slices.SortFunc(envs, func(a, b Environment) int { return strings.Compare(a.Name, b.Name) })
		var rules []Ruleset
		for _, set := range r.rulesets {
			rules = append(rules, set.Ruleset)
		}
		files := []string{}
		for name := range r.files {
			files = append(files, name)
		}
		slices.Sort(files)
		out = append(out, map[string]any{
			"id": r.id, "name": r.name, "tags": maps.Clone(r.tags), "environments": envs, "rulesets": rules, "files": files, "subject": r.subject,
		})
	}
	slices.SortFunc(out, func(a, b map[string]any) int { return cmp.Compare(a["id"].(int64), b["id"].(int64)) })
	return out
}

func (s *Server) dumpGroups() []map[string]any {
	out := []map[string]any{}
	for _, id := range sortedKeys(s.state.groups) {
		out = append(out, map[string]any{"id": id, "group": s.state.groups[id].Group})
	}
	return out
}

func (s *Server) dumpSets() []map[string]any {
	out := []map[string]any{}
	for _, id := range sortedKeys(s.state.sets) {
		set := s.state.sets[id]
		messages := []map[string]any{}
		for _, m := range set.messages {
			messages = append(messages, map[string]any{"id": m.id, "items": m.items})
		}
		pending := []jobMessage{}
		for _, e := range set.pending {
			pending = append(pending, e.body)
		}
		m := map[string]any{
			"id": id, "name": set.name, "group": set.groupID, "labels": set.labels, "statistics": s.statistics(set),
			"unacknowledged": messages, "pending": pending, "session": nil,
		}
		if ses := set.session; ses != nil {
			m["session"] = map[string]any{"id": ses.id, "owner": ses.owner, "polls": ses.polls, "seen": ses.seen, "capacity": ses.capacity}
		}
		out = append(out, m)
	}
	return out
}

func (s *Server) dumpRuns() []map[string]any {
	out := []map[string]any{}
	for _, id := range sortedKeys(s.state.runs) {
		r := s.state.runs[id]
		approvals := []map[string]any{}
		for _, a := range r.approvals {
			approvals = append(approvals, map[string]any{"environment": a.env.Name, "state": a.state, "by": a.by.login, "at": a.at, "comment": a.comment})
		}
		out = append(out, map[string]any{"run": s.runOf(r), "spec": r.spec, "approvals": approvals})
	}
	return out
}
