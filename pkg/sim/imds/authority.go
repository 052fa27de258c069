package simimds

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/smallstep/pkcs7"
)

// Authority signs the documents of one region, as AWS does with a self-signed
// certificate for each.
type Authority struct {
	Region string
	Cert   *x509.Certificate
	Key    *rsa.PrivateKey
}

// NewAuthority makes an authority; a nil key makes one of 2048 bits. All
// authorities have the same name, as AWS's certificates do; the serial number
// tells them apart.
func NewAuthority(region string, key *rsa.PrivateKey) (*Authority, error) {
	if key == nil {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 62))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	name := pkix.Name{Country: []string{"US"}, Province: []string{"Washington State"}, Locality: []string{"Seattle"}, Organization: []string{"Simulated Web Services LLC"}}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: name, SignatureAlgorithm: x509.SHA256WithRSA,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back a certificate: %w", err)
	}
	return &Authority{Region: region, Cert: cert, Key: key}, nil
}

// Pinned is the authority's entry in a file of pinned certificates.
func (a *Authority) Pinned() []byte {
	return fmt.Appendf(nil, "# %s\n%s\n", a.Region, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw}))
}

// Sign is the text of rsa2048 for this document: PKCS #7 with the document
// inside and no certificate, in base64 with lines of 64 characters and without
// PEM armour.
func (a *Authority) Sign(document []byte) ([]byte, error) {
	sd, err := pkcs7.NewSignedData(document)
	if err != nil {
		return nil, fmt.Errorf("begin to sign: %w", err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSigner(a.Cert, a.Key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	der, err := sd.Finish()
	if err != nil {
		return nil, fmt.Errorf("end the signature: %w", err)
	}
	return Text(der), nil
}

// Text is a signature as the metadata service writes it.
func Text(der []byte) []byte {
	encoded := []byte(base64.StdEncoding.EncodeToString(der))
	var out bytes.Buffer
	for len(encoded) > 64 {
		out.Write(encoded[:64])
		out.WriteByte('\n')
		encoded = encoded[64:]
	}
	out.Write(encoded)
	return out.Bytes()
}

// Instance is what a document says.
type Instance struct {
	ID, AccountID, Region, Zone string
	ImageID, Type, PrivateIP    string
	LaunchedAt                  time.Time
}

// Document is the instance's document, in the order, spacing and nulls of a
// genuine one of version 2017-09-30.
func Document(in Instance) []byte {
	return fmt.Appendf(nil, `{
  "accountId" : %q,
  "architecture" : "x86_64",
  "availabilityZone" : %q,
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : %q,
  "instanceId" : %q,
  "instanceType" : %q,
  "kernelId" : null,
  "pendingTime" : %q,
  "privateIp" : %q,
  "ramdiskId" : null,
  "region" : %q,
  "version" : "2017-09-30"
}`, in.AccountID, in.Zone, in.ImageID, in.ID, in.Type, in.LaunchedAt.UTC().Format("2006-01-02T15:04:05Z"), in.PrivateIP, in.Region)
}
