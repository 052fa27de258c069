package evidence

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/runnerward/runnerward/pkg/runner"
)

// checkRoots compares the public keys that the log holds with those that it is
// verified by: an archived copy that says something else about itself than the
// auditor's root misleads whoever reads it later.
func (v *verification) checkRoots() {
	for _, rec := range v.records {
		if e, rotated := rec.Event.(runner.Rotated); rotated && v.keys.Retired(e.Use, e.Old) {
			v.report.note(v.files[int64(rec.Index)], fmt.Sprintf("record %d hands over from key %.12s to key %.12s (%s)", rec.Index, e.Old, e.New, e.Use))
		}
		opened, ok := rec.Event.(runner.Opened)
		if !ok || opened.RootDigest == "" {
			continue
		}
		name := v.Name(BlobName(opened.RootDigest))
		b, err := fs.ReadFile(v.fsys, name)
		if err != nil || runner.DigestOf(b) != opened.RootDigest {
			continue // checkBlobs has said so
		}
		if err := sameKeys(b, v.roots[rec.Index]); err != nil {
			v.report.find(int64(rec.Index), name, err)
		}
	}
}

// checkFollowed wants no key of the root to wait for its turn in vain.
func (v *verification) checkFollowed() {
	if err := v.keys.unfollowed(v.report.Size); err != nil && !v.years[len(v.years)-1].torn {
		v.report.find(-1, "root", err)
	}
}

// sameKeys compares the keys and leaves their windows out: an auditor may
// narrow those.
func sameKeys(encoded []byte, want Root) error {
	got, err := ParseRoot(encoded)
	switch {
	case err != nil:
		return problem(7, "root", "what the log names as its public keys cannot be used: %v", err)
	case got.Origin != want.Origin:
		return problem(7, "root", "the public keys in the log are of log %.80q, not of %q", got.Origin, want.Origin)
	case got.LogKey != want.LogKey || !slices.Equal(got.NextLogKeys, want.NextLogKeys):
		return problem(7, "root", "the log names other keys for its checkpoints than those it is verified by")
	case !slices.EqualFunc(got.RecordKeys, want.RecordKeys, func(a, b RecordKey) bool { return a.KeyID == b.KeyID }):
		return problem(7, "root", "the log names other keys for its records than those it is verified by")
	}
	return nil
}
