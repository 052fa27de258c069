package wire

import (
	"errors"
	"fmt"

	"github.com/runnerward/runnerward/pkg/runner"
)

// HostPattern is where the witness of a host presents its identity.
const HostPattern = "/v1/host"

// MaxDocument bounds an identity document and its signature, in bytes. Those
// of AWS are below 2 KiB.
const MaxDocument = 16 << 10

// HostRequest is what the instance metadata service said, byte for byte, and
// what the kernel says of its boot.
type HostRequest struct {
	// Document and Signature are /latest/dynamic/instance-identity/document
	// and rsa2048. In JSON they are base64, whatever they hold.
	Document  []byte `json:"document"`
	Signature []byte `json:"signature"`
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"bootId"`
}

// Check says whether the request can be a witness's.
func (r HostRequest) Check() error {
	for name, b := range map[string][]byte{"document": r.Document, "signature": r.Signature} {
		if len(b) == 0 || len(b) > MaxDocument {
			return fmt.Errorf("a %s of %d bytes, want 1 to %d", name, len(b), MaxDocument)
		}
	}
	if err := runner.Validate(struct {
		BootID string `pat:"word"`
	}{r.BootID}); err != nil {
		return errors.New("the boot id is malformed")
	}
	return nil
}

// HostAnswer names what was accepted.
type HostAnswer struct {
	Document runner.Digest `json:"document"`
}

// Check says whether the answer can be used.
func (a HostAnswer) Check() error { return CheckDigest(a.Document) }
