package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAHostIsUnfitAfterItsGraceAndNotBefore(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	type look struct {
		after   time.Duration
		failing []string
	}
	for name, tc := range map[string]struct {
		looks []look
		want  []string
	}{
		"never looked":                  {nil, nil},
		"boots":                         {[]look{{0, []string{"i-1"}}, {9 * time.Minute, []string{"i-1"}}}, nil},
		"fails for long":                {[]look{{0, []string{"i-1"}}, {10 * time.Minute, []string{"i-1"}}}, []string{"i-1"}},
		"was not looked at again":       {[]look{{0, []string{"i-1"}}}, nil},
		"passed in between":             {[]look{{0, []string{"i-1"}}, {5 * time.Minute, nil}, {6 * time.Minute, []string{"i-1"}}, {12 * time.Minute, []string{"i-1"}}}, nil},
		"passes in the end":             {[]look{{0, []string{"i-1"}}, {10 * time.Minute, []string{"i-1"}}, {11 * time.Minute, nil}}, nil},
		"each has a grace of its own":   {[]look{{0, []string{"i-1"}}, {5 * time.Minute, []string{"i-1", "i-2"}}, {10 * time.Minute, []string{"i-2", "i-1"}}}, []string{"i-1"}},
		"those that fail longest first": {[]look{{0, []string{"i-2"}}, {time.Minute, []string{"i-1", "i-2"}}, {time.Hour, []string{"i-1", "i-2"}}}, []string{"i-2", "i-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			u, told := newUnfits(), map[string]int{}
			for _, l := range tc.looks {
				var failing []unfit
				for _, id := range l.failing {
					failing = append(failing, unfit{instance: id, why: notJoined})
				}
				for range 2 { // to look twice is to tell once
					for _, f := range u.saw(failing, start.Add(l.after)) {
						told[f.instance]++
					}
				}
			}
			var got []string
			for _, f := range u.list() {
				got = append(got, f.instance)
				if told[f.instance] != 1 {
					t.Errorf("%s was told of %d times, want once", f.instance, told[f.instance])
				}
				if w := f.warning(); !strings.Contains(w, f.instance) || !strings.Contains(w, notJoined) {
					t.Errorf("warning = %q, want the instance and why", w)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("unfit = %v, want %v", got, tc.want)
			}
		})
	}
}

// TestInstancesInServiceAreBelievedForAWhile: what the groups said long ago says
// nothing of an instance that is no node now.
func TestInstancesInServiceAreBelievedForAWhile(t *testing.T) {
	p, now := newPoolLooks(), time.Now()
	p.saw(HostsPool{Groups: []GroupView{{InService: []string{"i-1"}}, {InService: []string{"i-2"}}}}, nil, now)
	if got := p.inService(now.Add(3 * time.Minute)); !slices.Equal(got, []string{"i-1", "i-2"}) {
		t.Errorf("in service = %v, want those of all groups", got)
	}
	if got := p.inService(now.Add(5 * time.Minute)); len(got) != 0 {
		t.Errorf("in service five minutes after the last look = %v, want nothing known", got)
	}
}
