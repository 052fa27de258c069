package simaws_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

func addKey(t *testing.T, s *simaws.Server, spec, alias string) string {
	t.Helper()
	arn, err := s.AddKey(simaws.Key{Spec: spec, Alias: alias})
	if err != nil {
		t.Fatal(err)
	}
	return arn
}

// check verifies a signature without the simulator's help.
func check(public any, algorithm types.SigningAlgorithmSpec, message, signature []byte) error {
	short, long := sha256.Sum256(message), sha512.Sum512(message)
	ok := false
	switch algorithm {
	case types.SigningAlgorithmSpecRsassaPkcs1V15Sha256:
		return rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, short[:], signature)
	case types.SigningAlgorithmSpecRsassaPssSha512:
		return rsa.VerifyPSS(public.(*rsa.PublicKey), crypto.SHA512, long[:], signature, &rsa.PSSOptions{SaltLength: 64})
	case types.SigningAlgorithmSpecEcdsaSha256:
		ok = ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), short[:], signature)
	case types.SigningAlgorithmSpecEd25519Sha512:
		ok = ed25519.Verify(public.(ed25519.PublicKey), message, signature)
	case types.SigningAlgorithmSpecEd25519PhSha512:
		// The digest is hashed once more.
		twice := sha512.Sum512(long[:])
		return ed25519.VerifyWithOptions(public.(ed25519.PublicKey), twice[:], signature, &ed25519.Options{Hash: crypto.SHA512})
	}
	if !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}

func TestSignaturesOfKMSVerifyUnderItsPublicKeys(t *testing.T) {
	s := newServer()
	client := kms.NewFromConfig(clientConfig(s))
	message := []byte("who approved this")
	short, long := sha256.Sum256(message), sha512.Sum512(message)
	for _, tt := range []struct {
		spec      string
		algorithm types.SigningAlgorithmSpec
		raw       bool
		digest    []byte
	}{
		{simaws.SpecRSA2048, types.SigningAlgorithmSpecRsassaPkcs1V15Sha256, true, short[:]},
		{simaws.SpecRSA2048, types.SigningAlgorithmSpecRsassaPssSha512, true, long[:]},
		{simaws.SpecP256, types.SigningAlgorithmSpecEcdsaSha256, true, short[:]},
		{simaws.SpecEd25519, types.SigningAlgorithmSpecEd25519Sha512, true, nil},
		{simaws.SpecEd25519, types.SigningAlgorithmSpecEd25519PhSha512, false, long[:]},
	} {
		arn := addKey(t, s, tt.spec, "")
		public, err := client.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &arn})
		if err != nil || *public.KeyId != arn || string(public.KeySpec) != tt.spec || public.KeyUsage != types.KeyUsageTypeSignVerify {
			t.Fatalf("GetPublicKey of %s = %+v, %v", tt.spec, public, err)
		}
		key, err := x509.ParsePKIXPublicKey(public.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		inputs := map[types.MessageType][]byte{}
		if tt.raw {
			inputs[types.MessageTypeRaw] = message
		}
		if tt.digest != nil {
			inputs[types.MessageTypeDigest] = tt.digest
		}
		for kind, in := range inputs {
			out, err := client.Sign(t.Context(), &kms.SignInput{KeyId: &arn, Message: in, MessageType: kind, SigningAlgorithm: tt.algorithm})
			if err != nil {
				t.Errorf("Sign %s %s = %v", tt.algorithm, kind, err)
				continue
			}
			if err := check(key, tt.algorithm, message, out.Signature); err != nil || *out.KeyId != arn || out.SigningAlgorithm != tt.algorithm {
				t.Errorf("Sign %s %s: %v in %+v", tt.algorithm, kind, err, out)
			}
		}
	}
}

func TestWhatKMSRefusesToSign(t *testing.T) {
	s := newServer()
	client := kms.NewFromConfig(clientConfig(s))
	rsaKey, edKey := addKey(t, s, simaws.SpecRSA2048, "alias/app"), addKey(t, s, simaws.SpecEd25519, "")
	type in = kms.SignInput
	sha := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	pss, ed, edPH := types.SigningAlgorithmSpecRsassaPssSha256, types.SigningAlgorithmSpecEd25519Sha512, types.SigningAlgorithmSpecEd25519PhSha512
	for name, tt := range map[string]struct {
		in   in
		want string
	}{
		"a digest that is too short": {in{KeyId: &rsaKey, Message: sha(31), MessageType: "DIGEST", SigningAlgorithm: pss}, "ValidationException"},
		"a digest of another hash":   {in{KeyId: &rsaKey, Message: sha(64), MessageType: "DIGEST", SigningAlgorithm: pss}, "ValidationException"},
		"4097 bytes":                 {in{KeyId: &rsaKey, Message: sha(4097), SigningAlgorithm: pss}, "ValidationException"},
		"4096 bytes":                 {in{KeyId: &rsaKey, Message: sha(4096), SigningAlgorithm: pss}, ""},
		"nothing":                    {in{KeyId: &rsaKey, Message: []byte{}, SigningAlgorithm: pss}, "ValidationException"},
		"an unknown type":            {in{KeyId: &rsaKey, Message: sha(32), MessageType: "HASH", SigningAlgorithm: pss}, "ValidationException"},
		"a type of ML-DSA":           {in{KeyId: &rsaKey, Message: sha(64), MessageType: "EXTERNAL_MU", SigningAlgorithm: pss}, "ValidationException"},
		"an unknown algorithm":       {in{KeyId: &rsaKey, Message: sha(32), SigningAlgorithm: "ROT13"}, "ValidationException"},
		"another spec's algorithm":   {in{KeyId: &rsaKey, Message: sha(32), SigningAlgorithm: "ECDSA_SHA_256"}, "InvalidKeyUsageException"},
		"a digest for Ed25519":       {in{KeyId: &edKey, Message: sha(64), MessageType: "DIGEST", SigningAlgorithm: ed}, "ValidationException"},
		"a message for Ed25519ph":    {in{KeyId: &edKey, Message: sha(64), SigningAlgorithm: edPH}, "ValidationException"},
		"a dry run":                  {in{KeyId: &rsaKey, Message: sha(32), SigningAlgorithm: pss, DryRun: aws.Bool(true)}, "DryRunOperationException"},
		"an alias":                   {in{KeyId: aws.String("alias/app"), Message: sha(32), SigningAlgorithm: pss}, ""},
		"the ARN of an alias":        {in{KeyId: aws.String("arn:aws:kms:us-east-1:" + account + ":alias/app"), Message: sha(32), SigningAlgorithm: pss}, ""},
		"a bare id":                  {in{KeyId: aws.String(rsaKey[strings.LastIndex(rsaKey, "/")+1:]), Message: sha(32), SigningAlgorithm: pss}, ""},
		"another alias":              {in{KeyId: aws.String("alias/none"), Message: sha(32), SigningAlgorithm: pss}, "NotFoundException"},
		"another region":             {in{KeyId: aws.String(strings.Replace(rsaKey, "us-east-1", "eu-west-1", 1)), Message: sha(32), SigningAlgorithm: pss}, "NotFoundException"},
		"no such key":                {in{KeyId: aws.String("0b989ba4-242f-11e5-81e1-c7b6966d2516"), Message: sha(32), SigningAlgorithm: pss}, "NotFoundException"},
	} {
		if _, err := client.Sign(t.Context(), &tt.in); errorCode(err) != tt.want {
			t.Errorf("%s: Sign = %v, want %q", name, err, tt.want)
		}
	}
	_, err := client.ListKeys(t.Context(), &kms.ListKeysInput{})
	if errorCode(err) != "UnknownOperationException" {
		t.Errorf("ListKeys = %v, want UnknownOperationException", err)
	}
}

func TestStatesOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		client := kms.NewFromConfig(clientConfig(s))
		arn := addKey(t, s, simaws.SpecP256, "alias/app")
		sign := func() error {
			_, err := client.Sign(t.Context(), &kms.SignInput{KeyId: &arn, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
			return err
		}
		publicKey := func() error {
			_, err := client.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &arn})
			return err
		}
		for _, tt := range []struct {
			state   simaws.KeyState
			typed   func(error) bool
			enabled bool
		}{
			{simaws.KeyDisabled, func(err error) bool { _, ok := errors.AsType[*types.DisabledException](err); return ok }, false},
			{simaws.KeyPendingDeletion, func(err error) bool { _, ok := errors.AsType[*types.KMSInvalidStateException](err); return ok }, false},
			{simaws.KeyEnabled, func(err error) bool { return err == nil }, true},
		} {
			if err := s.SetKeyState(arn, tt.state); err != nil {
				t.Fatal(err)
			}
			if err := sign(); !tt.typed(err) {
				t.Errorf("%s: Sign = %v", tt.state, err)
			}
			if err := publicKey(); !tt.typed(err) {
				t.Errorf("%s: GetPublicKey = %v", tt.state, err)
			}
			d, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/app")})
			if err != nil {
				t.Fatal(err)
			}
			m := d.KeyMetadata
			if *m.Arn != arn || m.Enabled != tt.enabled || string(m.KeyState) != string(tt.state) || !m.CreationDate.Equal(time.Now()) {
				t.Errorf("%s: DescribeKey = %+v", tt.state, m)
			}
			if pending := tt.state == simaws.KeyPendingDeletion; pending != (m.DeletionDate != nil) || pending && m.DeletionDate.Sub(time.Now()) != 30*24*time.Hour {
				t.Errorf("%s: deletion date = %v", tt.state, m.DeletionDate)
			}
		}
		if s.SetKeyState("arn:none", simaws.KeyEnabled) == nil {
			t.Error("SetKeyState of no key succeeded")
		}
	})
}

func TestFaultsOfKMS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		arn := addKey(t, s, simaws.SpecP256, "")
		client := kms.NewFromConfig(clientConfig(s))
		sign := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			defer cancel()
			_, err := client.Sign(ctx, &kms.SignInput{KeyId: &arn, Message: []byte("m"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
			return err
		}
		faultsAreTold(t, s, "Sign", map[simaws.FaultKind]string{
			simaws.Throttle: "ThrottlingException", simaws.Unavailable: "DependencyTimeoutException",
			simaws.Unauthorized: "AccessDeniedException", simaws.Stale: "NotFoundException",
		}, sign)
		hangs(t, s, "Sign", sign)
		s.Deny("kms:Sign", true)
		err := sign()
		if e, ok := errors.AsType[*smithyhttp.ResponseError](err); !ok || e.HTTPStatusCode() != http.StatusBadRequest ||
			errorCode(err) != "AccessDeniedException" || !strings.Contains(err.Error(), "user/operator is not authorized to perform: kms:Sign") {
			t.Errorf("Sign without permission = %v, want 400 AccessDeniedException that names the caller", err)
		}
		if _, err := client.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &arn}); err != nil {
			t.Errorf("GetPublicKey = %v, want another permission untouched", err)
		}
		s.Deny("kms:Sign", false)
		if err := sign(); err != nil {
			t.Errorf("Sign with permission = %v", err)
		}
	})
}
