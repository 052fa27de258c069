package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// RootSchema names the shape of [Root].
const RootSchema = "runnerward.root/v1"

// Root is root.json: whom an auditor trusts to have written a log. The auditor
// gets it by another way than the log itself.
type Root struct {
	Schema string `json:"schema"`
	// Origin is the name of the log: <dns>/<pool>/<year>.
	Origin string `json:"origin"`
	// LogKey verifies checkpoints, in the vkey form of signed notes. Its name
	// is the origin.
	LogKey string `json:"logKey"`
	// RecordKeys verify envelopes.
	RecordKeys []RecordKey `json:"recordKeys"`
	// KeyProtection says where the private keys live: "file".
	KeyProtection string `json:"keyProtection"`
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

// Verifier checks signatures by the keys of a root. It is safe for concurrent use.
type Verifier struct {
	root Root
	log  note.Verifier
	keys map[string]recordKey
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
	if !slices.Contains([]string{"file"}, r.KeyProtection) {
		problems = append(problems, fmt.Errorf("root: keyProtection is %.40q, want \"file\"", r.KeyProtection))
	}
	log, err := note.NewVerifier(r.LogKey)
	switch {
	case err != nil:
		problems = append(problems, fmt.Errorf("root: logKey: %w", err))
	case log.Name() != r.Origin:
		problems = append(problems, fmt.Errorf("root: logKey is of %.80q, the origin is %.80q", log.Name(), r.Origin))
	}
	v.log = log
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
	v.keys[id] = recordKey{k, pub}
	return nil
}

// ValidAt says whether the key may sign a record of this time. Its error is a
// [*Problem].
func (v *Verifier) ValidAt(keyID string, at time.Time) error {
	k, ok := v.keys[keyID]
	switch {
	case !ok:
		return problem(7, "key", "key %.80q is not in the root", keyID)
	case at.Before(k.From) || !k.To.IsZero() && !at.Before(k.To):
		return problem(7, "key-validity", "key %s may not sign a record of %s", keyID, at.Format(time.RFC3339Nano))
	}
	return nil
}
