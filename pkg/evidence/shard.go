package evidence

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Shard is one calendar year of a log, with segments, checkpoints, attachments
// and a tree of its own, so that a year can be kept, copied, verified and left
// to expire as a whole. It is the year, or 0 for the one in which the log
// began: that one has no folder, because attachments are stored before the
// first record says which year it is.
//
//	seg/…        checkpoints/…        blobs/…        view/…         the first
//	2027/seg/…   2027/checkpoints/…   2027/blobs/…   view/2027/…    later ones
type Shard int

// yearDigits is the length of a year's name.
const yearDigits = 4

// Folder is the shard's folder with its slash, empty for the first.
func (s Shard) Folder() string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%0*d/", yearDigits, int(s))
}

// Name is the object of this shard that is called so in the first.
func (s Shard) Name(name string) string {
	if rest, derived := strings.CutPrefix(name, ViewFolder); derived {
		return ViewFolder + s.Folder() + rest
	}
	return s.Folder() + name
}

// Origin is the name of the shard's tree in the log of this origin.
func (s Shard) Origin(origin string) string {
	return strings.TrimSuffix(origin+"/"+s.Folder(), "/")
}

// ParseShard is the shard with this folder, which may or may not end in a slash.
func ParseShard(folder string) (Shard, bool) {
	folder = strings.TrimSuffix(folder, "/")
	year, err := strconv.ParseUint(folder, 10, 31)
	s := Shard(year)
	return s, err == nil && year > 0 && s.Folder() == folder+"/"
}

// SplitShard is the inverse of [Shard.Name].
func SplitShard(name string) (Shard, string) {
	inView := ""
	if rest, derived := strings.CutPrefix(name, ViewFolder); derived {
		name, inView = rest, ViewFolder
	}
	folder, rest, below := strings.Cut(name, "/")
	if s, ok := ParseShard(folder); ok && below {
		return s, inView + rest
	}
	return 0, inView + name
}

// Place is where a shard stands in its log.
type Place struct {
	Shard
	// Before is how many records the log has before it.
	Before uint64
}

// Continuation is the record that begins the shard after this one, which ends
// with this checkpoint and with these attachments in effect.
func (p Place) Continuation(cp Checkpoint, signed []byte, inEffect []runner.Digest) runner.Continued {
	return runner.Continued{
		Origin: cp.Origin, Size: cp.Size, Root: runner.Digest(fmt.Sprintf("sha256:%x", cp.Root[:])),
		Checkpoint: runner.DigestOf(signed), Before: p.Before + cp.Size, InEffect: inEffect,
	}
}
