package evidence

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// readYears reads the segments of all shards in order, as one history.
func (v *verification) readYears() {
	for i, y := range v.years {
		v.year = y
		if i > 0 {
			v.replay.Turn(y.Shard)
			v.follows(v.years[i-1])
		} else if y.Shard != 0 {
			v.resume()
		}
		v.Place, v.tree = v.replay.Place(), v.replay.Tree
		v.readSegments()
	}
	v.report.Size = v.replay.Size()
	if v.torn {
		return
	}
	if root, err := v.tree.Root(v.tree.Size()); err == nil {
		v.report.RootHash = base64.StdEncoding.EncodeToString(root[:])
	}
	if v.report.State.Closed != nil {
		v.report.note(strings.TrimSuffix(v.Name(SegmentFolder), "/"),
			"the year is closed and no later one is at hand: the daemon ended between the two, or the folder of the next year is missing")
	}
}

// resume begins with a shard that is not the first of its log.
func (v *verification) resume() {
	envelope := v.firstEnvelope()
	if envelope == nil || !v.replay.resume(v.Shard, envelope) {
		v.report.find(-1, v.folder(), problem(7, "year", "the year does not begin with what it continues, so that its place in the log is not known"))
		v.torn, v.lost = true, true
	}
}

func (v *verification) firstEnvelope() []byte {
	if len(v.segments) == 0 {
		return nil
	}
	b, err := fs.ReadFile(v.fsys, v.segments[0])
	if entries, _ := Entries(b); err == nil && len(entries) > 0 {
		return entries[0]
	}
	return nil
}

func (y *year) folder() string { return strings.TrimSuffix(y.Folder(), "/") }

// follows wants this shard to be the one that the shard before it names. After
// missing records its own place in the log is not known.
func (v *verification) follows(before *year) {
	var closed runner.Closed
	if n := len(before.records); n > 0 {
		closed, _ = before.records[n-1].Event.(runner.Closed)
	}
	switch {
	case before.torn:
		v.torn, v.lost = true, true
		v.report.note(v.folder(), "after missing records only signatures were checked: verify a copy of this year and those after it alone")
	case len(v.segments) == 0 && v.newest():
		// A crash, or a check, between the end of one year and the next.
	case closed.Year != 0 && closed.Year != int(v.Shard):
		v.torn, v.lost = true, true
		v.report.find(-1, v.folder(), problem(7, "year-missing", "the log goes on in year %d, which is missing: verify a copy of this year and those after it alone", closed.Year))
	case closed.Year == 0:
		v.report.find(before.at(before.tree.Size())-1, v.folder(), problem(7, "year", "the year before was not closed"))
	}
}

// placed wants the record that begins a year to be the first of its shard, and
// no other first record in a shard with a year.
func (v *verification) placed(rec runner.Record, name string) {
	_, begins := rec.Event.(runner.Continued)
	first := rec.Index == v.Before && v.Shard != 0
	switch {
	case begins != first:
		v.report.find(int64(rec.Index), name, problem(7, "year", "%s at place %d of the year", rec.Event.Kind(), rec.Index-v.Before))
	case first && rec.At.UTC().Year() < int(v.Shard):
		v.report.find(int64(rec.Index), name, problem(7, "year", "the year begins at %s", stamp(rec.At)))
	case first && v.year == v.years[0]:
		v.report.State.Resume(rec)
	}
}

// passOver says that what the record follows happened in years that are not at
// hand, so that it cannot be judged.
func (v *verification) passOver(rec runner.Record) bool {
	elsewhere := v.replay.Chains.begunElsewhere
	chain := rec.Event.Chain()
	switch {
	case v.replay.Chains.elsewhere == nil:
		return false
	case chain != runner.LogChain && (elsewhere(chain) || v.loose[chain]):
	case v.report.State.Follows(rec.Event, elsewhere):
		return false
	}
	v.loose[chain] = chain != runner.LogChain
	v.unfollowed++
	v.report.State.Skip(rec)
	return true
}

// checkYears compares what each shard says of the one before with that one.
func (v *verification) checkYears() {
	if first := v.years[0]; v.replay.Chains.elsewhere != nil {
		v.report.note(first.folder(), fmt.Sprintf("%s before this year are not at hand; of those that are, %d follow them and could not be followed back",
			plural(int(first.Before), "record"), v.unfollowed))
	}
	var inEffect []runner.Digest
	for i, y := range v.years[1:] {
		before := v.years[i]
		for _, rec := range before.records {
			switch rec.Event.(type) {
			case runner.Opened, runner.Continued:
				inEffect = Inputs(rec.Event)
			}
		}
		if before.torn || y.lost || len(y.records) == 0 {
			continue
		}
		got, ok := y.records[0].Event.(runner.Continued)
		if !ok {
			continue // found already
		}
		name := before.checkpoints[before.tree.Size()]
		b, err := fs.ReadFile(v.fsys, name)
		if err != nil {
			continue // found already: a year that is not the newest lacks its checkpoint
		}
		cp, err := v.keys.CheckpointIn(before.Place, b)
		if err != nil {
			continue // found already
		}
		if want := before.Continuation(cp, b, inEffect); !reflect.DeepEqual(got, want) {
			v.report.find(int64(y.records[0].Index), v.files[int64(y.records[0].Index)], problem(7, "year",
				"the year says that it continues %+v, the year before ends with %+v", got, want))
		}
	}
}

// inNextYear says that the next shard has this attachment too.
func (v *verification) inNextYear(name string) bool {
	_, plain := SplitShard(name)
	for i, y := range v.years[1:] {
		if v.years[i] == v.year {
			_, there := y.blobs[y.Name(plain)]
			return there
		}
	}
	return false
}

// yearOf is the shard that holds a record.
func (v *verification) yearOf(rec runner.Record) *year {
	for _, y := range v.years {
		if rec.Index < y.Before+y.tree.Size() {
			return y
		}
	}
	return v.years[len(v.years)-1]
}
