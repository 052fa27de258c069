package runner

import "time"

// KindRotated is the handover from one signing key of the log to the next.
const KindRotated Kind = "rotated"

// KeyUse is what a signing key of the log signs.
type KeyUse string

// The uses of a key.
const (
	// RecordKey signs the envelopes of records: ECDSA on P-256.
	RecordKey KeyUse = "records"
	// CheckpointKey signs the checkpoints of the tree: Ed25519.
	CheckpointKey KeyUse = "checkpoints"
)

// Rotated hands over from one key to the next, signed by both. The old record
// key signs the record itself, which is the last that it signs; the old
// checkpoint key signs the checkpoint that ends with this record, which is the
// last that it signs. The new key signs the statement that these fields make,
// see evidence.RotationMessage; Signature is that.
type Rotated struct {
	// Origin is the log's: a handover of one log is none of another.
	Origin string `json:"origin" pat:"origin"`
	Use    KeyUse `json:"use" pat:"word"`
	// Old and New are key ids: the SHA-256 of the public key's PKIX encoding,
	// in hexadecimal. PublicKey is that encoding of the new key.
	Old       string `json:"old" pat:"keyid"`
	New       string `json:"new" pat:"keyid"`
	PublicKey string `json:"publicKey" pat:"hex"`
	// SignedAt is when the new key signed. It lies between the record before
	// this one and this one, so that no statement can be kept for later.
	SignedAt  time.Time `json:"signedAt"`
	Signature string    `json:"signature" pat:"hex"`
}

// Kind implements [Event].
func (Rotated) Kind() Kind { return KindRotated }

// Chain implements [Event].
func (Rotated) Chain() Chain { return LogChain }

// checkRotated follows the order of keys. Whether the keys and signatures are
// genuine is checked where records are read, by the evidence package.
func (s *State) checkRotated(v verdict, e Rotated) error {
	last := s.Rotated[e.Use]
	switch {
	case e.Use != RecordKey && e.Use != CheckpointKey:
		return v.breaks(7, "rotation", "no key of the log is for %s", e.Use)
	case e.Old == e.New:
		return v.breaks(7, "rotation", "key %s hands over to itself", e.Old)
	case last == nil:
		return nil
	case last.Event.New == e.New:
		return ErrRecorded
	case last.Event.New != e.Old:
		return v.breaks(7, "rotation", "key %s hands over, in force is %s", e.Old, last.Event.New)
	}
	return nil
}
