package evidence

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// VerifyDocument checks again what a cloud signed about a host. It must need
// neither the network nor a clock.
type VerifyDocument func(document, signature []byte) (runner.HostIdentity, error)

// checkDocuments verifies the identity documents of all claimed hosts again,
// from the bytes in the ledger. Without a way to do that it says how many were
// taken on the daemon's word.
func (v *verification) checkDocuments(verify VerifyDocument) {
	count := 0
	for _, rec := range v.report.Records {
		v.year = v.yearOf(rec)
		claimed, ok := rec.Event.(runner.Claimed)
		if !ok || claimed.Host.Identity == nil {
			continue
		}
		count++
		if verify == nil {
			continue
		}
		for _, err := range v.document(verify, *claimed.Host.Identity) {
			v.report.find(int64(rec.Index), v.Name(BlobName(claimed.Host.Identity.Document)), err)
		}
	}
	switch {
	case count == 0:
	case verify == nil:
		v.report.note("", plural(count, "identity document")+" of hosts not verified again: that needs the certificates of AWS")
	default:
		v.report.note("", plural(count, "identity document")+" of hosts verified again with the given certificates")
	}
}

func (v *verification) document(verify VerifyDocument, recorded runner.HostIdentity) []error {
	document, errDocument := fs.ReadFile(v.fsys, v.Name(BlobName(recorded.Document)))
	signature, errSignature := fs.ReadFile(v.fsys, v.Name(BlobName(recorded.Signature)))
	if errDocument != nil || errSignature != nil {
		return nil // found already: the record rests on attachments that are not there
	}
	signed, err := verify(document, signature)
	if err != nil {
		return []error{problem(10, "identity-document", "the host's identity document does not verify: %v", err)}
	}
	if other := disagreement(recorded, signed); other != "" {
		return []error{problem(10, "identity-content", "the record says otherwise than the signed document: %s", other)}
	}
	return nil
}

// disagreement names the fields in which a record differs from what was
// signed. Boot, witness and time are the record's alone.
func disagreement(recorded, signed runner.HostIdentity) string {
	var out []string
	for _, f := range []struct{ name, recorded, signed string }{
		{"document", string(recorded.Document), string(signed.Document)},
		{"signature", string(recorded.Signature), string(signed.Signature)},
		{"certificate", string(recorded.Certificate), string(signed.Certificate)},
		{"instanceId", recorded.InstanceID, signed.InstanceID},
		{"accountId", recorded.AccountID, signed.AccountID},
		{"region", recorded.Region, signed.Region},
		{"imageId", recorded.ImageID, signed.ImageID},
		{"instanceType", recorded.InstanceType, signed.InstanceType},
		{"privateIp", recorded.PrivateIP, signed.PrivateIP},
		{"pendingTime", stamp(recorded.PendingTime), stamp(signed.PendingTime)},
	} {
		if f.recorded != f.signed {
			out = append(out, fmt.Sprintf("%s is %.80q and signed is %.80q", f.name, f.recorded, f.signed))
		}
	}
	return strings.Join(out, ", ")
}
