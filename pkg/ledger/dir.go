package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/runnerward/runnerward/pkg/evidence"
)

const tempFolder = "tmp"

// Dir is a [Store] in a folder of a local filesystem that has hard links, such
// as ext4 or xfs. Network filesystems are not supported: neither link(2) nor
// fsync(2) keeps its promise on all of them.
//
// An object is written to a temporary file, synced, and linked to its name:
// link(2) fails if the name exists, which makes it create-once. Then the
// folder is synced. A sync that fails is final for this Dir: the kernel may
// have dropped the dirty pages and would report success to the next attempt.
type Dir struct {
	root *os.Root

	mu     sync.Mutex
	failed error // the first failed sync
}

// OpenDir opens the ledger in this folder and creates what is missing. The
// path must be absolute, so that it does not depend on where a daemon was
// started. What a crash left unfinished is removed; another process that is
// just writing there fails and may try again.
func OpenDir(folder string) (*Dir, error) {
	if !filepath.IsAbs(folder) {
		return nil, fmt.Errorf("ledger folder %q is not an absolute path", folder)
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, fmt.Errorf("create ledger folder: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open ledger folder: %w", err)
	}
	d := &Dir{root: root}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// prepare also syncs the folders: a crash may have come after a link and
// before its sync, and what is visible must be durable before it is built on.
func (d *Dir) prepare() error {
	if err := d.root.RemoveAll(tempFolder); err != nil {
		return fmt.Errorf("remove unfinished files: %w", err)
	}
	for _, folder := range []string{tempFolder, "seg", "checkpoints", "blobs/sha256", "view"} {
		if err := d.root.MkdirAll(folder, 0o750); err != nil {
			return fmt.Errorf("create folder: %w", err)
		}
	}
	folders := []string{"seg", "checkpoints", "blobs/sha256", "blobs", "view", "."}
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	for _, e := range entries {
		if shard, ok := evidence.ParseShard(e.Name()); ok && e.IsDir() {
			for _, folder := range []string{"seg", "checkpoints", "blobs/sha256", "blobs", "."} {
				folders = append(folders, path.Clean(shard.Name(folder)))
			}
		}
	}
	for _, folder := range folders {
		if err := d.syncFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// FS is the folder for reading, as a verifier wants it.
func (d *Dir) FS() fs.FS { return d.root.FS() }

// Close releases the folder.
func (d *Dir) Close() error { return d.root.Close() }

// Create implements [Store].
func (d *Dir) Create(ctx context.Context, name string, data []byte) error {
	if err := CheckName(name, false); err != nil {
		return err
	}
	return d.place(ctx, name, data, func(temp string) error {
		err := d.root.Link(temp, name)
		if errors.Is(err, fs.ErrExist) {
			return ErrExists
		}
		return err
	})
}

// Publish implements [Store].
func (d *Dir) Publish(ctx context.Context, name string, data []byte) error {
	if err := CheckName(name, true); err != nil {
		return err
	}
	return d.place(ctx, name, data, func(temp string) error { return d.root.Rename(temp, name) })
}

// place writes the data to a temporary file and lets put give it its name.
func (d *Dir) place(ctx context.Context, name string, data []byte, put func(temp string) error) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	folder := path.Dir(name)
	if err := d.ensureFolder(folder); err != nil {
		return err
	}
	temp := path.Join(tempFolder, rand.Text())
	err := d.writeTemp(temp, data)
	if err == nil {
		err = put(temp)
	}
	// A temporary file that stays is removed by the next open.
	if removed := d.root.Remove(temp); err == nil && removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		err = removed
	}
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("write %s: %w", name, err)
	}
	// The object of another writer may not be durable yet either.
	if synced := d.syncFolder(folder); synced != nil {
		return synced
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

func (d *Dir) writeTemp(temp string, data []byte) error {
	f, err := d.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		if err = f.Sync(); err != nil {
			err = d.fail(err)
		}
	}
	return errors.Join(err, f.Close())
}

// ensureFolder creates a folder with all that leads to it, durably.
func (d *Dir) ensureFolder(folder string) error {
	if info, err := d.root.Stat(folder); err == nil && info.IsDir() {
		return nil
	}
	if err := d.root.MkdirAll(folder, 0o750); err != nil {
		return fmt.Errorf("create folder %s: %w", folder, err)
	}
	for parent := folder; parent != "."; {
		parent = path.Dir(parent)
		if err := d.syncFolder(parent); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) syncFolder(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", folder, err)
	}
	err = f.Sync()
	if err != nil {
		err = d.fail(err)
	}
	return errors.Join(err, f.Close())
}

func (d *Dir) fail(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = fmt.Errorf("the ledger's disk failed to sync, restart after a check of the disk: %w", err)
	}
	return d.failed
}

func (d *Dir) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// Read implements [Store].
func (d *Dir) Read(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	b, err := d.root.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", name, ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("read object: %w", err)
	}
	return b, nil
}

// List implements [Store].
func (d *Dir) List(ctx context.Context, prefix string) ([]string, error) {
	names := []string{}
	top := path.Dir(prefix + "x")
	err := fs.WalkDir(d.root.FS(), top, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			return nil // nothing under the prefix, or a derived object just removed
		case err != nil:
			return err
		case entry.IsDir() && name == tempFolder:
			return fs.SkipDir
		case !entry.IsDir() && strings.HasPrefix(name, prefix):
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	slices.Sort(names)
	return names, nil
}

// Unpublish implements [Store].
func (d *Dir) Unpublish(ctx context.Context, name string) error {
	if err := CheckName(name, true); err != nil {
		return err
	}
	if err := d.usable(ctx); err != nil {
		return err
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove derived object: %w", err)
	}
	return nil
}
