package kms

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// maxRaw is how many bytes KMS signs without a digest made by the caller.
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html#KMS-Sign-request-Message
const maxRaw = 4096

// trial is what [P256.Try] and [Ed25519.Try] sign. It is neither a DSSE
// pre-authentication encoding nor a checkpoint, so that nobody can take its
// signature for that of a record.
const trial = "runnerward: may this key sign?\n"

// P256 is an ECDSA key on P-256 in KMS. It signs SHA-256 digests, so the size
// of what they are of does not matter. It is safe for concurrent use.
type P256 struct {
	key
	public *ecdsa.PublicKey
}

// OpenP256 asks KMS for the public half of the key with this ARN and checks its
// usage and spec. It needs kms:GetPublicKey.
func OpenP256(ctx context.Context, cfg aws.Config, arn string) (*P256, error) {
	k, parsed, err := open(ctx, cfg, arn, kind{
		types.KeySpecEccNistP256, types.SigningAlgorithmSpecEcdsaSha256, types.MessageTypeDigest,
	})
	if err != nil {
		return nil, err
	}
	// ECC_SECG_P256K1 signs with ECDSA_SHA_256 too.
	public, isECDSA := parsed.(*ecdsa.PublicKey)
	if !isECDSA || public.Curve != elliptic.P256() {
		return nil, fmt.Errorf("key %s is not on P-256: make one of spec %s", arn, k.spec)
	}
	return &P256{k, public}, nil
}

// Public is the public half of the key.
func (k *P256) Public() *ecdsa.PublicKey { return k.public }

// Sign signs a digest; the signature is ASN.1 DER, other every time, and
// checked before it is returned. It needs kms:Sign with the signing algorithm
// ECDSA_SHA_256 and the message type DIGEST.
func (k *P256) Sign(ctx context.Context, digest [sha256.Size]byte) ([]byte, error) {
	signature, err := k.sign(ctx, digest[:])
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(k.public, digest[:], signature) {
		return nil, errForeign
	}
	return signature, nil
}

// Try makes a signature that means nothing. It finds out what the public half
// does not say: that the key is enabled and that we may sign with it.
func (k *P256) Try(ctx context.Context) error {
	_, err := k.Sign(ctx, sha256.Sum256([]byte(trial)))
	return err
}

// Ed25519 is an Ed25519 key in KMS. It signs the message itself, at most 4096
// bytes: KMS's variant for digests, Ed25519ph, makes signatures that nobody
// expects in a signed note. It is safe for concurrent use.
type Ed25519 struct {
	key
	public ed25519.PublicKey
}

// OpenEd25519 asks KMS for the public half of the key with this ARN and checks
// its usage and spec. It needs kms:GetPublicKey.
func OpenEd25519(ctx context.Context, cfg aws.Config, arn string) (*Ed25519, error) {
	k, parsed, err := open(ctx, cfg, arn, kind{
		types.KeySpecEccNistEdwards25519, types.SigningAlgorithmSpecEd25519Sha512, types.MessageTypeRaw,
	})
	if err != nil {
		return nil, err
	}
	public, isEd25519 := parsed.(ed25519.PublicKey)
	if !isEd25519 {
		return nil, fmt.Errorf("key %s is no Ed25519 key: make one of spec %s", arn, k.spec)
	}
	return &Ed25519{k, public}, nil
}

// Public is the public half of the key.
func (k *Ed25519) Public() ed25519.PublicKey { return k.public }

// Sign signs a message. The signature is the same every time, and checked
// before it is returned. It needs kms:Sign with the signing algorithm
// ED25519_SHA_512 and the message type RAW.
func (k *Ed25519) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if len(message) > maxRaw {
		return nil, fmt.Errorf("KMS signs at most %d bytes with Ed25519, not %d", maxRaw, len(message))
	}
	signature, err := k.sign(ctx, message)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(k.public, message, signature) {
		return nil, errForeign
	}
	return signature, nil
}

// Try makes a signature that means nothing; see [P256.Try].
func (k *Ed25519) Try(ctx context.Context) error {
	_, err := k.Sign(ctx, []byte(trial))
	return err
}
