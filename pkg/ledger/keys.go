package ledger

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
)

// RecordSigner is a private key that signs records, wherever it is kept: ECDSA
// on P-256 over a SHA-256 digest, in ASN.1 DER. It is safe for concurrent use.
// An error of Sign means that nothing was signed that anybody will see; it may
// be called again.
type RecordSigner interface {
	Public() *ecdsa.PublicKey
	Sign(ctx context.Context, digest [sha256.Size]byte) ([]byte, error)
}

// CheckpointSigner is a private key that signs checkpoints, wherever it is
// kept: Ed25519 over the text itself. Otherwise as [RecordSigner].
type CheckpointSigner interface {
	Public() ed25519.PublicKey
	Sign(ctx context.Context, text []byte) ([]byte, error)
}

// dated is a record key that says itself since when it is valid. The time of
// any other is that of the log: see genesis.
type dated interface{ ValidFrom() time.Time }

// Signers are the private keys of a log.
type Signers struct {
	Record     RecordSigner
	Checkpoint CheckpointSigner
	// PreviousRecord and PreviousCheckpoint hand over to those above if the log
	// has not seen that yet; nil when there is nothing to hand over.
	PreviousRecord     RecordSigner
	PreviousCheckpoint CheckpointSigner
	// Protection says where they are kept, see [evidence.Root].
	Protection string
}

// Keys are the private keys of a log with this origin. They are safe for
// concurrent use. Which of them signs is for the log to say.
type Keys struct {
	origin, protection string
	record, oldRecord  *recordKey
	log, oldLog        *logKey
}

// recordKey implements [evidence.Signer].
type recordKey struct {
	RecordSigner
	held
	public evidence.RecordKey
	dated  bool
}

// KeyID implements [evidence.Signer].
func (k *recordKey) KeyID() string { return k.id }

// logKey implements [evidence.CheckpointSigner].
type logKey struct {
	CheckpointSigner
	held
	vkey string
}

// VerifierKey implements [evidence.CheckpointSigner].
func (k *logKey) VerifierKey() string { return k.vkey }

// as is the key under the name of a year of the log.
func (k *logKey) as(origin string) (*logKey, error) {
	vkey, err := evidence.YearKey(k.vkey, origin)
	if err != nil {
		return nil, err
	}
	named := *k
	named.vkey = vkey
	return &named, nil
}

// held is a public key by its name and encoding.
type held struct {
	id   string
	pkix []byte
}

// NewKeys prepares the keys of the log with this origin. A record key that
// does not say since when it is valid is so from now on, in a log that is new.
func NewKeys(origin string, s Signers, now time.Time) (*Keys, error) {
	k := &Keys{origin: origin, protection: s.Protection}
	var err error
	if k.record, err = newRecord(s.Record, now); err != nil {
		return nil, fmt.Errorf("record key: %w", err)
	}
	if k.log, err = newLog(s.Checkpoint, origin); err != nil {
		return nil, fmt.Errorf("checkpoint key: %w", err)
	}
	if s.PreviousRecord != nil {
		if k.oldRecord, err = newRecord(s.PreviousRecord, now); err != nil {
			return nil, fmt.Errorf("previous record key: %w", err)
		}
		if k.oldRecord.id == k.record.id {
			return nil, errors.New("the previous record key is the record key itself: make a new one to hand over to")
		}
	}
	if s.PreviousCheckpoint != nil {
		if k.oldLog, err = newLog(s.PreviousCheckpoint, origin); err != nil {
			return nil, fmt.Errorf("previous checkpoint key: %w", err)
		}
		if k.oldLog.id == k.log.id {
			return nil, errors.New("the previous checkpoint key is the checkpoint key itself: make a new one to hand over to")
		}
	}
	if _, err := k.Root().Verifier(); err != nil {
		return nil, err
	}
	return k, nil
}

func newRecord(s RecordSigner, now time.Time) (*recordKey, error) {
	own, isDated := s.(dated)
	if isDated {
		now = own.ValidFrom()
	}
	public, err := evidence.NewRecordKey(s.Public(), now)
	if err != nil {
		return nil, err
	}
	id, pkix, err := evidence.PublicKeyID(s.Public())
	return &recordKey{s, held{id, pkix}, public, isDated}, err
}

func newLog(s CheckpointSigner, origin string) (*logKey, error) {
	vkey, err := note.NewEd25519VerifierKey(origin, s.Public())
	if err != nil {
		return nil, err
	}
	id, pkix, err := evidence.PublicKeyID(s.Public())
	return &logKey{s, held{id, pkix}, vkey}, err
}

// Root is what an auditor needs to verify a log that begins with these keys.
// Of a log that exists, see [Log.Root].
func (k *Keys) Root() evidence.Root {
	record, log := k.record, k.log
	if k.oldRecord != nil {
		record = k.oldRecord
	}
	if k.oldLog != nil {
		log = k.oldLog
	}
	return evidence.Root{
		Schema: evidence.RootSchema, Origin: k.origin, LogKey: log.vkey,
		RecordKeys: []evidence.RecordKey{record.public}, KeyProtection: k.protection,
	}
}

// recordSigner is the key with this id, which the log says is in force.
func (k *Keys) recordSigner(id string) (*recordKey, error) {
	for _, key := range []*recordKey{k.record, k.oldRecord} {
		if key != nil && key.id == id {
			return key, nil
		}
	}
	return nil, notHeld(runner.RecordKey, id, k.record.id)
}

// trial is what try signs: no DSSE pre-authentication encoding, so that nobody
// can take its signature for that of a record.
const trial = "runnerward: can this key sign again?\n"

// try lets the record key with this id make a signature that means nothing.
func (k *Keys) try(ctx context.Context, id string) error {
	signer, err := k.recordSigner(id)
	if err != nil {
		return err
	}
	_, err = signer.Sign(ctx, sha256.Sum256([]byte(trial)))
	return err
}

// checkpointSigner is the same for checkpoints.
func (k *Keys) checkpointSigner(id string) (*logKey, error) {
	for _, key := range []*logKey{k.log, k.oldLog} {
		if key != nil && key.id == id {
			return key, nil
		}
	}
	return nil, notHeld(runner.CheckpointKey, id, k.log.id)
}

func notHeld(use runner.KeyUse, wanted, given string) error {
	return fmt.Errorf("the log is to be signed by key %s (%s), given is %s: "+
		"give that key, or give it as the previous key to hand over from", wanted, use, given)
}

// check wants keys that can go on with a log that was read.
func (k *Keys) check(v *evidence.Verifier) error {
	_, err := k.recordSigner(v.InForce(runner.RecordKey))
	_, logErr := k.checkpointSigner(v.InForce(runner.CheckpointKey))
	if err := errors.Join(err, logErr); err != nil {
		return err
	}
	for use, id := range map[runner.KeyUse]string{runner.RecordKey: k.record.id, runner.CheckpointKey: k.log.id} {
		if v.Retired(use, id) {
			return fmt.Errorf("key %s (%s) has handed over in this log and may not come back: make a new key", id, use)
		}
	}
	return nil
}

// rotation is the next handover that the keys ask for, unless there is none.
func (k *Keys) rotation(ctx context.Context, v *evidence.Verifier, at time.Time) (e runner.Rotated, due bool, err error) {
	e = runner.Rotated{Origin: k.origin, SignedAt: at.Round(0).UTC()}
	var signature []byte
	switch {
	case v.InForce(runner.RecordKey) != k.record.id:
		e.Use, e.New, e.PublicKey = runner.RecordKey, k.record.id, hex.EncodeToString(k.record.pkix)
		e.Old = v.InForce(e.Use)
		signature, err = k.record.Sign(ctx, sha256.Sum256(evidence.RotationMessage(e)))
	case v.InForce(runner.CheckpointKey) != k.log.id:
		e.Use, e.New, e.PublicKey = runner.CheckpointKey, k.log.id, hex.EncodeToString(k.log.pkix)
		e.Old = v.InForce(e.Use)
		signature, err = k.log.Sign(ctx, evidence.RotationMessage(e))
	default:
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("sign the handover to key %s: %w", e.New, err)
	}
	e.Signature = hex.EncodeToString(signature)
	return e, true, nil
}
