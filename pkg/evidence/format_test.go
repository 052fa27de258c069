package evidence_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

func TestPAEIsThatOfTheSpecification(t *testing.T) {
	// https://github.com/secure-systems-lab/dsse/blob/master/protocol.md#test-vectors
	got := string(evidence.PAE("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("PAE = %q, want %q", got, want)
	}
}

func TestTheJobIDFileIsWhatAnyoneCanWriteDown(t *testing.T) {
	got := string(evidence.JobIDFile("https://github.com", 555001, 7000000000, 2, 21000000000))
	if want := "github-actions-job/v1\nhttps://github.com\n555001\n7000000000\n2\n21000000000\n"; got != want {
		t.Errorf("JobIDFile = %q, want %q", got, want)
	}
}

func TestStatementsAreAboutTheJobWhenItIsKnown(t *testing.T) {
	f := newForge(t)
	s := f.script()
	cast := runnertest.NewCast(0)
	chains := evidence.NewChains()
	id := runner.DigestOf(evidence.JobIDFile(runnertest.Server, 555001, cast.RunID, cast.RunAttempt, cast.CheckRunID)).Hex()
	about := map[runner.Kind]bool{runner.KindAuthorized: true, runner.KindStarted: true, runner.KindSealed: true}
	for i, kind := range runnertest.CompletedStory() {
		e, err := s.Next(cast, kind)
		if err != nil {
			t.Fatal(err)
		}
		payload, _, err := chains.Statement(recorder(), s.Now, e)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Must(e); err != nil {
			t.Fatal(err)
		}
		chains.Add(e, s.Records[i].Digest)
		st, err := evidence.ParseStatement(payload)
		if err != nil {
			t.Fatal(err)
		}
		want := runner.DigestOf([]byte(e.Chain())).Hex()
		if about[kind] {
			want = id
		}
		if len(st.Subject) != 1 || st.Subject[0].Digest["sha256"] != want {
			t.Errorf("subject of %s = %+v, want digest %s", kind, st.Subject, want)
		}
		if about[kind] && st.Subject[0].Name != cast.JobURL() {
			t.Errorf("subject of %s is named %s, want %s", kind, st.Subject[0].Name, cast.JobURL())
		}
		wantType := evidence.JobEventType
		if kind == runner.KindSealed {
			wantType = evidence.JobToHostType
		}
		if st.PredicateType != wantType {
			t.Errorf("predicate type of %s = %s, want %s", kind, st.PredicateType, wantType)
		}
	}
}

func TestTilePathsAreThoseOfTlogTiles(t *testing.T) {
	// https://c2sp.org/tlog-tiles#merkle-tree
	for path, tile := range map[string]evidence.Tile{
		"tile/0/000":                      {Width: 256},
		"tile/0/000.p/1":                  {Width: 1},
		"tile/3/x001/x234/067":            {Level: 3, N: 1234067, Width: 256},
		"tile/entries/x001/x234/067.p/17": {Entries: true, N: 1234067, Width: 17},
		"tile/entries/999":                {Entries: true, N: 999, Width: 256},
		"tile/1/x001/000.p/255":           {Level: 1, N: 1000, Width: 255},
	} {
		if got := tile.Path(); got != path {
			t.Errorf("Path(%+v) = %s, want %s", tile, got, path)
		}
		if got, err := evidence.ParseTilePath(path); err != nil || got != tile {
			t.Errorf("ParseTilePath(%s) = %+v, %v, want %+v", path, got, err, tile)
		}
	}
	for _, path := range []string{
		"", "tile", "tile/0", "tile/0/1", "tile/0/0000", "tile/00/000", "tile/0/000.p/0", "tile/0/000.p/256",
		"tile/0/000.p/01", "tile/-1/000", "tile/8/000", "tile/0/x000/000", "tile/0/001/x234", "tile/entries/000.p/",
		"tile/0/000/", "tile/0/000.p/1.p/1", "tile/0/x999/x999/x999/x999/x999/x999/999",
	} {
		if got, err := evidence.ParseTilePath(path); err == nil {
			t.Errorf("ParseTilePath(%q) = %+v, want a refusal", path, got)
		}
	}
}

func TestTilesOfAGrowingTreeCoverIt(t *testing.T) {
	tree := &evidence.Tree{}
	have := map[string][]byte{}
	published := uint64(0)
	for i := range uint64(700) {
		if err := tree.Add([]byte{byte(i), byte(i >> 8)}); err != nil {
			t.Fatal(err)
		}
		if i%37 != 0 && i != 699 {
			continue
		}
		for _, tile := range evidence.NewTiles(published, tree.Size()) {
			if !tile.Within(tree.Size()) {
				t.Errorf("%s is not within %d leaves", tile.Path(), tree.Size())
			}
			if !tile.Entries {
				data, err := tree.TileData(tile)
				if err != nil || len(data) != 32*tile.Width {
					t.Fatalf("TileData(%s) = %d bytes, %v", tile.Path(), len(data), err)
				}
				have[tile.Path()] = data
			}
		}
		published = tree.Size()
	}
	for _, tile := range evidence.NewTiles(0, 700) {
		if tile.Entries {
			continue
		}
		want, err := tree.TileData(tile)
		if err != nil || !bytes.Equal(have[tile.Path()], want) {
			t.Errorf("%s was not published, or changed: %v", tile.Path(), err)
		}
	}
	if _, err := tree.TileData(evidence.Tile{N: 3, Width: 1}); err == nil {
		t.Error("TileData beyond the tree = nil, want an error")
	}
	if _, err := tree.Root(701); err == nil {
		t.Error("Root beyond the tree = nil, want an error")
	}
}

func TestTheRootsAreThoseOfRFC6962(t *testing.T) {
	tree := &evidence.Tree{}
	// The empty tree's root is SHA-256 of nothing; a leaf's is SHA-256(0x00).
	for size, want := range []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
	} {
		root, err := tree.Root(uint64(size))
		if err != nil || hex.EncodeToString(root[:]) != want {
			t.Errorf("Root(%d) = %x, %v, want %s", size, root, err, want)
		}
		if err := tree.Add(nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARootIsReadStrictly(t *testing.T) {
	f := newForge(t)
	good, err := f.root.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := evidence.ParseRoot(good); err != nil || got.RecordKeys[0].KeyID != f.record.id {
		t.Fatalf("ParseRoot = %+v, %v", got, err)
	}
	swap := func(old, with string) string { return strings.Replace(string(good), old, with, 1) }
	for want, text := range map[string]string{
		"unknown field":          swap(`"schema"`, `"note": "x", "schema"`),
		"more than one document": string(good) + "{}",
		"schema is":              swap("root/v1", "root/v9"),
		"keyProtection is":       swap(`"file"`, `"hope"`),
		"the origin is":          swap(`"origin": "ledger`, `"origin": "other`),
		"logKey":                 swap("+", "-"),
		"the key's is":           swap(f.record.id, strings.Repeat("0", 64)),
		"one PEM block":          swap("BEGIN PUBLIC", "BEGIN PRIVATE"),
		"unexpected EOF":         string(good[:len(good)/2]),
	} {
		if _, err := evidence.ParseRoot([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRoot = %v, want an error that says %q", err, want)
		}
	}
	for want, change := range map[string]func(*evidence.Root){
		"no recordKeys":   func(r *evidence.Root) { r.RecordKeys = nil },
		"listed twice":    func(r *evidence.Root) { r.RecordKeys = append(r.RecordKeys, r.RecordKeys[0]) },
		"from is missing": func(r *evidence.Root) { r.RecordKeys[0].From = time.Time{} },
		"to is not after": func(r *evidence.Root) { r.RecordKeys[0].To = r.RecordKeys[0].From },
	} {
		root := f.root
		root.RecordKeys = append([]evidence.RecordKey{}, f.root.RecordKeys...)
		change(&root)
		if _, err := evidence.Verify(f.files, root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Verify with a bad root = %v, want an error that says %q", err, want)
		}
	}
}

func TestAKeyThatHasEndedMaySignNothingMore(t *testing.T) {
	f := told(t, runnertest.DeniedStory())
	f.root.RecordKeys[0].To = runnertest.Start().Add(time.Second)
	if got := wantFinding(t, verify(t, f.files, f.root), 7, "key-validity"); got.Record != 1 {
		t.Errorf("finding = %v, want it at record 1", got)
	}
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 0, 0})
	f.Add([]byte{0, 2, 'x'})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := evidence.Entries(b)
		var again []byte
		for _, e := range entries {
			again = evidence.AppendEntry(again, e)
		}
		if !bytes.HasPrefix(b, again) || (err == nil) != (len(again) == len(b)) {
			t.Errorf("Entries(%x) = %x, %v: does not say what it was given", b, entries, err)
		}
	})
}
