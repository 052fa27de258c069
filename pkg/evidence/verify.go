package evidence

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// MaxSilence is the longest time between two records that needs no
// explanation. A daemon that lives writes a heartbeat every hour.
const MaxSilence = 90 * time.Minute

// VerifyOptions add to what [Verify] checks.
type VerifyOptions struct {
	// Witnessed is a signed checkpoint of the log that the auditor has kept
	// from before. A ledger that was rolled back as a whole to an earlier
	// state is consistent in itself: only this shows that records are gone.
	Witnessed []byte
	// Documents verifies the identity documents of hosts again; nil leaves
	// them as the daemon took them, and a note says so.
	Documents VerifyDocument
	// Objects is the store that the folder shows, if it keeps versions under
	// lock. A copy of a ledger has neither.
	Objects Objects
}

// Verify checks the ledger in this folder against the keys of the root. What
// is wrong with the ledger is in the report; the error is for a root that
// cannot be used or a ledger that cannot be listed.
func Verify(fsys fs.FS, root Root) (*Report, error) { return VerifyOptions{}.Verify(fsys, root) }

// Verify is [Verify] with these options.
func (o VerifyOptions) Verify(fsys fs.FS, root Root) (*Report, error) {
	keys, err := root.Verifier()
	if err != nil {
		return nil, err
	}
	v := &verification{
		fsys: fsys, keys: keys, replay: NewReplay(keys),
		report: &Report{Origin: root.Origin, State: runner.NewState(), Findings: []Finding{}, Notes: []Note{}},
		files:  map[int64]string{}, roots: map[uint64]Root{}, loose: map[runner.Chain]bool{},
	}
	if err := v.list(); err != nil {
		return nil, err
	}
	v.each(v.readBlobs)
	v.readYears()
	v.checkSilence()
	v.each(v.checkBlobs)
	v.checkDocuments(o.Documents)
	v.each(v.checkRoots)
	v.checkFollowed()
	v.each(v.checkCheckpoints)
	v.checkYears()
	v.each(v.checkView)
	if o.Witnessed != nil {
		v.checkWitnessed(o.Witnessed)
	}
	if o.Objects != nil {
		if err := v.checkObjects(o.Objects); err != nil {
			return nil, err
		}
	}
	v.report.count()
	return v.report, nil
}

type verification struct {
	fsys   fs.FS
	keys   *Verifier
	replay *Replay
	report *Report

	// years are the shards at hand, the oldest first; the one that is being
	// checked is embedded.
	years []*year
	*year

	// roots are the keys that the log had followed at each record that names
	// them, by index.
	roots map[uint64]Root
	files map[int64]string // record index to segment
	// stopped: the fold met a violation.
	stopped bool
	// loose are the chains of which a record could not be followed back to
	// years that are not at hand, unfollowed is the number of such records.
	loose      map[runner.Chain]bool
	unfollowed int
}

// year is what lies in one shard, under the full names of its objects.
type year struct {
	Place
	tree        *Tree
	records     []runner.Record
	segments    []string
	checkpoints map[uint64]string // by size
	blobNames   []string
	blobs       map[string]bool  // name to "is referenced"
	changed     map[string]error // blobs whose content is not what their name says
	view        []string
	// viewHeadBytes is the view's checkpoint as it was before anything else
	// was listed, nil if there was none.
	viewHeadBytes []byte

	ends []uint64 // sizes at which a segment ends
	// torn: records are missing, so that indexes, chains and roots after the
	// place mean nothing. lost: they are missing before this shard.
	torn, lost bool
}

func newYear(s Shard) *year {
	return &year{
		Place: Place{Shard: s}, tree: &Tree{}, checkpoints: map[uint64]string{},
		blobs: map[string]bool{}, changed: map[string]error{},
	}
}

// each checks one shard after the other.
func (v *verification) each(check func()) {
	for _, y := range v.years {
		v.year = y
		check()
	}
}

// newest says that no later shard is at hand.
func (v *verification) newest() bool { return v.year == v.years[len(v.years)-1] }

// read is the content of a file; a file that cannot be read is a finding.
func (v *verification) read(name string) ([]byte, bool) {
	b, err := fs.ReadFile(v.fsys, name)
	if err != nil {
		v.report.find(-1, name, problem(7, "unreadable", "%v", err))
		return nil, false
	}
	return b, true
}

func (v *verification) readBlobs() {
	for _, name := range v.blobNames {
		b, ok := v.read(name)
		if !ok {
			continue
		}
		if got := v.Name(BlobName(runner.DigestOf(b))); got != name {
			v.changed[name] = problem(10, "blob-digest", "the content has the digest %s, not that of its name", runner.DigestOf(b))
		}
		v.blobs[name] = false
	}
}

func (v *verification) readSegments() {
	for _, name := range v.segments {
		_, plain := SplitShard(name)
		first, err := ParseNumbered(SegmentFolder, plain)
		if err != nil {
			continue // sort took only names that parse
		}
		size := v.tree.Size()
		switch {
		case v.torn:
		case first > size:
			v.torn = true
			v.report.find(v.at(size), name, problem(7, "segment-missing", "records %d to %d are missing before this segment", v.at(size), v.at(first)-1))
		case first < size:
			v.report.find(v.at(first), name, problem(7, "segment-order", "the segment begins at record %d, which an earlier segment holds", v.at(first)))
			continue
		}
		v.readSegment(name)
	}
}

// at is the index in the log of a record of this shard.
func (y *year) at(inShard uint64) int64 { return int64(y.Before + inShard) }

func (v *verification) readSegment(name string) {
	b, ok := v.read(name)
	if !ok {
		v.torn = true
		return
	}
	entries, err := Entries(b)
	if err != nil || len(entries) == 0 {
		v.report.find(v.at(v.tree.Size()), name, problem(7, "segment-framing", "the segment is cut off after %d records", len(entries)))
	}
	for _, envelope := range entries {
		if v.torn {
			v.looseRecord(name, envelope)
			continue
		}
		v.record(name, envelope)
	}
	if err != nil {
		v.torn = true
	}
	if !v.torn {
		v.ends = append(v.ends, v.tree.Size())
	}
}

// looseRecord checks what can be said of a record whose place is not known.
func (v *verification) looseRecord(name string, envelope []byte) {
	if _, _, err := v.keys.Envelope(envelope); err != nil {
		v.report.find(-1, name, err)
	}
}

func (v *verification) record(name string, envelope []byte) {
	rec, errs := v.replay.Next(envelope)
	v.files[int64(rec.Index)] = name
	for _, err := range errs {
		v.report.find(int64(rec.Index), name, err)
	}
	if rec.Event == nil {
		v.stop(rec.Index)
		return
	}
	v.report.Records = append(v.report.Records, rec)
	v.records = append(v.records, rec)
	if _, opened := rec.Event.(runner.Opened); opened {
		v.roots[rec.Index] = v.keys.Root()
	}
	v.placed(rec, name)
	if v.stopped || v.passOver(rec) {
		return
	}
	if err := v.report.State.Apply(rec); err != nil {
		v.report.find(int64(rec.Index), name, err)
		v.stop(rec.Index)
	}
}

func (v *verification) stop(at uint64) {
	if !v.stopped {
		v.stopped = true
		v.report.note("", fmt.Sprintf("from record %d on, the order of events was not checked", at))
	}
}

// checkSilence wants a gap record right after a silence; the daemon may have
// to say first that it opened the log.
func (v *verification) checkSilence() {
	recs := v.report.Records
	for i := 1; i < len(recs); i++ {
		before, after := recs[i-1], recs[i]
		if _, begins := after.Event.(runner.Continued); begins && after.At.Sub(before.At) > MaxSilence {
			// Nothing may stand between the end of a year and the next.
			v.report.note(v.files[int64(after.Index)], fmt.Sprintf("nothing was recorded from %s to %s: the daemon ended between two years", stamp(before.At), stamp(after.At)))
			continue
		}
		if after.Index != before.Index+1 || after.At.Sub(before.At) <= MaxSilence || v.explained(recs[i:], before.At) {
			continue
		}
		v.report.find(int64(after.Index), v.files[int64(after.Index)], problem(7, "silence",
			"nothing was recorded from %s to %s and no gap record says why", stamp(before.At), stamp(after.At)))
	}
}

func (v *verification) explained(after []runner.Record, since time.Time) bool {
	if _, opened := after[0].Event.(runner.Opened); opened && len(after) > 1 {
		after = after[1:]
	}
	gap, ok := after[0].Event.(runner.Gap)
	return ok && !gap.Since.After(since.Add(MaxSilence)) && !gap.Until.Before(after[0].At.Add(-MaxSilence))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func (v *verification) checkBlobs() {
	for _, rec := range v.records {
		for _, d := range Inputs(rec.Event) {
			name := v.Name(BlobName(d))
			if _, ok := v.blobs[name]; !ok {
				v.report.find(int64(rec.Index), name, problem(10, "blob-missing",
					"record %d rests on an attachment that is not in the ledger", rec.Index))
				continue
			}
			v.blobs[name] = true
			if err, ok := v.changed[name]; ok {
				v.report.find(int64(rec.Index), name, err)
				delete(v.changed, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.changed)) {
		v.report.find(-1, name, v.changed[name]) // no record that can be read refers to it
	}
	if v.torn {
		return // records that could not be put in their place may refer to the others
	}
	for _, name := range slices.Sorted(maps.Keys(v.blobs)) {
		// A crash between an attachment and its record leaves one; so does the
		// end of a year, and then the next year has it too.
		if !v.blobs[name] && !v.inNextYear(name) {
			v.report.note(name, "no record refers to this attachment")
		}
	}
}
