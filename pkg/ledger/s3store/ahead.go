package s3store

import (
	"context"
	"slices"
	"strings"

	"github.com/runnerward/runnerward/pkg/evidence"
)

// together is how many objects are asked for at once: a ledger has many small
// ones, and each costs a round trip.
const together = 32

// listing is a folder of write-once objects as it was listed last. Whoever
// lists a folder reads it next, from its first object to its last: a daemon
// that starts, and a verifier. So objects are read ahead of them. That is safe
// because the oldest version of an object is the same for ever.
type listing struct {
	names    []string // sorted
	versions []string // the oldest of each
	next     int      // where a reader in order comes next
	ahead    map[string]chan answer
}

type answer struct {
	data []byte
	err  error
}

// folderOf is the top folder of a name in its shard, with its slash: seg/ or
// 2027/seg/, and view/ for all shards.
func folderOf(name string) string {
	if strings.HasPrefix(name, evidence.ViewFolder) {
		return evidence.ViewFolder
	}
	shard, plain := evidence.SplitShard(name)
	folder, _, _ := strings.Cut(plain, "/")
	return shard.Folder() + folder + "/"
}

// keep remembers what was listed, until its last object is read.
func (s *Store) keep(folder string, found map[string]history, names []string) {
	l := &listing{names: names, ahead: map[string]chan answer{}}
	for _, name := range names {
		l.versions = append(l.versions, found[name].oldest())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listings[folder] = l
}

// known is the oldest version of an object from the last listing, empty if it
// was not in one, and the object itself if it is being read ahead.
func (s *Store) known(ctx context.Context, name string) (version string, coming <-chan answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	folder := folderOf(name)
	l := s.listings[folder]
	if l == nil {
		return "", nil
	}
	at, listed := slices.BinarySearch(l.names, name)
	if !listed {
		return "", nil
	}
	if at == l.next {
		for i := at + 1; i < min(at+together, len(l.names)); i++ {
			if next := l.names[i]; l.ahead[next] == nil {
				l.ahead[next] = s.begin(ctx, next, l.versions[i])
			}
		}
	}
	coming = l.ahead[name]
	delete(l.ahead, name)
	l.next = at + 1
	if l.next == len(l.names) {
		delete(s.listings, folder)
	}
	return l.versions[at], coming
}

// begin reads an object for whoever comes to it.
func (s *Store) begin(ctx context.Context, name, version string) chan answer {
	out := make(chan answer, 1)
	go func() {
		data, err := s.get(ctx, name, version)
		out <- answer{data, err}
	}()
	return out
}
