package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/runnerward/runnerward/pkg/runner"
)

// RootSchema names the shape of [Root].
const RootSchema = "runnerward.root/v1"

// Root is root.json: whom an auditor trusts to have written a log. The auditor
// gets it by another way than the log itself.
type Root struct {
	Schema string `json:"schema"`
	// Origin is the name of the log: <dns>/<pool>. A later year of it has the
	// name <origin>/<year>, see [Shard].
	Origin string `json:"origin"`
	// LogKey verifies checkpoints from the beginning, in the vkey form of
	// signed notes. Its name is the origin. A later year is signed by the same
	// key under that year's name; [YearKey] is its vkey.
	LogKey string `json:"logKey"`
	// NextLogKeys took over from it, in order.
	NextLogKeys []LogKey `json:"nextLogKeys,omitempty"`
	// RecordKeys verify envelopes. The first signs from the beginning, each of
	// the others from the record on that hands over to it. A root may end
	// before the log does: keys that it does not name are learned from the
	// handovers, which the key before them signed.
	RecordKeys []RecordKey `json:"recordKeys"`
	// KeyProtection says where the private keys live that are in force: "file"
	// or "kms".
	KeyProtection string `json:"keyProtection"`
}

// The values of [Root.KeyProtection].
const (
	ProtectionFile = "file"
	ProtectionKMS  = "kms"
)

// LogKey is a key that signs the checkpoints of this size and more. The size is
// that of the whole log, over all its years.
type LogKey struct {
	Key      string `json:"key"`
	FromSize uint64 `json:"fromSize"`
}

// YearKey is the vkey of a key of the log under the name of one of its years.
// A vkey is name, hash and key, and the hash is over name and key:
// https://c2sp.org/signed-note
func YearKey(vkey, origin string) (string, error) {
	public, err := vkeyPublic(vkey)
	if err != nil {
		return "", err
	}
	return note.NewEd25519VerifierKey(origin, public)
}

// RecordKey is a key that signs records.
type RecordKey struct {
	KeyID string `json:"keyId"`
	// PublicKey is PEM with a PKIX key on P-256.
	PublicKey string `json:"publicKey"`
	// From and To bound the times of the records it may sign, To exclusive; a
	// zero To has not come yet.
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

// NewRecordKey describes a key that is valid from this time on.
func NewRecordKey(pub *ecdsa.PublicKey, from time.Time) (RecordKey, error) {
	id, err := KeyID(pub)
	if err != nil {
		return RecordKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return RecordKey{}, fmt.Errorf("encode public key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return RecordKey{KeyID: id, PublicKey: string(text), From: from.Round(0).UTC()}, nil
}

// Encode is the content of root.json.
func (r Root) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode root: %w", err)
	}
	return append(b, '\n'), nil
}

// ParseRoot reads root.json. It refuses unknown fields, trailing data and
// anything that [Root.Verifier] refuses.
func ParseRoot(b []byte) (Root, error) {
	var r Root
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Root{}, fmt.Errorf("root: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Root{}, errors.New("root: more than one document")
	}
	if _, err := r.Verifier(); err != nil {
		return Root{}, err
	}
	return r, nil
}

// Verifier checks signatures by the keys of a root, and by those that the log
// hands over to as a [Replay] reads it. It is safe for concurrent use while no
// such replay goes on.
type Verifier struct {
	root Root
	// logs and order are the keys in the order in which they take over, logAt
	// and at those in force where the log was read to.
	logs  []logKey
	logAt int
	keys  map[string]recordKey
	order []string
	at    int
}

type logKey struct {
	LogKey
	id       string
	verifier note.Verifier
}

// in is the key under the name of a year of the log.
func (k logKey) in(origin string) (note.Verifier, error) {
	if origin == k.verifier.Name() {
		return k.verifier, nil
	}
	vkey, err := YearKey(k.Key, origin)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(vkey)
}

type recordKey struct {
	RecordKey
	public *ecdsa.PublicKey
}

// Verifier prepares the keys. It returns every problem of the root, joined.
func (r Root) Verifier() (*Verifier, error) {
	v := &Verifier{root: r, keys: map[string]recordKey{}}
	var problems []error
	if r.Schema != RootSchema {
		problems = append(problems, fmt.Errorf("root: schema is %.40q, want %q", r.Schema, RootSchema))
	}
	if !slices.Contains([]string{ProtectionFile, ProtectionKMS}, r.KeyProtection) {
		problems = append(problems, fmt.Errorf("root: keyProtection is %.40q, want \"file\" or \"kms\"", r.KeyProtection))
	}
	if err := v.addLog(LogKey{Key: r.LogKey}); err != nil {
		problems = append(problems, fmt.Errorf("root: logKey: %w", err))
	}
	for i, k := range r.NextLogKeys {
		if err := v.addLog(k); err != nil {
			problems = append(problems, fmt.Errorf("root: nextLogKeys[%d]: %w", i, err))
		}
	}
	if len(r.RecordKeys) == 0 {
		problems = append(problems, errors.New("root: no recordKeys"))
	}
	for i, k := range r.RecordKeys {
		if err := v.add(k); err != nil {
			problems = append(problems, fmt.Errorf("root: recordKeys[%d]: %w", i, err))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Verifier) add(k RecordKey) error {
	block, rest := pem.Decode([]byte(k.PublicKey))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return errors.New("publicKey is not one PEM block of type PUBLIC KEY")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("publicKey: %w", err)
	}
	pub, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("publicKey is a %T, want ECDSA", parsed)
	}
	id, err := KeyID(pub)
	switch {
	case err != nil:
		return err
	case id != k.KeyID:
		return fmt.Errorf("keyId is %.80q, the key's is %s", k.KeyID, id)
	case k.From.IsZero():
		return errors.New("from is missing")
	case !k.To.IsZero() && !k.From.Before(k.To):
		return errors.New("to is not after from")
	}
	if _, twice := v.keys[id]; twice {
		return fmt.Errorf("key %s is listed twice", id)
	}
	if n := len(v.order); n > 0 && k.From.Before(v.keys[v.order[n-1]].From) {
		return fmt.Errorf("key %s is listed after one that took over later", id)
	}
	v.keys[id] = recordKey{k, pub}
	v.order = append(v.order, id)
	return nil
}

func (v *Verifier) addLog(k LogKey) error {
	verifier, err := note.NewVerifier(k.Key)
	if err != nil {
		return err
	}
	if verifier.Name() != v.root.Origin {
		return fmt.Errorf("the key is of %.80q, the origin is %.80q", verifier.Name(), v.root.Origin)
	}
	public, err := vkeyPublic(k.Key)
	if err != nil {
		return err
	}
	id, _, err := PublicKeyID(public)
	if err != nil {
		return err
	}
	for _, other := range v.logs {
		// A note names its key by 32 bits of a hash only.
		if other.id == id || other.verifier.KeyHash() == verifier.KeyHash() {
			return fmt.Errorf("key %s is listed twice", id)
		}
		if k.FromSize <= other.FromSize {
			return fmt.Errorf("key %s takes over at size %d, not after the one before it", id, k.FromSize)
		}
	}
	v.logs = append(v.logs, logKey{k, id, verifier})
	return nil
}

// vkeyPublic is the Ed25519 key in a vkey: name+hash+base64 of the algorithm's
// byte and the key, see https://c2sp.org/signed-note.
func vkeyPublic(vkey string) (ed25519.PublicKey, error) {
	parts := strings.SplitN(vkey, "+", 3) // base64 has the plus sign too
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return nil, errors.New("the key is not an Ed25519 verifier key")
	}
	return ed25519.PublicKey(raw[1:]), nil
}

// ValidAt says whether the key may sign the next record, which is of this time:
// no key signs before the record that hands over to it, or after the one by
// which it hands over. Its error is a [*Problem].
func (v *Verifier) ValidAt(keyID string, at time.Time) error {
	k, ok := v.keys[keyID]
	switch inForce := v.InForce(runner.RecordKey); {
	case !ok:
		return problem(7, "key", "key %.80q is not in the root", keyID)
	case keyID != inForce:
		return problem(7, "key-order", "signed by key %s, in force is %s", keyID, inForce)
	case at.Before(k.From) || !k.To.IsZero() && !at.Before(k.To):
		return problem(7, "key-validity", "key %s may not sign a record of %s", keyID, at.Format(time.RFC3339Nano))
	}
	return nil
}
