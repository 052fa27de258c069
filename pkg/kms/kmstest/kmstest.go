// Package kmstest is AWS KMS as far as signing goes, for tests: it answers
// GetPublicKey and Sign in the wire format of KMS, AWS JSON 1.1, and refuses
// what KMS refuses.
package kmstest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// State is the state of a key.
// https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
type State string

// The states that tests need.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
)

// KMS holds keys. It is an [http.Handler], safe for concurrent use.
type KMS struct {
	mu     sync.Mutex
	keys   map[string]*held
	refuse map[string]string
	lie    func(op string, answer map[string]any)
	signed map[string]int
}

type held struct {
	signer crypto.Signer
	spec   string
	usage  string
	state  State
}

// New is a KMS without keys.
func New() *KMS {
	return &KMS{keys: map[string]*held{}, refuse: map[string]string{}, signed: map[string]int{}}
}

// Config reaches the KMS over a listener that ends with the test. One attempt
// is made of each call.
func (k *KMS) Config(t testing.TB) aws.Config {
	t.Helper()
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "a secret of the test", ""),
	}
}

// Create makes a signing key of this spec and returns its ARN.
func (k *KMS) Create(t testing.TB, spec string) string {
	t.Helper()
	var (
		signer crypto.Signer
		err    error
	)
	switch spec {
	case "RSA_2048":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ECC_NIST_P256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECC_NIST_P384":
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECC_NIST_EDWARDS25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("kmstest: no spec %s", spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	arn := fmt.Sprintf("arn:aws:kms:us-east-1:111122223333:key/0b989ba4-242f-11e5-81e1-%012d", len(k.keys))
	k.keys[arn] = &held{signer, spec, "SIGN_VERIFY", Enabled}
	return arn
}

// Set changes the state of a key.
func (k *KMS) Set(arn string, state State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[arn].state = state
}

// Use changes the usage of a key, as if it had been made with it.
func (k *KMS) Use(arn, usage string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[arn].usage = usage
}

// Refuse answers an operation, Sign or GetPublicKey, with this exception until
// it is "".
func (k *KMS) Refuse(op, exception string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse[op] = exception
}

// Lie lets f change every answer before it is sent.
func (k *KMS) Lie(f func(op string, answer map[string]any)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lie = f
}

// Signed is how many signatures were made with the key.
func (k *KMS) Signed(arn string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signed[arn]
}

type request struct {
	KeyID            string `json:"KeyId"`
	Message          []byte `json:"Message"`
	MessageType      string `json:"MessageType"`
	SigningAlgorithm string `json:"SigningAlgorithm"`
}

// fault is an exception of KMS.
type fault string

func (f fault) Error() string { return string(f) }

// ServeHTTP implements [http.Handler].
func (k *KMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	answer, err := k.answer(r.Context(), op, r)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": err.Error(), "message": "no"})
		return
	}
	if k.lie != nil {
		k.lie(op, answer)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (k *KMS) answer(ctx context.Context, op string, r *http.Request) (map[string]any, error) {
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || ctx.Err() != nil {
		return nil, fault("SerializationException")
	}
	if exception := k.refuse[op]; exception != "" {
		return nil, fault(exception)
	}
	key := k.keys[in.KeyID]
	switch {
	case key == nil:
		return nil, fault("NotFoundException")
	case key.state == Disabled:
		return nil, fault("DisabledException")
	case key.state == PendingDeletion:
		return nil, fault("KMSInvalidStateException")
	}
	switch op {
	case "GetPublicKey":
		return key.public(in.KeyID)
	case "Sign":
		answer, err := key.sign(in)
		if err == nil {
			k.signed[in.KeyID]++
		}
		return answer, err
	}
	return nil, fault("UnknownOperationException")
}

// algorithms of a spec.
// https://docs.aws.amazon.com/kms/latest/developerguide/symm-asymm-choose-key-spec.html
var algorithms = map[string][]string{
	"RSA_2048":              {"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"},
	"ECC_NIST_P256":         {"ECDSA_SHA_256"},
	"ECC_NIST_P384":         {"ECDSA_SHA_384"},
	"ECC_NIST_EDWARDS25519": {"ED25519_SHA_512", "ED25519_PH_SHA_512"},
}

func (h *held) public(arn string) (map[string]any, error) {
	der, err := x509.MarshalPKIXPublicKey(h.signer.Public())
	if err != nil {
		return nil, fault("KMSInternalException")
	}
	return map[string]any{
		"KeyId": arn, "PublicKey": der, "KeySpec": h.spec, "KeyUsage": h.usage, "SigningAlgorithms": algorithms[h.spec],
	}, nil
}

// sign does what the message type says: a DIGEST is signed as it is, a RAW
// message is hashed first. Ed25519 takes RAW for ED25519_SHA_512 only.
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
func (h *held) sign(in request) (map[string]any, error) {
	if h.usage != "SIGN_VERIFY" {
		return nil, fault("InvalidKeyUsageException")
	}
	if len(in.Message) == 0 || len(in.Message) > 4096 {
		return nil, fault("ValidationException")
	}
	digest := in.Message
	switch {
	case in.MessageType == "DIGEST" && len(digest) != sha256.Size:
		return nil, fault("ValidationException")
	case in.MessageType == "RAW" && in.SigningAlgorithm != "ED25519_SHA_512":
		sum := sha256.Sum256(in.Message)
		digest = sum[:]
	case in.MessageType != "DIGEST" && in.MessageType != "RAW":
		return nil, fault("ValidationException")
	}
	opts := crypto.SignerOpts(crypto.SHA256)
	switch h.spec + " " + in.SigningAlgorithm {
	case "RSA_2048 RSASSA_PKCS1_V1_5_SHA_256", "ECC_NIST_P256 ECDSA_SHA_256":
	case "ECC_NIST_EDWARDS25519 ED25519_SHA_512":
		if in.MessageType != "RAW" {
			return nil, fault("ValidationException")
		}
		opts = crypto.Hash(0)
	default:
		return nil, fault("InvalidKeyUsageException")
	}
	signature, err := h.signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nil, fault("KMSInternalException")
	}
	return map[string]any{"KeyId": in.KeyID, "Signature": signature, "SigningAlgorithm": in.SigningAlgorithm}, nil
}
