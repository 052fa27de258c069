package kms_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/runnerward/runnerward/pkg/kms"
)

const arn = "arn:aws:kms:us-east-1:111122223333:key/0b989ba4-242f-11e5-81e1-c7b6966d2516"

// service answers GetPublicKey and Sign in the wire format of KMS, AWS JSON 1.1.
// https://docs.aws.amazon.com/kms/latest/APIReference/
type service struct {
	key          *rsa.PrivateKey
	public, sign map[string]any // fields that differ
	refuse       string         // exception to answer with
	signed       int
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if s.refuse != "" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": s.refuse, "message": "no"})
		return
	}
	out := map[string]any{"KeyId": arn}
	var in struct {
		KeyId, Message, MessageType, SigningAlgorithm string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.KeyId != arn {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch r.Header.Get("X-Amz-Target") {
	case "TrentService.GetPublicKey":
		der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
		if err != nil {
			panic(err)
		}
		out["PublicKey"], out["KeySpec"], out["KeyUsage"] = der, "RSA_2048", "SIGN_VERIFY"
		out["SigningAlgorithms"] = []string{"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"}
		for k, v := range s.public {
			out[k] = v
		}
	case "TrentService.Sign":
		digest, err := base64.StdEncoding.DecodeString(in.Message)
		if err != nil || in.MessageType != "DIGEST" || in.SigningAlgorithm != "RSASSA_PKCS1_V1_5_SHA_256" || len(digest) != sha256.Size {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.signed++
		signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, digest)
		if err != nil {
			panic(err)
		}
		out["Signature"], out["SigningAlgorithm"] = signature, in.SigningAlgorithm
		for k, v := range s.sign {
			out[k] = v
		}
	default:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

func serve(t *testing.T, s *service) aws.Config {
	t.Helper()
	if s.key == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		s.key = key
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	}
}

func TestSignaturesAreThoseOfTheKey(t *testing.T) {
	s := &service{}
	key, err := kms.OpenRSA(t.Context(), serve(t, s), arn)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("a token"))
	signature, err := key.Sign(t.Context(), digest[:])
	if err != nil || s.signed != 1 {
		t.Fatalf("Sign() = %v after %d calls", err, s.signed)
	}
	if err := rsa.VerifyPKCS1v15(key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature); err != nil {
		t.Errorf("the signature does not verify: %v", err)
	}
	if _, err := key.Sign(t.Context(), []byte("short")); err == nil || s.signed != 1 {
		t.Error("Sign() of what is no digest = nil, want an error and no call")
	}
}

func TestAKeyThatWillNotDoIsRefusedAtOnce(t *testing.T) {
	for says, public := range map[string]map[string]any{
		"by its ARN, not by an alias": {"KeyId": "arn:aws:kms:us-east-1:111122223333:key/other"},
		"is not for signing":          {"KeyUsage": "ENCRYPT_DECRYPT"},
		"of spec ECC_NIST_P256":       {"KeySpec": "ECC_NIST_P256", "SigningAlgorithms": []string{"ECDSA_SHA_256"}},
		"cannot be read":              {"PublicKey": []byte("x")},
	} {
		if _, err := kms.OpenRSA(t.Context(), serve(t, &service{public: public}), arn); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("OpenRSA() = %v, want %q", err, says)
		}
	}
}

func TestWhatKMSRefusesIsExplained(t *testing.T) {
	for exception, says := range map[string]string{
		"NotFoundException": "check the ARN", "DisabledException": "enable it in KMS", "KMSInvalidStateException": "pending deletion",
		"AccessDeniedException": "has to allow kms:GetPublicKey", "SomethingElse": "kms:GetPublicKey of key",
	} {
		if _, err := kms.OpenRSA(t.Context(), serve(t, &service{refuse: exception}), arn); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("OpenRSA() with %s = %v, want %q", exception, err, says)
		}
	}
	s := &service{}
	key, err := kms.OpenRSA(t.Context(), serve(t, s), arn)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("a token"))
	s.refuse = "AccessDeniedException"
	if _, err := key.Sign(t.Context(), digest[:]); err == nil || !strings.Contains(err.Error(), "has to allow kms:Sign") {
		t.Errorf("Sign() = %v, want the permission named", err)
	}
	s.refuse, s.sign = "", map[string]any{"Signature": make([]byte, 256)}
	if _, err := key.Sign(t.Context(), digest[:]); err == nil || !strings.Contains(err.Error(), "not by the key") {
		t.Errorf("Sign() = %v, want the signature refused", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.Sign(ended, digest[:]); err == nil {
		t.Error("Sign() after the end = nil, want an error")
	}
}
