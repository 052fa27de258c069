package ledger

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Spool keeps signed envelopes near the daemon while the store of the log
// cannot be written. Every method may be repeated after any failure. A Spool
// belongs to one log and is not safe for concurrent use.
type Spool interface {
	// Put makes the envelope of the record with this index durable, whole or
	// not at all. The same bytes again are a success, other bytes an error.
	Put(index uint64, envelope []byte) error
	// List returns the indexes that are kept, in order.
	List() ([]uint64, error)
	// Read returns an envelope's bytes as they were put.
	Read(index uint64) ([]byte, error)
	// Remove forgets an envelope; one that is gone is a success. After a crash
	// it may be there again.
	Remove(index uint64) error
	// Where names the place for a human.
	Where() string
}

const (
	spoolSuffix = ".envelope"
	spoolTemp   = ".new-"
)

// SpoolDir is a [Spool] in a folder of a local filesystem, one file of mode
// 0600 for each envelope. It writes as [Dir] does: temporary file, fsync,
// link, fsync of the folder; a sync that fails is final.
type SpoolDir struct {
	folder string
	root   *os.Root
	failed error
}

// OpenSpoolDir opens the spool in this folder, which must be an absolute path
// and is created when it is missing. What a crash left unfinished is removed.
func OpenSpoolDir(folder string) (*SpoolDir, error) {
	if !filepath.IsAbs(folder) {
		return nil, fmt.Errorf("spool folder %q is not an absolute path", folder)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("create spool folder: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open spool folder: %w", err)
	}
	s := &SpoolDir{folder: folder, root: root}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool %s: %w", folder, err), root.Close())
	}
	return s, nil
}

// prepare makes sure, before any record rests on it, that the folder can be
// written and synced, and that its own entry in its parent survives.
func (s *SpoolDir) prepare() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, spoolTemp) {
			if err := s.root.Remove(name); err != nil {
				return err
			}
		}
	}
	probe, err := s.writeTemp(nil)
	if err != nil {
		return err
	}
	if err := errors.Join(s.root.Remove(probe), s.sync()); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(s.folder))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// Close releases the folder.
func (s *SpoolDir) Close() error { return s.root.Close() }

// Where implements [Spool].
func (s *SpoolDir) Where() string { return s.folder }

func spoolName(index uint64) string { return fmt.Sprintf("%020d%s", index, spoolSuffix) }

// Put implements [Spool].
func (s *SpoolDir) Put(index uint64, envelope []byte) error {
	if s.failed != nil {
		return s.failed
	}
	temp, err := s.writeTemp(envelope)
	if err != nil {
		return fmt.Errorf("write to spool %s: %w", s.folder, err)
	}
	err = s.root.Link(temp, spoolName(index))
	if removed := s.root.Remove(temp); err == nil && removed != nil {
		err = removed
	}
	if errors.Is(err, fs.ErrExist) {
		err = s.same(index, envelope)
	}
	if err != nil {
		return fmt.Errorf("write to spool %s: %w", s.folder, err)
	}
	return s.sync()
}

func (s *SpoolDir) same(index uint64, envelope []byte) error {
	kept, err := s.Read(index)
	if err == nil && !bytes.Equal(kept, envelope) {
		err = fmt.Errorf("%s is another record", spoolName(index))
	}
	return err
}

func (s *SpoolDir) writeTemp(data []byte) (name string, err error) {
	name = spoolTemp + rand.Text()
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		if err = f.Sync(); err != nil {
			err = s.fail(err)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = s.root.Remove(name) // the next open removes it
		return "", err
	}
	return name, nil
}

func (s *SpoolDir) sync() error {
	f, err := s.root.Open(".")
	if err != nil {
		return fmt.Errorf("open spool folder: %w", err)
	}
	err = f.Sync()
	if err != nil {
		err = s.fail(err)
	}
	return errors.Join(err, f.Close())
}

// fail is final: the kernel may have dropped the dirty pages and would report
// success to the next sync.
func (s *SpoolDir) fail(err error) error {
	if s.failed == nil {
		s.failed = fmt.Errorf("the spool's disk failed to sync, restart after a check of the disk: %w", err)
	}
	return s.failed
}

func (s *SpoolDir) names() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list spool %s: %w", s.folder, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// List implements [Spool]. Files of other names are not the spool's.
func (s *SpoolDir) List() ([]uint64, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, spoolSuffix)
		if !ok {
			continue
		}
		index, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || spoolName(index) != name {
			return nil, fmt.Errorf("%s in spool %s is not the name of a record", name, s.folder)
		}
		out = append(out, index)
	}
	slices.Sort(out)
	return out, nil
}

// Read implements [Spool].
func (s *SpoolDir) Read(index uint64) ([]byte, error) {
	b, err := s.root.ReadFile(spoolName(index))
	if err != nil {
		return nil, fmt.Errorf("read spool %s: %w", s.folder, err)
	}
	return b, nil
}

// Remove implements [Spool].
func (s *SpoolDir) Remove(index uint64) error {
	if s.failed != nil {
		return s.failed
	}
	if err := s.root.Remove(spoolName(index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove from spool %s: %w", s.folder, err)
	}
	return nil
}
