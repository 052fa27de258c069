package evidence

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/runnerward/runnerward/pkg/runner"
)

// rotationType is the DSSE payload type of what a new key signs. No envelope
// and no checkpoint of a log has it, so that such a signature can never be
// taken for one of those.
const rotationType = "application/vnd.runnerward.key-rotation"

// RotationMessage is what the new key of a handover signs: a new record key
// with ECDSA over its SHA-256, a new checkpoint key with Ed25519 as it is.
func RotationMessage(e runner.Rotated) []byte {
	return PAE(rotationType, fmt.Appendf(nil, "runnerward-key-rotation/v1\n%s\n%s\n%s\n%s\n%s\n",
		e.Origin, e.Use, e.Old, e.New, stamp(e.SignedAt)))
}

// PublicKeyID is the id of a public key and the encoding that it is the hash of.
func PublicKeyID(public any) (id string, pkix []byte, err error) {
	pkix, err = x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", nil, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(pkix)
	return hex.EncodeToString(sum[:]), pkix, nil
}

// follow takes over the key that this record hands over to. A handover that is
// not by both keys, or not of this log or place, is not followed. Its error is
// a [*Problem]. previous is the time of the record before.
func (v *Verifier) follow(index uint64, previous, at time.Time, e runner.Rotated) error {
	if err := v.checkHandover(previous, at, e); err != nil {
		return err
	}
	public, err := newKey(e)
	if err != nil {
		return err
	}
	if e.Use == runner.CheckpointKey {
		return v.followCheckpoints(index, e, public)
	}
	return v.followRecords(at, e, public)
}

func newKey(e runner.Rotated) (any, error) {
	raw, err := hex.DecodeString(e.PublicKey)
	if err != nil {
		return nil, problem(7, "rotation", "the new key is not in hexadecimal: %v", err)
	}
	public, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		return nil, problem(7, "rotation", "the new key cannot be read: %v", err)
	}
	switch id, pkix, err := PublicKeyID(public); {
	case err != nil:
		return nil, problem(7, "rotation", "the new key cannot be encoded: %v", err)
	case id != e.New || string(pkix) != string(raw):
		return nil, problem(7, "rotation", "the new key is %s, the handover names %s", id, e.New)
	}
	return public, nil
}

// checkHandover checks what holds for both kinds of key.
func (v *Verifier) checkHandover(previous, at time.Time, e runner.Rotated) error {
	public, err := newKey(e)
	if err != nil {
		return err
	}
	switch inForce := v.InForce(e.Use); {
	case e.Origin != v.root.Origin:
		return problem(7, "rotation", "the handover is of log %.80q, not of %q", e.Origin, v.root.Origin)
	case e.Old != inForce:
		return problem(7, "rotation", "key %s hands over, in force is %s", e.Old, inForce)
	case e.New == inForce || v.Retired(e.Use, e.New):
		return problem(7, "rotation", "key %s was in force before and may not come back", e.New)
	case e.SignedAt.Before(previous) || e.SignedAt.After(at):
		return problem(7, "rotation", "the new key signed at %s, not between the record before and this one", stamp(e.SignedAt))
	case !signedBy(public, e):
		return problem(7, "rotation", "the handover is not signed by the new key %s", e.New)
	}
	if next := v.named(e.Use); next != "" && next != e.New {
		return problem(7, "rotation", "key %s takes over, the root names %s", e.New, next)
	}
	return nil
}

func signedBy(public any, e runner.Rotated) bool {
	signature, err := hex.DecodeString(e.Signature)
	if err != nil {
		return false
	}
	message := RotationMessage(e)
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		return e.Use == runner.RecordKey && public.Curve == elliptic.P256() && ecdsa.VerifyASN1(public, digest[:], signature)
	case ed25519.PublicKey:
		return e.Use == runner.CheckpointKey && ed25519.Verify(public, message, signature)
	}
	return false
}

func (v *Verifier) followRecords(at time.Time, e runner.Rotated, public any) error {
	if v.at+1 == len(v.order) {
		pub, _ := public.(*ecdsa.PublicKey) // signedBy has seen to it
		next, err := NewRecordKey(pub, at)
		if err == nil {
			err = v.add(next)
		}
		if err != nil {
			return problem(7, "rotation", "%v", err)
		}
		old := v.keys[e.Old]
		if old.To.IsZero() {
			old.To = at.Add(1) // it signed this record; To is exclusive
			v.keys[e.Old] = old
		}
	}
	v.at++
	return nil
}

func (v *Verifier) followCheckpoints(index uint64, e runner.Rotated, public any) error {
	// The checkpoint that ends with this record, of size index+1, is the last
	// of the old key: by it the old key signs the handover.
	from := index + 2
	if v.logAt+1 == len(v.logs) {
		pub, _ := public.(ed25519.PublicKey) // signedBy has seen to it
		vkey, err := note.NewEd25519VerifierKey(v.root.Origin, pub)
		if err == nil {
			err = v.addLog(LogKey{Key: vkey, FromSize: from})
		}
		if err != nil {
			return problem(7, "rotation", "%v", err)
		}
	}
	if next := v.logs[v.logAt+1]; next.FromSize != from {
		return problem(7, "rotation", "the root lets key %s sign from size %d on, the log from %d on", e.New, next.FromSize, from)
	}
	v.logAt++
	return nil
}

// ids are the keys of one use in the order in which they take over, and the
// place of the one in force.
func (v *Verifier) ids(use runner.KeyUse) ([]string, int) {
	if use != runner.CheckpointKey {
		return v.order, v.at
	}
	ids := make([]string, len(v.logs))
	for i, k := range v.logs {
		ids[i] = k.id
	}
	return ids, v.logAt
}

// named is the key that the root lets take over next, empty if it names none.
func (v *Verifier) named(use runner.KeyUse) string {
	if ids, at := v.ids(use); at+1 < len(ids) {
		return ids[at+1]
	}
	return ""
}

// Retired says whether the key was in force once and is no more.
func (v *Verifier) Retired(use runner.KeyUse, id string) bool {
	ids, at := v.ids(use)
	return slices.Contains(ids[:at], id)
}

// InForce is the id of the key that signs next, as far as the log was read.
func (v *Verifier) InForce(use runner.KeyUse) string {
	ids, at := v.ids(use)
	return ids[at]
}

// CheckpointKey is the id of the key that signs the checkpoint of this size,
// which is that of the whole log.
// An empty tree says nothing: any key of the log may sign it, so that a view
// can be begun anew when the first key is no more.
func (v *Verifier) CheckpointKey(size uint64) string {
	if size == 0 {
		return v.InForce(runner.CheckpointKey)
	}
	return v.logKey(size).id
}

func (v *Verifier) logKey(size uint64) logKey {
	key := v.logs[0]
	for _, k := range v.logs[1:] {
		if k.FromSize <= size {
			key = k
		}
	}
	return key
}

// resume puts in force the keys that signed where the log is read from: the
// first record at hand, and the checkpoint that ends with it. Handovers before
// it cannot be followed, so that the root has to name both keys.
func (v *Verifier) resume(keyID string, before uint64) {
	v.at = max(0, slices.Index(v.order, keyID))
	v.logAt = 0
	for i, k := range v.logs {
		if k.FromSize <= before+1 {
			v.logAt = i
		}
	}
}

// Root is the root with the keys that were followed, and without those that
// have not taken over yet: what to give to auditors from now on.
func (v *Verifier) Root() Root {
	r := v.root
	r.RecordKeys, r.NextLogKeys = nil, nil
	for _, id := range v.order[:v.at+1] {
		r.RecordKeys = append(r.RecordKeys, v.keys[id].RecordKey)
	}
	for _, k := range v.logs[1 : v.logAt+1] {
		r.NextLogKeys = append(r.NextLogKeys, k.LogKey)
	}
	return r
}

// unfollowed says whether the root names a checkpoint key that should sign by
// now and that the log does not hand over to.
func (v *Verifier) unfollowed(size uint64) error {
	if v.logAt+1 < len(v.logs) && v.logs[v.logAt+1].FromSize <= size {
		next := v.logs[v.logAt+1]
		return problem(7, "rotation", "the root lets key %s sign checkpoints from size %d on, and no record hands over to it", next.id, next.FromSize)
	}
	return nil
}
