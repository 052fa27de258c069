package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// list sorts the files of the ledger by what they should be. Its order allows
// for a daemon that goes on writing: what is listed first was written last, so
// that what it rests on is there when it is listed.
func (v *verification) list() error {
	shards, err := v.shards()
	if err != nil {
		return err
	}
	lists := []string{ViewFolder}
	for _, s := range slices.Backward(shards) {
		y := newYear(s)
		if b, err := fs.ReadFile(v.fsys, s.Name(ViewCheckpoint)); err == nil {
			y.viewHeadBytes = b
		}
		v.years = append(v.years, y)
		lists = append(lists, s.Name(CheckpointFolder), s.Name(SegmentFolder))
	}
	slices.Reverse(v.years)
	temp := 0
	for _, folder := range append(slices.Clone(lists), ".") {
		err := fs.WalkDir(v.fsys, strings.TrimSuffix(folder, "/"), func(name string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // a folder without objects, or a partial tile just replaced
			case err != nil:
				return fmt.Errorf("list the ledger: %w", err)
			case d.IsDir() && folder == "." && slices.Contains(lists, name+"/"):
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
	for _, y := range v.years {
		slices.Sort(y.segments)
	}
	v.dropEmpty()
	return nil
}

// shards are those that have a folder or a view, the first among them whether
// it has anything or not.
func (v *verification) shards() ([]Shard, error) {
	out := []Shard{0}
	for _, folder := range []string{ViewFolder, "."} {
		entries, err := fs.ReadDir(v.fsys, strings.TrimSuffix(folder, "/"))
		if err != nil && !(folder == ViewFolder && errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("list the ledger: %w", err)
		}
		for _, e := range entries {
			if s, ok := ParseShard(e.Name()); ok && e.IsDir() {
				out = append(out, s)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// dropEmpty forgets years that are not at hand, of which at most attachments
// or the view are left.
func (v *verification) dropEmpty() {
	for len(v.years) > 1 && len(v.years[0].segments)+len(v.years[0].checkpoints) == 0 {
		y := v.years[0]
		if n := len(y.blobNames) + len(y.view); n > 0 {
			v.report.note(cmp.Or(strings.TrimSuffix(y.Folder(), "/"), strings.TrimSuffix(BlobFolder, "/")),
				fmt.Sprintf("%s of a year whose records are not at hand", plural(n, "object")))
		}
		v.years = v.years[1:]
	}
}

func (v *verification) sort(name string) {
	unexpected := problem(7, "unexpected-file", "a ledger has no file of this name")
	shard, plain := SplitShard(name)
	i, listed := slices.BinarySearchFunc(v.years, shard, func(y *year, s Shard) int { return cmp.Compare(y.Shard, s) })
	if !listed {
		v.report.note(name, "the year began during this check")
		return
	}
	y := v.years[i]
	switch {
	case strings.HasPrefix(plain, SegmentFolder):
		if _, err := ParseNumbered(SegmentFolder, plain); err != nil {
			v.report.find(-1, name, unexpected)
			return
		}
		y.segments = append(y.segments, name)
	case strings.HasPrefix(plain, CheckpointFolder):
		size, err := ParseNumbered(CheckpointFolder, plain)
		if err != nil {
			v.report.find(-1, name, unexpected)
			return
		}
		y.checkpoints[size] = name
	case strings.HasPrefix(plain, BlobFolder):
		y.blobNames = append(y.blobNames, name)
	case strings.HasPrefix(plain, ViewFolder):
		y.view = append(y.view, name)
	default:
		v.report.find(-1, name, unexpected)
	}
}
