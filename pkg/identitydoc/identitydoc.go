// Package identitydoc verifies EC2 instance identity documents offline: the
// document as the instance metadata service gives it, its rsa2048 signature,
// and the certificates that AWS publishes for each region.
//
// What a verified document shows is that AWS launched such an instance. It has
// no nonce and no expiry, so it does not show who presents it; the supervisor
// compares it with what Kubernetes and EC2 say (pkg/runner).
//
// Of the three signatures that AWS offers only rsa2048 is taken (PKCS #7, RSA
// with 2048 bits and SHA-256). The one called signature has an RSA key of 1024
// bits, pkcs7 is DSA with SHA-1: both are too weak and refused by FIPS 140-3.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-rsa2048.html
package identitydoc

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Why a document is not accepted. Every error of [Certificates.Verify] wraps
// exactly one of them; none is worth another try with the same bytes.
var (
	// ErrMalformed: document or signature do not have the form that AWS gives them.
	ErrMalformed = errors.New("not an instance identity document")
	// ErrRegion: no certificate is pinned for the region that the document names.
	ErrRegion = errors.New("no certificate is pinned for the region")
	// ErrSignature: the signature is not AWS's over this document.
	ErrSignature = errors.New("the signature does not verify")
)

// MaxSize bounds document and signature, in bytes. Those of AWS are below 2 KiB.
const MaxSize = 16 << 10

// Verify checks that the document was signed by a certificate that is pinned
// for the region which it names, and returns what it says. The signature is
// the text of /latest/dynamic/instance-identity/rsa2048: base64 without PEM
// armour. BootID, WitnessPod and SeenAt are left empty: nobody signs them.
// It reads no clock and is safe for concurrent use.
func (c *Certificates) Verify(doc, signature []byte) (runner.HostIdentity, error) {
	if len(doc) > MaxSize || len(signature) > MaxSize {
		return runner.HostIdentity{}, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxSize)
	}
	d, err := decode(doc)
	if err != nil {
		return runner.HostIdentity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	// The region is the document's own word, and not believed by itself: it
	// only chooses which certificate has to have signed it.
	pinned := c.byRegion[d.text["region"]]
	if len(pinned) == 0 {
		return runner.HostIdentity{}, fmt.Errorf("%w %s", ErrRegion, d.text["region"])
	}
	var signed *pkcs7.PKCS7
	der, err := base64.StdEncoding.DecodeString(string(signature))
	if err == nil {
		signed, err = pkcs7.Parse(der)
	}
	if err != nil {
		return runner.HostIdentity{}, fmt.Errorf("%w: the signature is not base64 of PKCS #7: %w", ErrMalformed, err)
	}
	// What travels with the signature vouches for nothing.
	signed.Certificates = pinned
	if len(signed.Signers) != 1 {
		return runner.HostIdentity{}, fmt.Errorf("%w: %d signers, want one", ErrSignature, len(signed.Signers))
	}
	if !signed.Signers[0].DigestAlgorithm.Algorithm.Equal(pkcs7.OIDDigestAlgorithmSHA256) {
		return runner.HostIdentity{}, fmt.Errorf("%w: another digest than SHA-256", ErrSignature)
	}
	signer := signed.GetOnlySigner()
	if signer == nil {
		return runner.HostIdentity{}, fmt.Errorf("%w: signed by a certificate that is not pinned for %s", ErrSignature, d.text["region"])
	}
	if err := signed.Verify(); err != nil {
		return runner.HostIdentity{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	// Only now: the content is filled in whether or not it is signed. Without
	// this, a genuine signature over another document would do.
	if !bytes.Equal(signed.Content, doc) {
		return runner.HostIdentity{}, fmt.Errorf("%w: it is over another document", ErrSignature)
	}
	return runner.HostIdentity{
		Document: runner.DigestOf(doc), Signature: runner.DigestOf(signature), Certificate: runner.DigestOf(signer.Raw),
		InstanceID: d.text["instanceId"], AccountID: d.text["accountId"], Region: d.text["region"], ImageID: d.text["imageId"],
		InstanceType: d.text["instanceType"], PrivateIP: d.text["privateIp"], PendingTime: d.pending,
	}, nil
}
