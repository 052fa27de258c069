// Package kms signs with private keys that never leave AWS KMS.
package kms

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
)

// callTimeout bounds one call, with the SDK's retries.
const callTimeout = 15 * time.Second

// kind is what a key must be to do its work.
type kind struct {
	spec        types.KeySpec // to make one of, in errors
	algorithm   types.SigningAlgorithmSpec
	messageType types.MessageType
}

// key is an asymmetric key in KMS. It is safe for concurrent use.
type key struct {
	kind
	client *kms.Client
	arn    string
}

// open asks KMS for the public half of the key with this ARN and checks that
// the key is for signing as this kind. It needs kms:GetPublicKey.
// https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html
func open(ctx context.Context, cfg aws.Config, arn string, want kind) (key, any, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	k := key{kind: want, client: kms.NewFromConfig(cfg), arn: arn}
	out, err := k.client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: &arn})
	if err != nil {
		return key{}, nil, explain("kms:GetPublicKey", arn, err)
	}
	switch {
	case aws.ToString(out.KeyId) != arn:
		return key{}, nil, errors.New("KMS answered about another key than it was asked about: name the key by its ARN, not by an alias")
	case out.KeyUsage != types.KeyUsageTypeSignVerify:
		return key{}, nil, fmt.Errorf("key %s is not for signing (its usage is %s): make one with key usage SIGN_VERIFY", arn, out.KeyUsage)
	case !slices.Contains(out.SigningAlgorithms, want.algorithm):
		return key{}, nil, fmt.Errorf("key %s of spec %s cannot sign with %s: make one of spec %s", arn, out.KeySpec, want.algorithm, want.spec)
	}
	public, err := x509.ParsePKIXPublicKey(out.PublicKey)
	if err != nil {
		return key{}, nil, fmt.Errorf("the public key of %s cannot be read: %w", arn, err)
	}
	return k, public, nil
}

// sign needs kms:Sign. The caller verifies the signature.
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
func (k key) sign(ctx context.Context, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := k.client.Sign(ctx, &kms.SignInput{
		KeyId: &k.arn, Message: message, MessageType: k.messageType, SigningAlgorithm: k.algorithm,
	})
	if err != nil {
		return nil, explain("kms:Sign", k.arn, err)
	}
	if aws.ToString(out.KeyId) != k.arn {
		return nil, errForeign
	}
	return out.Signature, nil
}

// errForeign: what came back was not made with the key that was asked for.
var errForeign = errors.New("KMS answered with a signature that is not by the key")

// RSA is an RSA key in KMS that signs with RSASSA-PKCS1-v1_5 over SHA-256, as
// GitHub wants an App's token signed. It is safe for concurrent use.
type RSA struct {
	key
	public *rsa.PublicKey
}

// OpenRSA asks KMS for the public half of the key with this ARN and checks that
// the key is for signing with RSA. It needs kms:GetPublicKey.
func OpenRSA(ctx context.Context, cfg aws.Config, arn string) (*RSA, error) {
	k, parsed, err := open(ctx, cfg, arn, kind{
		types.KeySpecRsa2048, types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, types.MessageTypeDigest,
	})
	if err != nil {
		return nil, err
	}
	public, isRSA := parsed.(*rsa.PublicKey)
	if !isRSA {
		return nil, fmt.Errorf("key %s is no RSA key", arn)
	}
	return &RSA{k, public}, nil
}

// Public is the public half of the key.
func (k *RSA) Public() crypto.PublicKey { return k.public }

// Sign signs a SHA-256 digest. The signature is checked before it is returned.
// It needs kms:Sign.
func (k *RSA) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	if len(digest) != sha256.Size {
		return nil, fmt.Errorf("a SHA-256 digest has %d bytes, not %d", sha256.Size, len(digest))
	}
	signature, err := k.sign(ctx, digest)
	if err != nil {
		return nil, err
	}
	if rsa.VerifyPKCS1v15(k.public, crypto.SHA256, digest, signature) != nil {
		return nil, errForeign
	}
	return signature, nil
}

// explain says what KMS refused and how to mend it. The SDK's text holds the
// request id and no secret; it is kept for support.
func explain(action, arn string, err error) error {
	if _, ok := errors.AsType[*types.NotFoundException](err); ok {
		return fmt.Errorf("KMS has no key %s: check the ARN, its region and its account: %w", arn, err)
	}
	if _, ok := errors.AsType[*types.DisabledException](err); ok {
		return fmt.Errorf("key %s is disabled: enable it in KMS: %w", arn, err)
	}
	if _, ok := errors.AsType[*types.KMSInvalidStateException](err); ok {
		return fmt.Errorf("key %s cannot be used in its state (pending deletion or import?): %w", arn, err)
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == "AccessDeniedException" {
		return fmt.Errorf("not allowed to use key %s: the daemon's role or the key policy has to allow %s: %w", arn, action, err)
	}
	return fmt.Errorf("%s of key %s: %w", action, arn, err)
}
