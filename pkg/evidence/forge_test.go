package evidence_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

const origin = "ledger.example.org/hipaa-prod/2026"

func recorder() evidence.Recorder {
	return evidence.Recorder{ID: "https://runnerward.github.io/runnerward", Version: "v0.1.0"}
}

// signer is a record key made for a test.
type signer struct {
	key *ecdsa.PrivateKey
	id  string
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := evidence.KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, id}
}

func (s signer) KeyID() string { return s.id }

func (s signer) Sign(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
}

// logSigner is a checkpoint key made for a test.
type logSigner struct {
	key  ed25519.PrivateKey
	vkey string
}

func newLogSigner(t testing.TB) logSigner {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		t.Fatal(err)
	}
	return logSigner{private, vkey}
}

func (s logSigner) VerifierKey() string { return s.vkey }

func (s logSigner) Sign(_ context.Context, text []byte) ([]byte, error) {
	return ed25519.Sign(s.key, text), nil
}

// as is the key under the name of a year.
func (s logSigner) as(t testing.TB, name string) logSigner {
	t.Helper()
	vkey, err := evidence.YearKey(s.vkey, name)
	if err != nil {
		t.Fatal(err)
	}
	return logSigner{s.key, vkey}
}

// forge writes ledgers with genuine signatures and no scruples: it appends any
// envelope and signs any tree.
type forge struct {
	t      testing.TB
	record signer
	log    logSigner
	root   evidence.Root
	chains *evidence.Chains
	place  evidence.Place
	tree   *evidence.Tree
	files  fstest.MapFS
	bundle []byte
}

func newForge(t testing.TB) *forge {
	t.Helper()
	log, record := newLogSigner(t), newSigner(t)
	key, err := evidence.NewRecordKey(&record.key.PublicKey, runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	return &forge{
		t: t, record: record, log: log,
		root: evidence.Root{
			Schema: evidence.RootSchema, Origin: origin, LogKey: log.vkey,
			RecordKeys: []evidence.RecordKey{key}, KeyProtection: "file",
		},
		chains: evidence.NewChains(), tree: &evidence.Tree{}, files: fstest.MapFS{},
	}
}

// script tells stories into the forge.
func (f *forge) script() *runnertest.Script {
	f.t.Helper()
	s := runnertest.NewScript(f.append, f.putBlob)
	var err error
	if s.Root, err = f.root.Encode(); err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (f *forge) append(at time.Time, e runner.Event) (runner.Record, error) {
	payload, read, err := f.chains.Statement(recorder(), at, e)
	if err != nil {
		return runner.Record{}, err
	}
	envelope, err := evidence.Sign(f.t.Context(), f.record, payload)
	if err != nil {
		return runner.Record{}, err
	}
	rec := runner.Record{Index: f.place.Before + f.tree.Size(), Digest: runner.DigestOf(envelope), At: at, Event: read}
	f.chains.Add(read, rec.Digest)
	f.commit(envelope)
	return rec, nil
}

func (f *forge) putBlob(b []byte) (runner.Digest, error) {
	d := runner.DigestOf(b)
	f.put(f.place.Name(evidence.BlobName(d)), b)
	return d, nil
}

// opened is the record that opens a log and names these public keys.
func (f *forge) opened(root runner.Digest) runner.Opened {
	f.t.Helper()
	inEffect, err := f.putBlob([]byte("configuration and policy"))
	if err != nil {
		f.t.Fatal(err)
	}
	return runner.Opened{Version: "v1", Instance: "x", ConfigDigest: inEffect, PolicyDigest: inEffect, RootDigest: root}
}

func (f *forge) put(name string, b []byte) { f.files[name] = &fstest.MapFile{Data: b, Mode: 0o640} }

// commit writes a segment and a checkpoint for any bytes.
func (f *forge) commit(envelope []byte) {
	f.t.Helper()
	f.put(f.place.Name(evidence.SegmentName(f.tree.Size())), evidence.AppendEntry(nil, envelope))
	f.bundle = evidence.AppendEntry(f.bundle, envelope)
	if err := f.tree.Add(envelope); err != nil {
		f.t.Fatal(err)
	}
	f.put(f.place.Name(evidence.CheckpointName(f.tree.Size())), f.checkpoint(f.tree.Size()))
}

func (f *forge) checkpoint(size uint64) []byte {
	f.t.Helper()
	root, err := f.tree.Root(size)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := evidence.SignCheckpoint(f.t.Context(), evidence.Checkpoint{Origin: f.place.Origin(origin), Size: size, Root: root}, f.log.as(f.t, f.place.Origin(origin)))
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// publish writes the view of a log of less than one bundle.
func (f *forge) publish() *forge {
	f.t.Helper()
	for _, tile := range evidence.NewTiles(0, f.tree.Size()) {
		data := f.bundle
		if !tile.Entries {
			var err error
			if data, err = f.tree.TileData(tile); err != nil {
				f.t.Fatal(err)
			}
		}
		f.put(f.place.Name(evidence.ViewName(tile)), data)
	}
	f.put(f.place.Name(evidence.ViewCheckpoint), f.checkpoint(f.tree.Size()))
	return f
}

func (f *forge) copy() fstest.MapFS {
	out := fstest.MapFS{}
	for name, file := range f.files {
		out[name] = &fstest.MapFile{Data: bytes.Clone(file.Data), Mode: file.Mode}
	}
	return out
}

// told is a published ledger with one story.
func told(t testing.TB, story []runner.Kind) *forge {
	t.Helper()
	f := newForge(t)
	s := f.script()
	if err := s.Tell(runnertest.NewCast(0), story); err != nil {
		t.Fatal(err)
	}
	return f.publish()
}

func verify(t testing.TB, files fstest.MapFS, root evidence.Root) *evidence.Report {
	t.Helper()
	rep, err := evidence.Verify(files, root)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// wantFinding wants a finding of this rule, and returns it.
func wantFinding(t testing.TB, rep *evidence.Report, invariant int, rule string) evidence.Finding {
	t.Helper()
	for _, f := range rep.Findings {
		if f.Rule == rule && f.Invariant == invariant {
			return f
		}
	}
	t.Errorf("findings = %v, want invariant %d (%s)", rep.Findings, invariant, rule)
	return evidence.Finding{}
}

func names(files fstest.MapFS, prefix string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out
}

// reseal opens an envelope, lets edit change its statement as a tree of JSON,
// and signs it again.
func (f *forge) reseal(envelope []byte, edit func(statement, predicate map[string]any)) []byte {
	f.t.Helper()
	var env evidence.Envelope
	if err := json.Unmarshal(envelope, &env); err != nil {
		f.t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		f.t.Fatal(err)
	}
	var statement map[string]any
	if err := json.Unmarshal(payload, &statement); err != nil {
		f.t.Fatal(err)
	}
	edit(statement, statement["predicate"].(map[string]any))
	if payload, err = json.Marshal(statement); err != nil {
		f.t.Fatal(err)
	}
	out, err := evidence.Sign(f.t.Context(), f.record, payload)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}
