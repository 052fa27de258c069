package evidence

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// RetainYears is how many calendar years an object stays after the last record
// that rests on it: 45 CFR 164.316(b)(2)(i).
const RetainYears = 6

// manyAlike bounds how often one rule is reported object by object: a bucket
// without any lock is one finding, and not one for every object.
const manyAlike = 20

// Object is what a store tells of a write-once object beside its bytes.
type Object struct {
	// Versions is the number of versions with data; the oldest is the object.
	Versions int
	// DeleteMarkers is the number of delete markers on it.
	DeleteMarkers int
	// Compliance says that the oldest version can be removed by nobody before
	// RetainUntil.
	Compliance  bool
	RetainUntil time.Time
}

// Objects is a store that keeps versions under lock.
type Objects interface {
	// Objects describes every object in one of the folders, by name, those
	// that only a delete marker is left of among them.
	Objects(folder string) (map[string]Object, error)
}

// checkObjects wants every object to be there once, hidden by nothing, and
// locked for six years after the last record that rests on it. It comes last:
// what was read before is among what the store tells now.
func (v *verification) checkObjects(store Objects) error {
	need := v.lastUses()
	var found []Finding
	var folders []string
	stored := map[string]bool{}
	for _, y := range v.years {
		folders = append(folders, y.Name(SegmentFolder), y.Name(CheckpointFolder), y.Name(BlobFolder))
		for name := range y.blobs {
			stored[name] = true
		}
	}
	for _, folder := range folders {
		objects, err := store.Objects(folder)
		if err != nil {
			return fmt.Errorf("ask for the locks of the ledger's objects: %w", err)
		}
		for _, name := range slices.Sorted(maps.Keys(objects)) {
			for _, p := range objectProblems(objects[name], need[name]) {
				found = append(found, Finding{-1, name, p.Invariant, p.Rule, p.Detail})
			}
			delete(need, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(need)) {
		// That a referenced attachment is missing was said already.
		if _, plain := SplitShard(name); stored[name] || !strings.HasPrefix(plain, BlobFolder) {
			p := problem(7, "unlocked", "the store knows no version of this object")
			found = append(found, Finding{-1, name, p.Invariant, p.Rule, p.Detail})
		}
	}
	v.report.Findings = append(v.report.Findings, alike(found)...)
	return nil
}

func objectProblems(o Object, lastUse time.Time) (problems []*Problem) {
	if o.Versions > 1 {
		problems = append(problems, problem(7, "versions", "the object was written %d times; the first version counts and was verified", o.Versions))
	}
	if o.DeleteMarkers > 0 {
		problems = append(problems, problem(7, "delete-marker", "somebody deleted the object: it has %s, under which it was read all the same", plural(o.DeleteMarkers, "delete marker")))
	}
	until := lastUse.AddDate(RetainYears, 0, 0)
	switch {
	case o.Versions == 0:
	case !o.Compliance:
		problems = append(problems, problem(7, "unlocked", "the object is not locked in COMPLIANCE mode: whoever may delete can remove it"))
	case !lastUse.IsZero() && o.RetainUntil.Before(until):
		problems = append(problems, problem(7, "retention", "the object is locked until %s, a record of %s rests on it: want %s",
			stamp(o.RetainUntil), stamp(lastUse), stamp(until)))
	}
	return problems
}

// alike keeps the first findings of every rule and counts the others.
func alike(all []Finding) (kept []Finding) {
	counts := map[string]int{}
	for _, f := range all {
		if counts[f.Rule]++; counts[f.Rule] <= manyAlike {
			kept = append(kept, f)
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(counts)) {
		if more := counts[rule] - manyAlike; more > 0 {
			kept = append(kept, Finding{-1, "", 7, rule, fmt.Sprintf("the same of %s more", plural(more, "object"))})
		}
	}
	return kept
}

// lastUses is the time of the last record that rests on each object. A
// document that is in effect is used until the next one takes its place, or
// until the last record before a silence that the next start broke: a daemon
// that is down works by no document, and keeps none.
func (v *verification) lastUses() map[string]time.Time {
	uses := map[string]time.Time{}
	use := func(name string, at time.Time) {
		if at.After(uses[name]) {
			uses[name] = at
		}
	}
	var inEffect []runner.Digest
	silent := false // no record since what says that there was a silence or an outage
	for _, y := range v.years {
		for _, rec := range y.records {
			if segment, ok := v.files[int64(rec.Index)]; ok {
				use(segment, rec.At)
			}
			if name, ok := y.checkpoints[rec.Index+1-y.Before]; ok {
				use(name, rec.At)
			}
			switch rec.Event.(type) {
			case runner.Gap, runner.Spooled: // which the next daemon writes before it opens the log
				silent = true
			case runner.Opened:
			default:
				silent = false
			}
			for _, d := range inEffect {
				if !silent {
					use(y.Name(BlobName(d)), rec.At)
				}
			}
			rests := Inputs(rec.Event)
			for _, d := range rests {
				use(y.Name(BlobName(d)), rec.At)
			}
			switch rec.Event.(type) {
			case runner.Opened:
				inEffect, silent = rests, false
			case runner.Continued:
				inEffect = rests
			}
		}
	}
	return uses
}
