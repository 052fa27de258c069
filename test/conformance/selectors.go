package conformance

import (
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// selectorRules are about the faults themselves: which requests they meet.
func selectorRules() []Rule {
	fails := func(w *World, what string, err error, want bool) {
		w.Helper()
		if (err != nil) != want {
			w.Errorf("%s: %v, want it to fail: %t", what, err, want)
		}
	}
	find := func(w *World) error { _, err := w.find(w.Client); return err }
	return []Rule{
		{Name: "fault selectors: so many requests pass, then so many fail", Test: func(w *World) {
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 400, Path: setsPath, Whole: true, Skip: 2, Count: 2})
			for i, want := range []bool{false, false, true, true, false} {
				fails(w, "search "+string(rune('1'+i)), find(w), want)
			}
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 400, Path: setsPath, Whole: true})
			fails(w, "without a count", find(w), true)
			fails(w, "after it", find(w), false)
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 400, Path: setsPath, Whole: true, Count: -1})
			for range 4 {
				fails(w, "for good", find(w), true)
			}
			w.Sim.ClearFaults()
			fails(w, "cleared", find(w), false)
		}},
		{Name: "fault selectors: before the effect or after it", Test: func(w *World) {
			for name, fault := range map[string]simgithub.Fault{
				"unsaid": {}, "before": {BeforeEffect: true}, "after": {AfterEffect: true},
			} {
				fault.Kind, fault.Method, fault.Path = simgithub.FaultDrop, "POST", setsPath+"/*/generatejitconfig"
				w.Sim.Inject(fault)
				_, err := w.Client.Register(w.Context(), w.Set.ID, name)
				fails(w, name, err, true)
				if id := must(w.Client.FindRunner(w.Context(), name))(w); (id != 0) != fault.AfterEffect {
					w.Errorf("%s: runner %d is registered, want it: %t", name, id, fault.AfterEffect)
				}
			}
		}},
		{Name: "fault selectors: the caller, by its credential", Test: func(w *World) {
			s := w.open(w.Client)
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 400, Caller: "queue", Count: -1})
			fails(w, "the service's token", find(w), false)
			_, err := s.Poll(w.Context(), 0, 1)
			fails(w, "the queue's token", err, true)
			w.Sim.ClearFaults()
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 400, Caller: "admin", Count: -1})
			fails(w, "the service's token", find(w), true)
			_, err = s.Poll(w.Context(), 0, 1)
			fails(w, "the queue's token", err, false)
		}},
		{Name: "fault selectors: the path, with a star for any segment, whole or not, and the method", Test: func(w *World) {
			for i, test := range []struct {
				method, path         string
				whole                bool
				search, registration bool
			}{
				{"", setsPath, false, true, true},
				{"", setsPath, true, true, false},
				{"POST", setsPath, false, false, true},
				{"GET", setsPath, false, true, false},
				{"", setsPath + "/*/generatejitconfig", false, false, true},
				{"", setsPath + "/99/generatejitconfig", false, false, false},
				{"", "/*/_apis/*/runnerscalesets", true, true, false},
				{"", "/rest/_apis/runtime/runnerscale", false, false, false}, // no part of a segment
				{"", "/", false, true, true},
			} {
				w.Sim.ClearFaults()
				w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 400, Method: test.method, Path: test.path, Whole: test.whole, Count: -1})
				fails(w, test.method+" "+test.path+": search", find(w), test.search)
				_, err := w.Client.Register(w.Context(), w.Set.ID, "r-"+string(rune('a'+i)))
				fails(w, test.method+" "+test.path+": registration", err, test.registration)
			}
		}},
		{Name: "fault selectors: how long a hang lasts", Test: func(w *World) {
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultHang, Path: setsPath, Whole: true, Duration: 200 * time.Millisecond})
			began := time.Now()
			fails(w, "a search that hangs for a while", find(w), false)
			if took := time.Since(began); took < 200*time.Millisecond {
				w.Errorf("the search took %s, want 200 ms", took)
			}
		}},
	}
}
