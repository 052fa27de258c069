package evidence

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
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
		blobs:  map[string]bool{}, changed: map[string]error{}, checkpoints: map[uint64]string{}, files: map[int64]string{},
		roots: map[uint64]Root{},
	}
	if err := v.list(); err != nil {
		return nil, err
	}
	v.readBlobs()
	v.readSegments()
	v.checkSilence()
	v.checkBlobs()
	v.checkDocuments(o.Documents)
	v.checkRoots()
	v.checkCheckpoints()
	v.checkView()
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

	segments    []string
	checkpoints map[uint64]string // by size
	blobNames   []string
	blobs       map[string]bool  // name to "is referenced"
	changed     map[string]error // blobs whose content is not what their name says
	view        []string
	// viewHeadBytes is the view's checkpoint as it was before anything else
	// was listed, nil if there was none.
	viewHeadBytes []byte

	// roots are the keys that the log had followed at each record that names
	// them, by index.
	roots map[uint64]Root

	files map[int64]string // record index to segment
	ends  []uint64         // sizes at which a segment ends
	// torn: records are missing, so that indexes, chains and roots after the
	// place mean nothing. stopped: the fold met a violation.
	torn, stopped bool
}

// list sorts the files of the ledger by what they should be. Its order allows
// for a daemon that goes on writing: what is listed first was written last, so
// that what it rests on is there when it is listed.
func (v *verification) list() error {
	if b, err := fs.ReadFile(v.fsys, ViewCheckpoint); err == nil {
		v.viewHeadBytes = b
	}
	temp := 0
	first := []string{ViewFolder, CheckpointFolder, SegmentFolder}
	for _, folder := range append(first, ".") {
		err := fs.WalkDir(v.fsys, strings.TrimSuffix(folder, "/"), func(name string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // a folder without objects, or a partial tile just replaced
			case err != nil:
				return fmt.Errorf("list the ledger: %w", err)
			case d.IsDir() && folder == "." && slices.Contains(first, name+"/"):
				return fs.SkipDir
			case d.IsDir():
				return nil
			case !d.Type().IsRegular():
				v.report.find(-1, name, problem(7, "unexpected-file", "not a regular file"))
				return nil
			case strings.HasPrefix(name, TempFolder):
				temp++
				return nil
			}
			v.sort(name)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if temp > 0 {
		v.report.note(strings.TrimSuffix(TempFolder, "/"), fmt.Sprintf("%d unfinished files, which are no part of the log", temp))
	}
	slices.Sort(v.segments)
	return nil
}

func (v *verification) sort(name string) {
	unexpected := problem(7, "unexpected-file", "a ledger has no file of this name")
	switch {
	case strings.HasPrefix(name, SegmentFolder):
		if _, err := ParseNumbered(SegmentFolder, name); err != nil {
			v.report.find(-1, name, unexpected)
			return
		}
		v.segments = append(v.segments, name)
	case strings.HasPrefix(name, CheckpointFolder):
		size, err := ParseNumbered(CheckpointFolder, name)
		if err != nil {
			v.report.find(-1, name, unexpected)
			return
		}
		v.checkpoints[size] = name
	case strings.HasPrefix(name, BlobFolder):
		v.blobNames = append(v.blobNames, name)
	case strings.HasPrefix(name, ViewFolder):
		v.view = append(v.view, name)
	default:
		v.report.find(-1, name, unexpected)
	}
}

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
		if got := BlobName(runner.DigestOf(b)); got != name {
			v.changed[name] = problem(10, "blob-digest", "the content has the digest %s, not that of its name", runner.DigestOf(b))
		}
		v.blobs[name] = false
	}
}

func (v *verification) readSegments() {
	for _, name := range v.segments {
		first, err := ParseNumbered(SegmentFolder, name)
		if err != nil {
			continue // sort took only names that parse
		}
		size := v.replay.Tree.Size()
		switch {
		case v.torn:
		case first > size:
			v.torn = true
			v.report.find(int64(size), name, problem(7, "segment-missing", "records %d to %d are missing before this segment", size, first-1))
		case first < size:
			v.report.find(int64(first), name, problem(7, "segment-order", "the segment begins at record %d, which an earlier segment holds", first))
			continue
		}
		v.readSegment(name)
	}
	v.report.Size = v.replay.Tree.Size()
	if v.torn {
		return
	}
	if root, err := v.replay.Tree.Root(v.report.Size); err == nil {
		v.report.RootHash = base64.StdEncoding.EncodeToString(root[:])
	}
}

func (v *verification) readSegment(name string) {
	b, ok := v.read(name)
	if !ok {
		v.torn = true
		return
	}
	entries, err := Entries(b)
	if err != nil || len(entries) == 0 {
		v.report.find(int64(v.replay.Tree.Size()), name, problem(7, "segment-framing", "the segment is cut off after %d records", len(entries)))
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
		v.ends = append(v.ends, v.replay.Tree.Size())
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
	if _, opened := rec.Event.(runner.Opened); opened {
		v.roots[rec.Index] = v.keys.Root()
	}
	if v.stopped {
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
	for _, rec := range v.report.Records {
		for _, d := range inputs(rec.Event) {
			name := BlobName(d)
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
	for _, name := range slices.Sorted(maps.Keys(v.blobs)) {
		// A crash between an attachment and its record leaves one.
		if !v.blobs[name] {
			v.report.note(name, "no record refers to this attachment")
		}
	}
}
