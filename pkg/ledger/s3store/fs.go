package s3store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
)

var (
	_ fs.ReadDirFS     = (*FS)(nil)
	_ fs.ReadFileFS    = (*FS)(nil)
	_ fs.StatFS        = (*FS)(nil)
	_ evidence.Objects = (*FS)(nil)
)

// FS is the ledger as a folder, for a verifier. It reads the oldest version of
// every object and looks past delete markers, and it says what else there is.
// A folder of a shard is listed when it is first looked at, as a whole; what was
// written since is found by its name.
type FS struct {
	// Bound to the context of the audit, which fs.FS has no place for.
	list    func(prefix string) ([]string, error)
	read    func(name string) ([]byte, error)
	top     func(folder string) (folders, files []string, err error)
	objects func(prefix string) (map[string]evidence.Object, error)

	mu      sync.Mutex
	folders map[string][]string // sorted names, by folderOf
}

// FS reads the ledger until the context ends.
func (s *Store) FS(ctx context.Context) *FS {
	return &FS{
		list:    func(prefix string) ([]string, error) { return s.List(ctx, prefix) },
		read:    func(name string) ([]byte, error) { return s.Read(ctx, name) },
		top:     func(folder string) (folders, files []string, err error) { return s.topLevel(ctx, folder) },
		objects: func(prefix string) (map[string]evidence.Object, error) { return s.examine(ctx, prefix) },
		folders: map[string][]string{},
	}
}

// Objects implements [evidence.Objects].
func (f *FS) Objects(folder string) (map[string]evidence.Object, error) { return f.objects(folder) }

// examine asks for the versions and the lock of every object of a folder.
func (s *Store) examine(ctx context.Context, prefix string) (map[string]evidence.Object, error) {
	found, err := s.histories(ctx, prefix, false)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	out := make(map[string]evidence.Object, len(found))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	for name, h := range found {
		group.Go(func() error {
			object := evidence.Object{Versions: len(h.versions), DeleteMarkers: h.markers}
			if oldest := h.oldest(); oldest != "" {
				l, err := s.lockOf(ctx, name, oldest)
				if err != nil {
					return err
				}
				object.Compliance, object.RetainUntil = l.mode == compliance, l.until
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = object
			return nil
		})
	}
	return out, group.Wait()
}

// topLevel lists what lies side by side in the folder of a shard; in that of
// the first, which is empty, with the view's folder.
func (s *Store) topLevel(ctx context.Context, folder string) (folders, files []string, err error) {
	bucket, key := s.place(folder)
	in := &s3.ListObjectVersionsInput{Bucket: bucket, Prefix: key, Delimiter: aws.String("/"), ExpectedBucketOwner: s.owner()}
	err = s.pages(ctx, in, func(out *s3.ListObjectVersionsOutput) (more bool) {
		for _, p := range out.CommonPrefixes {
			folders = append(folders, path.Base(s.name(p.Prefix)))
		}
		for _, v := range out.Versions {
			files = append(files, path.Base(s.name(v.Key)))
		}
		return true
	})
	if err != nil {
		return nil, nil, s.explain("list", "the ledger", err)
	}
	if s.ViewBucket != "" && folder == "" {
		folders = append(folders, strings.TrimSuffix(evidence.ViewFolder, "/"))
	}
	return folders, files, nil
}

// folder is the sorted list of all names below the top folder of a name.
func (f *FS) folder(name string) ([]string, error) {
	top := folderOf(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if names, listed := f.folders[top]; listed {
		return names, nil
	}
	names, err := f.list(top)
	if err != nil {
		return nil, err
	}
	f.folders[top] = names
	return names, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	folders, files := map[string]bool{}, map[string]bool{}
	if folder, ok := shardFolder(name); ok {
		tops, loose, err := f.top(folder)
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
		}
		for _, t := range tops {
			folders[t] = true
		}
		for _, l := range loose {
			files[l] = true
		}
		if name != "." && len(folders)+len(files) == 0 {
			return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
		}
		return entries(folders, files), nil
	}
	names, err := f.folder(name)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	for _, n := range names {
		rest, below := strings.CutPrefix(n, name+"/")
		if !below {
			continue
		}
		if part, _, deeper := strings.Cut(rest, "/"); deeper {
			folders[part] = true
		} else {
			files[part] = true
		}
	}
	if len(folders)+len(files) == 0 {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	return entries(folders, files), nil
}

// shardFolder says whether this is the folder of a shard, and which.
func shardFolder(name string) (folder string, ok bool) {
	if name == "." {
		return "", true
	}
	shard, ok := evidence.ParseShard(name)
	return shard.Folder(), ok
}

func entries(folders, files map[string]bool) []fs.DirEntry {
	var out []fs.DirEntry
	for name := range folders {
		out = append(out, fs.FileInfoToDirEntry(info{name: name, dir: true}))
	}
	for name := range files {
		out = append(out, fs.FileInfoToDirEntry(info{name: name}))
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

// Stat implements [fs.StatFS]. The size of a file is not known.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if name == "." {
		return info{name: ".", dir: true}, nil
	}
	if _, ok := shardFolder(name); ok {
		if _, err := f.ReadDir(name); err != nil {
			return nil, err
		}
		return info{name: name, dir: true}, nil
	}
	names, err := f.folder(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	_, isFile := slices.BinarySearch(names, name)
	below, _ := slices.BinarySearch(names, name+"/")
	switch {
	case isFile:
		return info{name: path.Base(name)}, nil
	case below < len(names) && strings.HasPrefix(names[below], name+"/"):
		return info{name: path.Base(name), dir: true}, nil
	}
	// It may have been written since its folder was listed.
	late, err := f.list(name)
	if err == nil && !slices.Contains(late, name) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info{name: path.Base(name)}, nil
}

// ReadFile implements [fs.ReadFileFS].
func (f *FS) ReadFile(name string) ([]byte, error) {
	data, err := f.read(name)
	if errors.Is(err, ledger.ErrNotFound) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

// Open implements [fs.FS] for files; folders are listed by ReadDir.
func (f *FS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	i, err := f.Stat(name)
	if err == nil && i.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("a folder, which can only be listed")}
	}
	if err != nil {
		return nil, err
	}
	data, err := f.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &opened{bytes.NewReader(data), i}, nil
}

// opened is a file that was read.
type opened struct {
	*bytes.Reader
	info fs.FileInfo
}

func (o *opened) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o *opened) Close() error               { return nil }

// info describes a file or folder.
type info struct {
	name string
	dir  bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return 0 }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
