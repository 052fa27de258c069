package evidence

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
)

// PayloadType is the DSSE payload type of every envelope of the log.
const PayloadType = "application/vnd.in-toto+json"

// MaxEnvelope bounds an envelope, in bytes. Entries of tlog-tiles are framed
// by a uint16, so 65535 could never be exceeded; half of it leaves no doubt.
const MaxEnvelope = 32 << 10

// Envelope is a DSSE envelope. Payload and signatures are standard base64.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature of an envelope. KeyID is what [KeyID] says.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// Signer signs a SHA-256 digest with ECDSA P-256, as AWS KMS does with
// ECDSA_SHA_256 and MessageType DIGEST. The signature is ASN.1 DER. It must be
// safe for concurrent use and may be called again after any failure; the
// context bounds a call to a remote key.
type Signer interface {
	KeyID() string
	Sign(ctx context.Context, digest [sha256.Size]byte) ([]byte, error)
}

// KeyID names a key: the SHA-256 of its PKIX encoding, in hexadecimal.
func KeyID(pub *ecdsa.PublicKey) (string, error) {
	if pub.Curve != elliptic.P256() {
		return "", fmt.Errorf("key on curve %s, want P-256", pub.Curve.Params().Name)
	}
	id, _, err := PublicKeyID(pub)
	return id, err
}

// PAE is the pre-authentication encoding: the bytes that DSSE signs.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+32)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Sign makes the envelope of a payload. ECDSA is not deterministic: the bytes
// returned are the leaf, and a retry must use them and not sign again.
func Sign(ctx context.Context, s Signer, payload []byte) ([]byte, error) {
	return signAs(ctx, s, PayloadType, payload)
}

func signAs(ctx context.Context, s Signer, payloadType string, payload []byte) ([]byte, error) {
	sig, err := s.Sign(ctx, sha256.Sum256(PAE(payloadType, payload)))
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	envelope, err := json.Marshal(Envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []Signature{{s.KeyID(), base64.StdEncoding.EncodeToString(sig)}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	if len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("envelope of %d bytes exceeds the limit of %d", len(envelope), MaxEnvelope)
	}
	return envelope, nil
}

// Envelope checks an envelope and returns its payload and the id of the key
// that signed it. The envelope must be exactly the bytes that [Sign] would
// write: one signature, canonical base64, no other field. Its error is a
// [*Problem]; with the rules signature, key and payload-type the payload and
// key id are returned all the same, so that a check can go on.
func (v *Verifier) Envelope(b []byte) (payload []byte, keyID string, err error) {
	if len(b) > MaxEnvelope {
		return nil, "", problem(9, "size", "the envelope has %d bytes, the limit is %d", len(b), MaxEnvelope)
	}
	var env Envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, "", problem(7, "envelope", "the envelope is not JSON: %v", err)
	}
	if len(env.Signatures) != 1 {
		return nil, "", problem(7, "envelope", "the envelope has %d signatures, want 1", len(env.Signatures))
	}
	payload, err = base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		return nil, "", problem(7, "envelope", "the payload is not base64: %v", err)
	}
	sig, err := base64.StdEncoding.DecodeString(env.Signatures[0].Sig)
	if err != nil {
		return nil, "", problem(7, "envelope", "the signature is not base64: %v", err)
	}
	keyID = env.Signatures[0].KeyID
	if canonical, err := canonicalEnvelope(env, payload, sig); err != nil || string(canonical) != string(b) {
		return nil, "", problem(7, "envelope", "the envelope is not in its canonical form")
	}
	if env.PayloadType != PayloadType {
		return payload, keyID, problem(7, "payload-type", "the payload type is %.80q, want %q", env.PayloadType, PayloadType)
	}
	key, ok := v.keys[keyID]
	if !ok {
		return payload, keyID, problem(7, "key", "signed by key %.80q, which the root does not name", keyID)
	}
	digest := sha256.Sum256(PAE(env.PayloadType, payload))
	if !ecdsa.VerifyASN1(key.public, digest[:], sig) {
		return payload, keyID, problem(7, "signature", "the signature by key %s is not valid", keyID)
	}
	return payload, keyID, nil
}

// canonicalEnvelope is how the envelope would have been written. Base64 with
// stray bits or line breaks decodes to the same bytes and differs here.
func canonicalEnvelope(env Envelope, payload, sig []byte) ([]byte, error) {
	env.Payload = base64.StdEncoding.EncodeToString(payload)
	env.Signatures = []Signature{{env.Signatures[0].KeyID, base64.StdEncoding.EncodeToString(sig)}}
	return json.Marshal(env)
}
