package evidence

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The folders of a ledger, in the shard of the year in which it began; of those
// in a later year see [Shard.Name]. Segments, checkpoints and blobs are written once;
// the view is derived from them; what is under tmp never counted.
const (
	SegmentFolder    = "seg/"
	CheckpointFolder = "checkpoints/"
	BlobFolder       = "blobs/sha256/"
	ViewFolder       = "view/"
	TempFolder       = "tmp/"
	ViewCheckpoint   = ViewFolder + "checkpoint"
)

// SegmentName is the object that holds records from first on.
func SegmentName(first uint64) string { return fmt.Sprintf("%s%020d", SegmentFolder, first) }

// CheckpointName is the object that holds the checkpoint of this size.
func CheckpointName(size uint64) string { return fmt.Sprintf("%s%020d", CheckpointFolder, size) }

// BlobName is the object that holds the attachment with this digest.
func BlobName(d runner.Digest) string { return BlobFolder + d.Hex() }

// ViewName is the object that holds this tile of the view.
func ViewName(t Tile) string { return ViewFolder + t.Path() }

// ParseNumbered is the number in the name of a segment or checkpoint; folder
// is [SegmentFolder] or [CheckpointFolder].
func ParseNumbered(folder, name string) (uint64, error) {
	digits, ok := strings.CutPrefix(name, folder)
	if !ok || len(digits) != 20 {
		return 0, fmt.Errorf("%.120q is not a name in %s", name, folder)
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || fmt.Sprintf("%s%020d", folder, n) != name {
		return 0, fmt.Errorf("%.120q is not a name in %s", name, folder)
	}
	return n, nil
}
