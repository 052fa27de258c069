package ghapp

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// minBits is the least size of a key: NIST SP 800-131A.
const minBits = 2048

// ParseKey reads an RSA private key in PEM, PKCS#1 as GitHub hands it out or
// PKCS#8. Its errors say nothing of the key.
func ParseKey(text []byte) (Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("app: the private key is not PEM: want the file that GitHub made, from its first line to its last")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		var isRSA bool
		if key, isRSA = parsed.(*rsa.PrivateKey); err != nil || !isRSA {
			return nil, errors.New("app: the private key is not an RSA key in PKCS#1 or PKCS#8")
		}
	}
	if bits := key.N.BitLen(); bits < minBits {
		return nil, fmt.Errorf("app: the private key has %d bits, at least %d are needed", bits, minBits)
	}
	return fileKey{key}, nil
}

// fileKey is a key in memory. It prints as nothing.
type fileKey struct{ key *rsa.PrivateKey }

func (k fileKey) Public() crypto.PublicKey { return k.key.Public() }

func (k fileKey) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return rsa.SignPKCS1v15(rand.Reader, k.key, crypto.SHA256, digest)
}

// String and GoString keep the key out of logs.
func (fileKey) String() string   { return "[private key]" }
func (fileKey) GoString() string { return "[private key]" }

// String and GoString keep what the App holds out of logs.
func (a *App) String() string   { return "GitHub App " + a.cfg.ClientID }
func (a *App) GoString() string { return a.String() }
