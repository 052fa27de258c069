package awslive

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"time"

	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// signedText is what is signed: nothing that a ledger holds.
const signedText = "runnerward live test: this signature means nothing\n"

// signs makes one signature with each key, verifies it here, and tries the way
// of signing that the policy forbids.
func (l *suite) signs(ctx context.Context) {
	digest := sha256.Sum256([]byte(signedText))
	began := time.Now()
	signature, err := l.record.Sign(ctx, digest)
	if l.learn(rowKMS, "sign as a record", err, "%d bytes", len(signature)) {
		l.measure(rowKMS, "a digest signed on P-256", time.Since(began))
		l.holds(rowKMS, "verify as a record", ecdsa.VerifyASN1(l.record.Public(), digest[:], signature), "by the public half, without KMS")
	}
	began = time.Now()
	signature, err = l.checkpoint.Sign(ctx, []byte(signedText))
	if l.learn(rowKMS, "sign as a checkpoint", err, "%d bytes", len(signature)) {
		l.measure(rowKMS, "a message signed with Ed25519", time.Since(began))
		l.holds(rowKMS, "verify as a checkpoint", ed25519.Verify(l.checkpoint.Public(), []byte(signedText), signature), "by the public half, without KMS")
	}
	l.signsRaw(ctx)
}

// signsRaw: the conditions on kms:MessageType keep the record key from signing
// a text of somebody's choice.
func (l *suite) signsRaw(ctx context.Context) {
	const question = "record key with MessageType RAW"
	_, err := l.keys.Sign(ctx, &awskms.SignInput{
		KeyId: &l.KMS.RecordKey, Message: []byte(signedText), MessageType: types.MessageTypeRaw, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
	})
	switch {
	case err == nil:
		l.answer(rowKMS, question, No, "it was allowed: run the suite under configs/iam-policy-live.json")
	case code(err) == "AccessDeniedException":
		l.answer(rowKMS, question, Yes, "it is refused")
	default:
		l.answer(rowKMS, question, Unknown, "%v", err)
	}
}
