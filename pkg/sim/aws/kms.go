package simaws

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The key specs that are simulated.
const (
	SpecRSA2048 = "RSA_2048"
	SpecP256    = "ECC_NIST_P256"
	SpecEd25519 = "ECC_NIST_EDWARDS25519"
)

// KeyState is the state of a KMS key:
// https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
type KeyState string

// The states that are simulated.
const (
	KeyEnabled         KeyState = "Enabled"
	KeyDisabled        KeyState = "Disabled"
	KeyPendingDeletion KeyState = "PendingDeletion"
)

// deletionAfter is the waiting period before a key is deleted, "30 days by
// default", API reference of ScheduleKeyDeletion.
const deletionAfter = 30 * 24 * time.Hour

// Key is an asymmetric key that signs.
type Key struct {
	Spec string
	// Alias is a name of the key, such as alias/app; none if empty.
	Alias string
	// Signer is imported key material that fits the spec; nil makes one.
	Signer crypto.Signer
}

// key is a key with what KMS knows of it.
type key struct {
	Key
	id, arn              string
	state                KeyState
	createdAt, deletedAt time.Time
}

// AddKey makes an enabled key and returns its ARN.
func (s *Server) AddKey(k Key) (string, error) {
	if k.Signer == nil {
		made, err := generate(k.Spec)
		if err != nil {
			return "", fmt.Errorf("make a key: %w", err)
		}
		k.Signer = made
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	added := &key{Key: k, id: s.uuid(), state: KeyEnabled, createdAt: time.Now()}
	added.arn = "arn:aws:kms:" + s.cfg.Region + ":" + s.cfg.AccountID + ":key/" + added.id
	s.keys = append(s.keys, added)
	if k.Alias != "" {
		s.aliases[k.Alias] = added
	}
	return added.arn, nil
}

func generate(spec string) (crypto.Signer, error) {
	switch spec {
	case SpecRSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case SpecP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case SpecEd25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("key spec %q is not simulated", spec)
}

// SetKeyState enables, disables or schedules the deletion of a key.
func (s *Server) SetKeyState(arn string, state KeyState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.keys, func(k *key) bool { return k.arn == arn })
	if i < 0 {
		return fmt.Errorf("set the state of %s: no such key", arn)
	}
	s.keys[i].state = state
	s.keys[i].deletedAt = time.Time{}
	if state == KeyPendingDeletion {
		s.keys[i].deletedAt = time.Now().Add(deletionAfter)
	}
	return nil
}

// signingAlgorithm is one algorithm of a spec.
type signingAlgorithm struct {
	name string
	hash crypto.Hash
	pss  bool
	// only is the message type that the algorithm demands, if any.
	only string
}

// algorithms are those of a key spec:
// https://docs.aws.amazon.com/kms/latest/developerguide/symm-asymm-choose-key-spec.html
func algorithms(spec string) []signingAlgorithm {
	switch spec {
	case SpecRSA2048:
		return []signingAlgorithm{
			{name: "RSASSA_PKCS1_V1_5_SHA_256", hash: crypto.SHA256},
			{name: "RSASSA_PKCS1_V1_5_SHA_384", hash: crypto.SHA384},
			{name: "RSASSA_PKCS1_V1_5_SHA_512", hash: crypto.SHA512},
			{name: "RSASSA_PSS_SHA_256", hash: crypto.SHA256, pss: true},
			{name: "RSASSA_PSS_SHA_384", hash: crypto.SHA384, pss: true},
			{name: "RSASSA_PSS_SHA_512", hash: crypto.SHA512, pss: true},
		}
	case SpecP256:
		return []signingAlgorithm{{name: "ECDSA_SHA_256", hash: crypto.SHA256}}
	}
	// "ED25519_SHA_512 signing algorithm requires KMS MessageType:RAW",
	// "ED25519_PH_SHA_512 ... requires KMS MessageType:DIGEST".
	return []signingAlgorithm{
		{name: "ED25519_SHA_512", hash: crypto.SHA512, only: "RAW"},
		{name: "ED25519_PH_SHA_512", hash: crypto.SHA512, only: "DIGEST"},
	}
}

func algorithmNames(spec string) []string {
	var out []string
	for _, a := range algorithms(spec) {
		out = append(out, a.name)
	}
	return out
}

// kms runs one action of KMS. Each error that is the caller's has status 400 in
// the API reference, whatever the service's model says of it:
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html
func (s *Server) kms(c call, kind FaultKind) (any, error) {
	run, known := map[string]func(call, FaultKind) (any, error){
		"DescribeKey":  s.describeKey,
		"GetPublicKey": s.getPublicKey,
		"Sign":         s.sign,
	}[c.action]
	if !known {
		return nil, unknownOperation()
	}
	return run(c, kind)
}

// findKey takes a key id, key ARN, alias name or alias ARN. "KMS API follows an
// eventual consistency model": a new key or alias may not be found yet.
// https://docs.aws.amazon.com/kms/latest/developerguide/accessing-kms.html#programming-eventual-consistency
// The wording: github.com/boto/botocore#2107.
func (s *Server) findKey(name string, kind FaultKind) (*key, error) {
	switch {
	case name == "":
		return nil, invalid("keyId", "null", "Member must not be null")
	case len(name) > 2048:
		return nil, invalid("keyId", "'"+name+"'", "Member must have length less than or equal to 2048")
	}
	home := "arn:aws:kms:" + s.cfg.Region + ":" + s.cfg.AccountID + ":"
	short, local := strings.CutPrefix(name, home)
	if strings.HasPrefix(name, "arn:") && !local {
		// A key of another account or region is not among ours.
		return nil, notFoundKMS("Invalid arn " + name)
	}
	if id, ok := strings.CutPrefix(short, "key/"); ok && local {
		short = id
	}
	found := s.aliases[short]
	for _, k := range s.keys {
		if k.id == short {
			found = k
		}
	}
	switch {
	case found != nil && kind != Stale:
		return found, nil
	case strings.HasPrefix(short, "alias/"):
		return nil, notFoundKMS("Alias " + home + short + " is not found.")
	}
	return nil, notFoundKMS("Key '" + home + "key/" + short + "' does not exist")
}

func notFoundKMS(message string) error {
	return &apiError{http.StatusBadRequest, "NotFoundException", message}
}

// usable refuses a key in the wrong state, as the table of key states says for
// Sign and GetPublicKey. DescribeKey works in each.
func (k *key) usable() error {
	switch k.state {
	case KeyDisabled:
		return &apiError{http.StatusBadRequest, "DisabledException", k.arn + " is disabled."}
	case KeyPendingDeletion:
		return &apiError{http.StatusBadRequest, "KMSInvalidStateException", k.arn + " is pending deletion."}
	}
	return nil
}

type keyMetadata struct {
	AWSAccountId, KeyId, Arn, Description string
	CreationDate                          epoch
	DeletionDate                          *epoch `json:",omitempty"`
	Enabled, MultiRegion                  bool
	KeyUsage, KeyManager, Origin          string
	KeyState                              KeyState
	// CustomerMasterKeySpec is the deprecated name, still answered.
	KeySpec, CustomerMasterKeySpec string
	SigningAlgorithms              []string
}

// describeKey: https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html
func (s *Server) describeKey(c call, kind FaultKind) (any, error) {
	var in struct{ KeyId string }
	if err := decode(c, &in); err != nil {
		return nil, err
	}
	k, err := s.findKey(in.KeyId, kind)
	if err != nil {
		return nil, err
	}
	m := keyMetadata{
		AWSAccountId: s.cfg.AccountID, KeyId: k.id, Arn: k.arn, CreationDate: epoch(k.createdAt), Enabled: k.state == KeyEnabled,
		KeyUsage: "SIGN_VERIFY", KeyManager: "CUSTOMER", Origin: "AWS_KMS", KeyState: k.state,
		KeySpec: k.Spec, CustomerMasterKeySpec: k.Spec, SigningAlgorithms: algorithmNames(k.Spec),
	}
	if !k.deletedAt.IsZero() {
		m.DeletionDate = new(epoch(k.deletedAt))
	}
	return struct{ KeyMetadata keyMetadata }{m}, nil
}

// getPublicKey: "the value is a DER-encoded X.509 public key, also known as
// SubjectPublicKeyInfo (SPKI), as defined in RFC 5280".
// https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html
func (s *Server) getPublicKey(c call, kind FaultKind) (any, error) {
	var in struct{ KeyId string }
	if err := decode(c, &in); err != nil {
		return nil, err
	}
	k, err := s.findKey(in.KeyId, kind)
	if err == nil {
		err = k.usable()
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(k.Signer.Public())
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	return struct {
		KeyId, KeySpec, CustomerMasterKeySpec, KeyUsage string
		PublicKey                                       []byte
		SigningAlgorithms                               []string
	}{k.arn, k.Spec, k.Spec, "SIGN_VERIFY", der, algorithmNames(k.Spec)}, nil
}

// sign: https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
func (s *Server) sign(c call, kind FaultKind) (any, error) {
	var in struct {
		KeyId, MessageType, SigningAlgorithm string
		Message                              []byte
		DryRun                               bool
	}
	if err := decode(c, &in); err != nil {
		return nil, err
	}
	in.MessageType = cmp.Or(in.MessageType, "RAW")
	switch every := slices.Concat(algorithmNames(SpecRSA2048), algorithmNames(SpecP256), algorithmNames(SpecEd25519)); {
	case len(in.Message) == 0:
		return nil, invalid("message", "null", "Member must not be null")
	case len(in.Message) > 4096:
		// "You can submit messages of up to 4096 bytes."
		return nil, invalid("message", "'*** Sensitive Data Redacted ***'", "Member must have length less than or equal to 4096")
	case !slices.Contains([]string{"RAW", "DIGEST", "EXTERNAL_MU"}, in.MessageType):
		return nil, invalid("messageType", "'"+in.MessageType+"'", "Member must satisfy enum value set: [RAW, DIGEST, EXTERNAL_MU]")
	case !slices.Contains(every, in.SigningAlgorithm):
		return nil, invalid("signingAlgorithm", "'"+in.SigningAlgorithm+"'", "Member must satisfy enum value set: ["+strings.Join(every, ", ")+"]")
	}
	k, err := s.findKey(in.KeyId, kind)
	if err == nil {
		err = k.usable()
	}
	if err != nil {
		return nil, err
	}
	signature, err := k.signature(in.SigningAlgorithm, in.MessageType, in.Message)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, &apiError{http.StatusBadRequest, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."}
	}
	return struct {
		KeyId, SigningAlgorithm string
		Signature               []byte
	}{k.arn, in.SigningAlgorithm, signature}, nil
}

// signature signs as the algorithm says, or says why it does not fit.
func (k *key) signature(name, messageType string, message []byte) ([]byte, error) {
	all := algorithms(k.Spec)
	i := slices.IndexFunc(all, func(a signingAlgorithm) bool { return a.name == name })
	if i < 0 {
		// "The signing algorithm specified for the operation is incompatible
		// with the type of key material in the KMS key (KeySpec)."
		return nil, &apiError{http.StatusBadRequest, "InvalidKeyUsageException", "Algorithm " + name + " and key spec " + k.Spec + " are incompatible"}
	}
	a := all[i]
	switch {
	case messageType == "EXTERNAL_MU", a.only != "" && messageType != a.only:
		return nil, &apiError{http.StatusBadRequest, "ValidationException", "MessageType " + messageType + " is not valid for algorithm " + name}
	case messageType == "DIGEST" && len(message) != a.hash.Size():
		// "The length of the Message value must match the length of hashed
		// messages for the specified signing algorithm." The wording:
		// github.com/getmoto/moto#10202.
		return nil, &apiError{http.StatusBadRequest, "ValidationException", "Digest is invalid length for algorithm " + name + "."}
	}
	digest := message
	var options crypto.SignerOpts = a.hash
	switch {
	case a.only == "RAW":
		options = crypto.Hash(0)
	case a.only == "DIGEST":
		// "The input is hashed twice: once by you and once by KMS."
		sum := sha512.Sum512(message)
		digest = sum[:]
	case messageType == "RAW":
		h := a.hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	if a.pss {
		// "The salt length is the length of the digest":
		// https://docs.aws.amazon.com/kms/latest/developerguide/offline-operations.html
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	}
	out, err := k.Signer.Sign(rand.Reader, digest, options)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return out, nil
}
