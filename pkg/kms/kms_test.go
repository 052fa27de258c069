package kms_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/kms"
	"github.com/runnerward/runnerward/pkg/kms/kmstest"
)

const text = "a text that is signed"

// use is one of the three kinds of key, opened.
type use struct {
	sign func(ctx context.Context) ([]byte, error)
	// verify says whether a signature of the text is genuine.
	verify func(signature []byte) bool
}

// kinds are the three kinds of key with their specs.
var kinds = map[string]struct {
	spec, algorithm string
	open            func(ctx context.Context, cfg aws.Config, arn string) (use, error)
}{
	"App": {"RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256", func(ctx context.Context, cfg aws.Config, arn string) (use, error) {
		key, err := kms.OpenRSA(ctx, cfg, arn)
		digest := sha256.Sum256([]byte(text))
		return use{
			func(ctx context.Context) ([]byte, error) { return key.Sign(ctx, digest[:]) },
			func(sig []byte) bool {
				return rsa.VerifyPKCS1v15(key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], sig) == nil
			},
		}, err
	}},
	"records": {"ECC_NIST_P256", "ECDSA_SHA_256", func(ctx context.Context, cfg aws.Config, arn string) (use, error) {
		key, err := kms.OpenP256(ctx, cfg, arn)
		digest := sha256.Sum256([]byte(text))
		return use{
			func(ctx context.Context) ([]byte, error) { return key.Sign(ctx, digest) },
			func(sig []byte) bool { return ecdsa.VerifyASN1(key.Public(), digest[:], sig) },
		}, err
	}},
	"checkpoints": {"ECC_NIST_EDWARDS25519", "ED25519_SHA_512", func(ctx context.Context, cfg aws.Config, arn string) (use, error) {
		key, err := kms.OpenEd25519(ctx, cfg, arn)
		return use{
			func(ctx context.Context) ([]byte, error) { return key.Sign(ctx, []byte(text)) },
			func(sig []byte) bool { return ed25519.Verify(key.Public(), []byte(text), sig) },
		}, err
	}},
}

func TestSignaturesAreThoseOfTheKey(t *testing.T) {
	for name, kind := range kinds {
		service := kmstest.New()
		arn := service.Create(t, kind.spec)
		key, err := kind.open(t.Context(), service.Config(t), arn)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		signature, err := key.sign(t.Context())
		if err != nil || service.Signed(arn) != 1 {
			t.Fatalf("%s: Sign() = %v after %d calls", name, err, service.Signed(arn))
		}
		if !key.verify(signature) {
			t.Errorf("%s: the signature does not verify", name)
		}
		service.Lie(func(op string, answer map[string]any) {
			if op == "Sign" {
				answer["Signature"] = make([]byte, 64)
			}
		})
		if _, err := key.sign(t.Context()); err == nil || !strings.Contains(err.Error(), "not by the key") {
			t.Errorf("%s: Sign() = %v, want the signature refused", name, err)
		}
		service.Lie(func(_ string, answer map[string]any) {
			answer["KeyId"] = "arn:aws:kms:us-east-1:111122223333:key/other"
		})
		if _, err := key.sign(t.Context()); err == nil || !strings.Contains(err.Error(), "not by the key") {
			t.Errorf("%s: Sign() = %v, want the answer of another key refused", name, err)
		}
	}
}

func TestASignatureByAnotherKeyIsRefused(t *testing.T) {
	service := kmstest.New()
	arn, other := service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_P256")
	cfg := service.Config(t)
	key, err := kms.OpenP256(t.Context(), cfg, arn)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := kms.OpenP256(t.Context(), cfg, other)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(text))
	signature, err := foreign.Sign(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	service.Lie(func(_ string, answer map[string]any) { answer["Signature"] = signature })
	if _, err := key.Sign(t.Context(), digest); err == nil || !strings.Contains(err.Error(), "not by the key") {
		t.Errorf("Sign() = %v, want the other key's genuine signature refused", err)
	}
}

func TestWhatIsTooLongOrNoDigestIsNotSent(t *testing.T) {
	service := kmstest.New()
	arns := []string{service.Create(t, "RSA_2048"), service.Create(t, "ECC_NIST_EDWARDS25519")}
	cfg := service.Config(t)
	app, err := kms.OpenRSA(t.Context(), cfg, arns[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.Sign(t.Context(), []byte("short")); err == nil {
		t.Error("Sign() of what is no digest = nil, want an error")
	}
	log, err := kms.OpenEd25519(t.Context(), cfg, arns[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Sign(t.Context(), make([]byte, 4097)); err == nil || !strings.Contains(err.Error(), "at most 4096 bytes") {
		t.Errorf("Sign() of 4097 bytes = %v, want a refusal", err)
	}
	if service.Signed(arns[0])+service.Signed(arns[1]) != 0 {
		t.Error("KMS was asked all the same")
	}
}

func TestAKeyThatWillNotDoIsRefusedAtOnce(t *testing.T) {
	for name, kind := range kinds {
		for says, prepare := range map[string]func(*kmstest.KMS, string){
			"by its ARN, not by an alias": func(s *kmstest.KMS, _ string) {
				s.Lie(func(_ string, answer map[string]any) {
					answer["KeyId"] = "arn:aws:kms:us-east-1:111122223333:key/other"
				})
			},
			"is not for signing (its usage is ENCRYPT_DECRYPT): make one with key usage SIGN_VERIFY": func(s *kmstest.KMS, arn string) {
				s.Use(arn, "ENCRYPT_DECRYPT")
			},
			"cannot be read": func(s *kmstest.KMS, _ string) {
				s.Lie(func(_ string, answer map[string]any) { answer["PublicKey"] = []byte("x") })
			},
			"is disabled: enable it in KMS": func(s *kmstest.KMS, arn string) { s.Set(arn, kmstest.Disabled) },
			"pending deletion":              func(s *kmstest.KMS, arn string) { s.Set(arn, kmstest.PendingDeletion) },
		} {
			service := kmstest.New()
			arn := service.Create(t, kind.spec)
			prepare(service, arn)
			if _, err := kind.open(t.Context(), service.Config(t), arn); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: open = %v, want %q", name, err, says)
			}
		}
		service := kmstest.New()
		arn := service.Create(t, "ECC_NIST_P384")
		says := "of spec ECC_NIST_P384 cannot sign with " + kind.algorithm + ": make one of spec " + kind.spec
		if _, err := kind.open(t.Context(), service.Config(t), arn); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: open = %v, want %q", name, err, says)
		}
	}
}

// TestAKeyOfAnotherCurveIsRefused: the name of the algorithm is the same.
func TestAKeyOfAnotherCurveIsRefused(t *testing.T) {
	service := kmstest.New()
	arn := service.Create(t, "ECC_NIST_P384")
	service.Lie(func(_ string, answer map[string]any) {
		answer["SigningAlgorithms"] = []string{"ECDSA_SHA_256", "ED25519_SHA_512"}
	})
	if _, err := kms.OpenP256(t.Context(), service.Config(t), arn); err == nil || !strings.Contains(err.Error(), "not on P-256") {
		t.Errorf("OpenP256() = %v, want the curve refused", err)
	}
	if _, err := kms.OpenEd25519(t.Context(), service.Config(t), arn); err == nil || !strings.Contains(err.Error(), "no Ed25519 key") {
		t.Errorf("OpenEd25519() = %v, want the key refused", err)
	}
}

func TestWhatKMSRefusesIsExplained(t *testing.T) {
	for name, kind := range kinds {
		service := kmstest.New()
		cfg, arn := service.Config(t), service.Create(t, kind.spec)
		for exception, says := range map[string]string{
			"NotFoundException": "check the ARN", "DisabledException": "enable it in KMS", "KMSInvalidStateException": "pending deletion",
			"AccessDeniedException": "has to allow kms:GetPublicKey", "SomethingElse": "kms:GetPublicKey of key",
		} {
			service.Refuse("GetPublicKey", exception)
			if _, err := kind.open(t.Context(), cfg, arn); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: open with %s = %v, want %q", name, exception, err, says)
			}
		}
		service.Refuse("GetPublicKey", "")
		key, err := kind.open(t.Context(), cfg, arn)
		if err != nil {
			t.Fatal(err)
		}
		service.Refuse("Sign", "AccessDeniedException")
		if _, err := key.sign(t.Context()); err == nil || !strings.Contains(err.Error(), "has to allow kms:Sign") {
			t.Errorf("%s: Sign() = %v, want the permission named", name, err)
		}
		service.Refuse("Sign", "")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := key.sign(ended); err == nil {
			t.Errorf("%s: Sign() after the end = nil, want an error", name)
		}
	}
}

func TestATrialFindsOutWhetherWeMaySign(t *testing.T) {
	service := kmstest.New()
	cfg := service.Config(t)
	records, err := kms.OpenP256(t.Context(), cfg, service.Create(t, "ECC_NIST_P256"))
	if err != nil {
		t.Fatal(err)
	}
	checkpoints, err := kms.OpenEd25519(t.Context(), cfg, service.Create(t, "ECC_NIST_EDWARDS25519"))
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(context.Context) error{"records": records.Try, "checkpoints": checkpoints.Try} {
		if err := try(t.Context()); err != nil {
			t.Errorf("%s: Try() = %v", name, err)
		}
		service.Refuse("Sign", "AccessDeniedException")
		if err := try(t.Context()); err == nil || !strings.Contains(err.Error(), "has to allow kms:Sign") {
			t.Errorf("%s: Try() = %v, want the permission named", name, err)
		}
		service.Refuse("Sign", "")
	}
}
