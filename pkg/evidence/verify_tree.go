package evidence

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// checkCheckpoints wants one valid checkpoint for the end of every segment. A
// crash between the last segment and its checkpoint leaves one segment without.
func (v *verification) checkCheckpoints() {
	if v.lost {
		return // said already
	}
	v.lateCheckpoints()
	wrong := 0
	for _, size := range slices.Sorted(maps.Keys(v.checkpoints)) {
		name := v.checkpoints[size]
		b, ok := v.read(name)
		if !ok {
			continue
		}
		cp, err := v.keys.CheckpointIn(v.Place, b)
		if err == nil {
			err = v.checkSize(cp, size)
		}
		if err == nil {
			if err = v.checkRoot(cp); err != nil {
				// One changed record makes every later root another one.
				if wrong++; wrong > 1 {
					continue
				}
			}
		}
		if err != nil {
			v.report.find(v.at(size)-1, name, err) // it was written for that record
			continue
		}
		v.report.Head = string(b)
	}
	if wrong > 1 {
		v.report.find(-1, strings.TrimSuffix(v.Name(CheckpointFolder), "/"), problem(7, "checkpoint-root",
			"%d more checkpoints sign other roots than the records have", wrong-1))
	}
	v.checkCovered()
}

// lateCheckpoints adds those that were written after the folder was listed: a
// segment is begun only when the checkpoint of the one before it stands.
func (v *verification) lateCheckpoints() {
	for _, end := range v.ends {
		if _, ok := v.checkpoints[end]; ok {
			continue
		}
		if _, err := fs.Stat(v.fsys, v.Name(CheckpointName(end))); err == nil {
			v.checkpoints[end] = v.Name(CheckpointName(end))
		}
	}
}

func (v *verification) viewName(t Tile) string { return v.Name(ViewName(t)) }

func (v *verification) checkSize(cp Checkpoint, size uint64) error {
	_, ends := slices.BinarySearch(v.ends, cp.Size)
	switch {
	case cp.Size != size:
		return problem(7, "checkpoint-size", "the checkpoint is of size %d, its name says %d", cp.Size, size)
	case !v.torn && cp.Size > v.tree.Size():
		return problem(7, "segment-missing", "the checkpoint signs %d records, the ledger holds %d", cp.Size, v.tree.Size())
	case !v.torn && !ends:
		return problem(7, "checkpoint-size", "no segment ends at record %d", cp.Size)
	}
	return nil
}

// checkRoot passes over what lies beyond missing records: that they are
// missing was said already.
func (v *verification) checkRoot(cp Checkpoint) error {
	root, err := v.tree.Root(cp.Size)
	if v.torn && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if v.torn && len(v.ends) > 0 && cp.Size > v.ends[len(v.ends)-1] {
		return nil
	}
	if root != cp.Root {
		return problem(7, "checkpoint-root", "the first %d records have the root %s, the checkpoint signs %s",
			cp.Size, base64.StdEncoding.EncodeToString(root[:]), base64.StdEncoding.EncodeToString(cp.Root[:]))
	}
	return nil
}

func (v *verification) checkCovered() {
	for i, end := range v.ends {
		if _, ok := v.checkpoints[end]; ok {
			continue
		}
		if i == len(v.ends)-1 && !v.torn && v.newest() {
			v.report.note(v.segments[len(v.segments)-1], "the last segment has no checkpoint yet: the daemon ended between the two, or still writes")
			continue
		}
		v.report.find(v.at(end)-1, v.Name(CheckpointName(end)), problem(7, "checkpoint-missing", "the segment that ends at record %d has no checkpoint", v.at(end)))
	}
}

// checkView compares the view with the log that it is derived from. A view
// that lags is in order; one that says something else is not.
func (v *verification) checkView() {
	if v.lost {
		return
	}
	if len(v.view) == 0 {
		v.report.note(strings.TrimSuffix(v.Name(ViewFolder), "/"), "there is no view; it can be rebuilt from the log")
		return
	}
	have := map[string]bool{}
	for _, name := range v.view {
		if name != v.Name(ViewCheckpoint) {
			have[name] = v.viewTile(name)
		}
	}
	switch {
	case v.viewHeadBytes == nil && slices.Contains(v.view, v.Name(ViewCheckpoint)):
		v.report.note(v.Name(ViewCheckpoint), "the view was first published during this check")
		return
	case v.viewHeadBytes == nil:
		v.report.find(-1, v.Name(ViewCheckpoint), problem(7, "view", "the view has tiles and no checkpoint"))
		return
	}
	head := v.viewHead(v.viewHeadBytes)
	if head == nil || v.torn {
		return
	}
	for _, tile := range NewTiles(0, head.Size) {
		full := tile
		full.Width = TileWidth
		// A full tile replaces its partial ones.
		if name := v.viewName(tile); !have[name] && !have[v.viewName(full)] {
			v.report.find(-1, name, problem(7, "view", "the view's checkpoint covers this tile, which is missing"))
		}
	}
	if head.Size < v.tree.Size() {
		v.report.note(v.Name(ViewCheckpoint), fmt.Sprintf("the view shows %d of %d records", head.Size, v.tree.Size()))
	}
}

func (v *verification) viewHead(b []byte) *Checkpoint {
	cp, err := v.keys.CheckpointIn(v.Place, b)
	if err == nil && !v.torn {
		err = v.viewRoot(cp)
	}
	if err != nil {
		v.report.find(-1, v.Name(ViewCheckpoint), err)
		return nil
	}
	return &cp
}

func (v *verification) viewRoot(cp Checkpoint) error {
	if cp.Size > v.tree.Size() {
		return problem(7, "view", "the view shows %d records, the ledger holds %d", cp.Size, v.tree.Size())
	}
	if _, ok := v.checkpoints[cp.Size]; !ok && cp.Size > 0 {
		return problem(7, "checkpoint-missing", "the view shows the checkpoint of size %d, which the ledger does not hold", cp.Size)
	}
	if err := v.checkRoot(cp); err != nil {
		return problem(7, "view", "the view's checkpoint signs another root than the first %d records have", cp.Size)
	}
	return nil
}

// viewTile compares a tile with the records and says whether it is there.
func (v *verification) viewTile(name string) bool {
	tile, err := ParseTilePath(strings.TrimPrefix(name, v.Name(ViewFolder)))
	if err != nil {
		v.report.find(-1, name, problem(7, "unexpected-file", "a view has no file of this name"))
		return false
	}
	b, err := fs.ReadFile(v.fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		v.report.find(-1, name, problem(7, "unreadable", "%v", err))
	case v.torn:
	case !tile.Within(v.tree.Size()):
		v.report.find(-1, name, problem(7, "view", "the tile shows more than the %d records of the ledger", v.tree.Size()))
	default:
		if at, ok := v.contradiction(tile, b); ok {
			v.report.find(v.at(uint64(at)), name, problem(7, "view", "the tile contradicts the records from %d on", v.at(uint64(at))))
		}
	}
	return true
}

// contradiction is the first record that the tile shows otherwise than it is.
// Of a hash tile it is the first record below the first hash that differs.
func (v *verification) contradiction(tile Tile, b []byte) (int64, bool) {
	first := tile.N * TileWidth
	if !tile.Entries {
		span := uint64(1) // records below one hash
		for range tile.Level {
			span *= TileWidth
		}
		want, err := v.tree.TileData(tile)
		if err != nil || bytes.Equal(b, want) {
			return int64(first * span), err != nil
		}
		same := 0
		for same < min(len(b), len(want)) && b[same] == want[same] {
			same++
		}
		return int64((first + uint64(min(same/tlog.HashSize, tile.Width-1))) * span), true
	}
	entries, err := Entries(b)
	for i, envelope := range entries {
		if i == tile.Width || tlog.RecordHash(envelope) != v.tree.Leaf(first+uint64(i)) {
			return int64(first) + int64(min(i, tile.Width-1)), true
		}
	}
	if err != nil || len(entries) != tile.Width {
		return int64(first) + int64(min(len(entries), tile.Width-1)), true
	}
	return 0, false
}

// checkWitnessed wants the log to hold what it held when the auditor saw it.
func (v *verification) checkWitnessed(signed []byte) {
	const name = "witnessed checkpoint"
	origin, _, _ := strings.Cut(string(signed), "\n")
	err := error(problem(7, "rollback", "the witnessed checkpoint is of %.120q, and of that year nothing is at hand", origin))
	for i, y := range v.years {
		// What is of no log at all is judged by the first year.
		if y.Origin(v.report.Origin) == origin || i == 0 && !v.isYear(origin) {
			v.year = y
			err = v.witnessed(signed)
		}
	}
	if err != nil {
		v.report.find(-1, name, err)
	}
}

// isYear says that this is the name of a year of this log.
func (v *verification) isYear(origin string) bool {
	folder, below := strings.CutPrefix(origin, v.report.Origin+"/")
	_, ok := ParseShard(folder)
	return origin == v.report.Origin || below && ok
}

func (v *verification) witnessed(signed []byte) error {
	cp, _, err := v.keys.openCheckpoint(v.Place, signed)
	switch size := v.tree.Size(); {
	case err != nil:
		return err
	case v.torn:
		return problem(7, "rollback", "records are missing, so the witnessed checkpoint of size %d cannot be found", cp.Size)
	case cp.Size > size:
		return problem(7, "rollback", "the log had %d records when it was witnessed and has %d now", cp.Size, size)
	}
	if root, err := v.tree.Root(cp.Size); err != nil || root != cp.Root {
		return problem(7, "fork", "the first %d records are not those that were witnessed", cp.Size)
	}
	return nil
}
