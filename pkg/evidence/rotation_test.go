package evidence_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// at is n seconds into the log of these tests.
func at(n int) time.Time { return runnertest.Start().Add(time.Duration(n) * time.Second) }

func publicID(t testing.TB, public any) (id, pkix string) {
	t.Helper()
	id, raw, err := evidence.PublicKeyID(public)
	if err != nil {
		t.Fatal(err)
	}
	return id, hex.EncodeToString(raw)
}

// toRecords is the handover between record keys as the new key signs it, edited
// before it signs.
func (f *forge) toRecords(next signer, when time.Time, edit func(*runner.Rotated)) runner.Rotated {
	f.t.Helper()
	id, pkix := publicID(f.t, &next.key.PublicKey)
	e := runner.Rotated{Origin: origin, Use: runner.RecordKey, Old: f.record.id, New: id, PublicKey: pkix, SignedAt: when}
	if edit != nil {
		edit(&e)
	}
	signature, err := next.Sign(f.t.Context(), sha256.Sum256(evidence.RotationMessage(e)))
	if err != nil {
		f.t.Fatal(err)
	}
	e.Signature = hex.EncodeToString(signature)
	return e
}

func (f *forge) toCheckpoints(next logSigner, when time.Time, edit func(*runner.Rotated)) runner.Rotated {
	f.t.Helper()
	old, _ := publicID(f.t, f.log.key.Public())
	id, pkix := publicID(f.t, next.key.Public())
	e := runner.Rotated{Origin: origin, Use: runner.CheckpointKey, Old: old, New: id, PublicKey: pkix, SignedAt: when}
	if edit != nil {
		edit(&e)
	}
	e.Signature = hex.EncodeToString(ed25519.Sign(next.key, evidence.RotationMessage(e)))
	return e
}

func (f *forge) must(n int, e runner.Event) {
	f.t.Helper()
	if _, err := f.append(at(n), e); err != nil {
		f.t.Fatal(err)
	}
}

// beat appends heartbeats at these seconds.
func (f *forge) beat(seconds ...int) {
	f.t.Helper()
	for _, n := range seconds {
		f.must(n, runner.Heartbeat{})
	}
}

// rotated is a log of five records, of which the second hands over to a new
// record key and the third to a new checkpoint key.
func rotatedLog(t testing.TB) (f *forge, next signer, nextLog logSigner) {
	t.Helper()
	f, next, nextLog = newForge(t), newSigner(t), newLogSigner(t)
	f.beat(0)
	f.must(1, f.toRecords(next, at(1), nil))
	f.record = next
	f.must(2, f.toCheckpoints(nextLog, at(2), nil))
	f.log = nextLog
	f.beat(3, 4)
	return f, next, nextLog
}

func TestALogVerifiesAcrossAHandoverByTheOldRoot(t *testing.T) {
	f, next, nextLog := rotatedLog(t)
	rep := verify(t, f.publish().files, f.root)
	if !rep.OK() || rep.Size != 5 {
		t.Fatalf("findings = %v of %d records, want none of 5", rep.Findings, rep.Size)
	}
	if len(rep.Notes) != 2 || !strings.Contains(rep.Notes[0].Detail, "record 1 hands over from key "+f.root.RecordKeys[0].KeyID[:12]+" to key "+next.id[:12]) {
		t.Errorf("notes = %v, want both handovers", rep.Notes)
	}
	if got := rep.State.Rotated[runner.RecordKey]; got == nil || got.Event.New != next.id {
		t.Errorf("the state names %+v, want the new key %s", got, next.id)
	}
	// The checkpoint that ends with the handover is the last of the old key.
	opts := evidence.VerifyOptions{Witnessed: f.files[evidence.CheckpointName(3)].Data}
	if rep, err := opts.Verify(f.files, f.root); err != nil || !rep.OK() {
		t.Errorf("witnessed by the old key: %v, %v", rep.Findings, err)
	}
	opts.Witnessed = f.files[evidence.CheckpointName(4)].Data
	if rep, err := opts.Verify(f.files, f.root); err != nil || !rep.OK() || !strings.HasPrefix(string(opts.Witnessed), origin+"\n4\n") {
		t.Errorf("witnessed by the new key %s: %v, %v", nextLog.vkey, rep.Findings, err)
	}
}

// newRoot is what the daemon publishes after the handovers.
func newRoot(t testing.TB, f *forge) evidence.Root {
	t.Helper()
	keys, err := f.root.Verifier()
	if err != nil {
		t.Fatal(err)
	}
	replay := evidence.NewReplay(keys)
	for _, name := range names(f.files, evidence.SegmentFolder) {
		entries, err := evidence.Entries(f.files[name].Data)
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := replay.Next(entries[0]); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	encoded, err := keys.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	root, err := evidence.ParseRoot(encoded)
	if err != nil {
		t.Fatalf("the new root is refused: %v\n%s", err, encoded)
	}
	return root
}

func TestALogVerifiesAcrossAHandoverByTheNewRoot(t *testing.T) {
	f, next, nextLog := rotatedLog(t)
	root := newRoot(t, f)
	if rep := verify(t, f.publish().files, root); !rep.OK() {
		t.Errorf("findings by the new root = %v", rep.Findings)
	}
	if len(root.RecordKeys) != 2 || root.RecordKeys[1].KeyID != next.id || len(root.NextLogKeys) != 1 || root.NextLogKeys[0] != (evidence.LogKey{Key: nextLog.vkey, FromSize: 4}) {
		t.Fatalf("root = %+v, want both keys of both kinds", root)
	}
	// The windows meet at the record that hands over, which the old key signed.
	if old, new := root.RecordKeys[0], root.RecordKeys[1]; !old.To.Equal(at(1).Add(1)) || !new.From.Equal(at(1)) {
		t.Errorf("windows to %s and from %s, want them to meet at %s", old.To, new.From, at(1))
	}
}

func TestARootAndALogThatDisagreeOnKeysAreFound(t *testing.T) {
	f, _, _ := rotatedLog(t)
	root := newRoot(t, f)
	edited := func(edit func(*evidence.Root)) evidence.Root {
		r := root
		r.RecordKeys = append([]evidence.RecordKey{}, root.RecordKeys...)
		r.NextLogKeys = append([]evidence.LogKey{}, root.NextLogKeys...)
		edit(&r)
		return r
	}
	stranger, strangeLog := newSigner(t), newLogSigner(t)
	strange, err := evidence.NewRecordKey(&stranger.key.PublicKey, at(1))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		root evidence.Root
		says string
	}{
		"another record key":     {edited(func(r *evidence.Root) { r.RecordKeys[1] = strange }), "the root names " + strange.KeyID},
		"another checkpoint key": {edited(func(r *evidence.Root) { r.NextLogKeys[0].Key = strangeLog.vkey }), "the root names "},
		"another size":           {edited(func(r *evidence.Root) { r.NextLogKeys[0].FromSize = 3 }), "from size 3 on, the log from 4 on"},
	} {
		got := wantFinding(t, verify(t, f.files, tc.root), 7, "rotation")
		if !strings.Contains(got.Detail, tc.says) {
			t.Errorf("%s: finding %q, want it to say %q", name, got.Detail, tc.says)
		}
	}
	// A root that promises a handover which the log never made.
	g := newForge(t)
	g.beat(0, 1)
	g.root.NextLogKeys = []evidence.LogKey{{Key: strangeLog.vkey, FromSize: 2}}
	if got := wantFinding(t, verify(t, g.files, g.root), 7, "rotation"); !strings.Contains(got.Detail, "no record hands over to it") {
		t.Errorf("finding %q, want that no record hands over", got.Detail)
	}
}

func TestAKeySignsFromItsHandoverToTheNext(t *testing.T) {
	for name, tc := range map[string]struct {
		tell func(f *forge, next signer, nextLog logSigner)
		rule string
	}{
		"the old key after its handover": {func(f *forge, next signer, _ logSigner) {
			f.must(1, f.toRecords(next, at(1), nil))
			f.beat(2)
		}, "key-order"},
		"the new key before its handover": {func(f *forge, next signer, _ logSigner) {
			old := f.record
			f.record = next
			f.beat(1)
			f.record = old
			f.must(2, f.toRecords(next, at(2), nil))
		}, "key"},
		"the new key as its own handover": {func(f *forge, next signer, _ logSigner) {
			e := f.toRecords(next, at(1), nil)
			f.record = next
			f.must(1, e)
		}, "rotation"},
		"the old checkpoint key after its handover": {func(f *forge, _ signer, nextLog logSigner) {
			f.must(1, f.toCheckpoints(nextLog, at(1), nil))
			f.beat(2)
		}, "key-order"},
		"the new checkpoint key on its handover": {func(f *forge, _ signer, nextLog logSigner) {
			e := f.toCheckpoints(nextLog, at(1), nil)
			f.log = nextLog
			f.must(1, e)
		}, "key-order"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			f.beat(0)
			tc.tell(f, newSigner(t), newLogSigner(t))
			wantFinding(t, verify(t, f.files, f.root), 7, tc.rule)
		})
	}
	// With a root that names both, the new key is known and still too early.
	f, next, _ := rotatedLog(t)
	g := newForge(t)
	g.record, g.log, g.root = next, f.log, newRoot(t, f)
	g.beat(0)
	wantFinding(t, verify(t, g.files, g.root), 7, "key-order")
}

// TestAForgedHandoverIsFoundAndNotFollowed: whoever holds one of the two keys
// cannot make a handover.
func TestAForgedHandoverIsFoundAndNotFollowed(t *testing.T) {
	for name, tc := range map[string]struct {
		forge func(f *forge, next signer, nextLog logSigner) runner.Rotated
		says  string
	}{
		"no signature of the new key": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			e := f.toRecords(next, at(1), nil)
			e.Signature = f.toRecords(newSigner(t), at(1), nil).Signature
			return e
		}, "is not signed by the new key"},
		"no signature of the new checkpoint key": {func(f *forge, _ signer, nextLog logSigner) runner.Rotated {
			e := f.toCheckpoints(nextLog, at(1), nil)
			e.Signature = f.toCheckpoints(newLogSigner(t), at(1), nil).Signature
			return e
		}, "is not signed by the new key"},
		"another origin": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			return f.toRecords(next, at(1), func(e *runner.Rotated) { e.Origin = "other.example.org/pool/2026" })
		}, "is of log"},
		"replayed from another log, with its name changed": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			e := f.toRecords(next, at(1), func(e *runner.Rotated) { e.Origin = "other.example.org/pool/2026" })
			e.Origin = origin
			return e
		}, "is not signed by the new key"},
		"a statement kept from before": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			return f.toRecords(next, at(-60), nil)
		}, "not between the record before and this one"},
		"a statement from the future": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			return f.toRecords(next, at(2), nil)
		}, "not between the record before and this one"},
		"another time than was signed": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			e := f.toRecords(next, at(0), nil)
			e.SignedAt = at(1)
			return e
		}, "is not signed by the new key"},
		"from a key that is not in force": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			return f.toRecords(next, at(1), func(e *runner.Rotated) { e.Old = strings.Repeat("a", 64) })
		}, "in force is"},
		"an id of another key": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			return f.toRecords(next, at(1), func(e *runner.Rotated) { e.New = strings.Repeat("a", 64) })
		}, "the handover names"},
		"to what is no key": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			return f.toRecords(next, at(1), func(e *runner.Rotated) { e.PublicKey = "00" })
		}, "cannot be read"},
		"from checkpoints to a record key": {func(f *forge, next signer, _ logSigner) runner.Rotated {
			old, _ := publicID(t, f.log.key.Public())
			return f.toRecords(next, at(1), func(e *runner.Rotated) { e.Use, e.Old = runner.CheckpointKey, old })
		}, "is not signed by the new key"},
		"to a key of another curve": {func(f *forge, _ signer, _ logSigner) runner.Rotated {
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			id, pkix := publicID(t, &key.PublicKey)
			return f.toRecords(signer{key, id}, at(1), func(e *runner.Rotated) { e.New, e.PublicKey = id, pkix })
		}, "is not signed by the new key"},
	} {
		f := newForge(t)
		f.beat(0)
		next, nextLog := newSigner(t), newLogSigner(t)
		f.must(1, tc.forge(f, next, nextLog))
		f.beat(2) // the old keys go on: nothing was handed over
		rep := verify(t, f.files, f.root)
		got := wantFinding(t, rep, 7, "rotation")
		if got.Record != 1 || !strings.Contains(got.Detail, tc.says) || len(rep.Findings) != 1 {
			t.Errorf("%s: findings = %v, want one about record 1 that says %q", name, rep.Findings, tc.says)
		}
	}
}

func TestAKeyThatHasHandedOverDoesNotComeBack(t *testing.T) {
	f, next := newForge(t), newSigner(t)
	first := f.record
	f.beat(0)
	f.must(1, f.toRecords(next, at(1), nil))
	f.record = next
	f.must(2, f.toRecords(first, at(2), nil))
	if got := wantFinding(t, verify(t, f.files, f.root), 7, "rotation"); got.Record != 2 || !strings.Contains(got.Detail, "may not come back") {
		t.Errorf("finding %v, want that the first key may not come back", got)
	}
}

func TestTheKeysThatALogNamesAreCompared(t *testing.T) {
	for name, tc := range map[string]struct {
		blob func(f *forge) []byte
		says string
	}{
		"its own":                         {func(f *forge) []byte { return encoded(t, f.root) }, ""},
		"another record key":              {func(f *forge) []byte { r := f.root; r.RecordKeys = newForge(t).root.RecordKeys; return encoded(t, r) }, "other keys for its records"},
		"another log key":                 {func(f *forge) []byte { r := f.root; r.LogKey = newLogSigner(t).vkey; return encoded(t, r) }, "other keys for its checkpoints"},
		"what is no root":                 {func(*forge) []byte { return []byte("{}") }, "cannot be used"},
		"an attachment that is not there": {func(*forge) []byte { return nil }, "rests on an attachment"},
	} {
		f := newForge(t)
		root := tc.blob(f)
		if root != nil {
			if _, err := f.putBlob(root); err != nil {
				t.Fatal(err)
			}
		}
		f.must(0, f.opened(runner.DigestOf(root)))
		rep := verify(t, f.publish().files, f.root)
		switch {
		case tc.says == "" && (!rep.OK() || len(rep.Notes) > 0):
			t.Errorf("%s: findings %v, notes %v, want none", name, rep.Findings, rep.Notes)
		case tc.says != "" && (len(rep.Findings) != 1 || !strings.Contains(rep.Findings[0].Detail, tc.says)):
			t.Errorf("%s: findings %v, want one that says %q", name, rep.Findings, tc.says)
		}
	}
}

// TestALogNamesTheKeysOfItsTime: a record after a handover names both keys, one
// before it the first.
func TestALogNamesTheKeysOfItsTime(t *testing.T) {
	opened := func(f *forge, root evidence.Root) runner.Opened {
		digest, err := f.putBlob(encoded(t, root))
		if err != nil {
			t.Fatal(err)
		}
		return f.opened(digest)
	}
	f, next := newForge(t), newSigner(t)
	f.must(0, opened(f, f.root))
	f.must(1, f.toRecords(next, at(1), nil))
	f.record = next
	later := newRoot(t, f)
	f.must(2, opened(f, later))
	for name, root := range map[string]evidence.Root{"old": f.root, "new": later} {
		if rep := verify(t, f.files, root); !rep.OK() {
			t.Errorf("by the %s root: findings %v", name, rep.Findings)
		}
	}
	f.must(3, opened(f, f.root))
	if got := wantFinding(t, verify(t, f.files, f.root), 7, "root"); got.Record != 3 {
		t.Errorf("finding %v, want it about record 3, which leaves a key out", got)
	}
}

func encoded(t testing.TB, root evidence.Root) []byte {
	t.Helper()
	b, err := root.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestARootWithKeysInNoOrderIsRefused(t *testing.T) {
	f, _, nextLog := rotatedLog(t)
	root := newRoot(t, f)
	other, err := note.NewEd25519VerifierKey("other.example.org/pool/2026", newLogSigner(t).key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	for says, edit := range map[string]func(*evidence.Root){
		"takes over at size 0, not after": func(r *evidence.Root) { r.NextLogKeys = []evidence.LogKey{{Key: nextLog.vkey}} },
		"is listed twice":                 func(r *evidence.Root) { r.NextLogKeys = []evidence.LogKey{{Key: r.LogKey, FromSize: 4}} },
		"the key is of":                   func(r *evidence.Root) { r.NextLogKeys = []evidence.LogKey{{Key: other, FromSize: 4}} },
		"nextLogKeys[0]: ":                func(r *evidence.Root) { r.NextLogKeys = []evidence.LogKey{{Key: "x", FromSize: 4}} },
		"after one that took over later": func(r *evidence.Root) {
			r.RecordKeys = []evidence.RecordKey{root.RecordKeys[1], root.RecordKeys[0]}
		},
		`keyProtection is "paper", want "file" or "kms"`: func(r *evidence.Root) { r.KeyProtection = "paper" },
	} {
		r := root
		edit(&r)
		if _, err := r.Verifier(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Verifier() = %v, want it to say %q", err, says)
		}
	}
	root.KeyProtection = evidence.ProtectionKMS
	if _, err := root.Verifier(); err != nil {
		t.Errorf("Verifier() of keys in KMS = %v", err)
	}
}

// liar signs with a key that is not the one it shows.
type liar struct{ logSigner }

func (l liar) Sign(_ context.Context, text []byte) ([]byte, error) {
	_, other, err := ed25519.GenerateKey(rand.Reader)
	return ed25519.Sign(other, text), err
}

func TestACheckpointSignedByAnotherKeyIsNotUsed(t *testing.T) {
	c := evidence.Checkpoint{Origin: origin}
	if _, err := evidence.SignCheckpoint(t.Context(), c, liar{newLogSigner(t)}); err == nil || !strings.Contains(err.Error(), "not by the key") {
		t.Errorf("SignCheckpoint = %v, want the signature refused", err)
	}
	// The note is byte for byte what the package of signed notes writes.
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	stock, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	want, err := note.Sign(&note.Note{Text: c.Text()}, stock)
	if err != nil {
		t.Fatal(err)
	}
	got, err := evidence.SignCheckpoint(t.Context(), c, noteSigner{stock, vkey})
	if err != nil || string(got) != string(want) {
		t.Errorf("SignCheckpoint = %q, %v, want %q", got, err, want)
	}
}

// noteSigner signs with the package of signed notes.
type noteSigner struct {
	stock note.Signer
	vkey  string
}

func (s noteSigner) VerifierKey() string { return s.vkey }

func (s noteSigner) Sign(_ context.Context, text []byte) ([]byte, error) { return s.stock.Sign(text) }
