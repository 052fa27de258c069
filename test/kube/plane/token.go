package plane

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
)

// SignToken makes a token of these claims with the key of service accounts, for
// what no request for a token can have, such as an end in the past. The key id
// is that of keyIDFromPublicKey in pkg/serviceaccount/jwt.go.
func (p *Plane) SignToken(claims any) (string, error) {
	content, err := os.ReadFile(p.file("pki/accounts.key"))
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return "", fmt.Errorf("the key of service accounts is no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return "", fmt.Errorf("the key of service accounts is %T, want RSA", parsed)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", err
	}
	id := sha256.Sum256(public)
	b64 := base64.RawURLEncoding
	header, err := json.Marshal(map[string]string{"alg": "RS256", "kid": b64.EncodeToString(id[:])})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed := b64.EncodeToString(header) + "." + b64.EncodeToString(body)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	return signed + "." + b64.EncodeToString(signature), nil
}
