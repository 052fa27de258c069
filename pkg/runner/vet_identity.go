package runner

import (
	"slices"
	"time"
)

// HostIdentity is what EC2's instance identity document says of a host: bytes
// that AWS signed, brought by the witness that runs on the host's node. The
// document has no nonce and no expiry: it proves that AWS launched this
// instance, not that whoever shows it is on it. So it counts only together
// with [Host.WithIdentity]'s comparison with what the control planes say.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html
type HostIdentity struct {
	// Document and Signature name attachments of the log: the two files as the
	// instance metadata service gave them. Certificate is the digest of the
	// pinned certificate (DER) that the signature was verified with.
	Document    Digest `json:"document" pat:"digest"`
	Signature   Digest `json:"signature" pat:"digest"`
	Certificate Digest `json:"certificate" pat:"digest"`

	InstanceID   string    `json:"instanceId" pat:"host"`
	AccountID    string    `json:"accountId" pat:"word"`
	Region       string    `json:"region" pat:"word"`
	ImageID      string    `json:"imageId" pat:"word"`
	InstanceType string    `json:"instanceType" pat:"word"`
	PrivateIP    string    `json:"privateIp,omitempty" pat:"ip,opt"`
	PendingTime  time.Time `json:"pendingTime"`

	// BootID is what the witness read from the kernel, WitnessPod the UID of
	// its pod as the cluster told it, SeenAt when it came last.
	BootID     string    `json:"bootId" pat:"word"`
	WitnessPod string    `json:"witnessPod" pat:"word"`
	SeenAt     time.Time `json:"seenAt"`
}

// identitySlack is how far the document's pendingTime may be from EC2's own
// launch time.
const identitySlack = 5 * time.Minute

// checkIdentity names the check that says whether there is a document.
const checkIdentity = "identity.document"

// WithIdentity is the host with the document that its witness presented, nil
// if none. A document that agrees with everything else that is known of the
// host raises its assurance to L2; one that disagrees fails the vetting. An
// absent one leaves the host as it is, unless documents are required.
func (h Host) WithIdentity(id *HostIdentity, required bool) Host {
	if id == nil {
		if required {
			h.Checks = append(slices.Clip(h.Checks), Check{checkIdentity, Unknown})
		}
		return h
	}
	checks := id.checks(h)
	h.Identity, h.Checks = id, append(slices.Clip(h.Checks), checks...)
	if h.Assurance == L1 && Vetted(checks) {
		h.Assurance = L2
	}
	return h
}

// checks compare the document with what Kubernetes and EC2 say of the host.
func (id *HostIdentity) checks(h Host) []Check {
	v := vetting{}
	v.is(checkIdentity, true)
	node, ok := Node{ProviderID: h.ProviderID}.InstanceID()
	v.known("identity.instance", ok, id.InstanceID == node && id.InstanceID == h.InstanceID)
	v.same("identity.account", id.AccountID, h.AccountID)
	v.same("identity.region", id.Region, h.Region)
	v.same("identity.image", id.ImageID, h.ImageID)
	v.same("identity.address", id.PrivateIP, h.PrivateIP)
	v.known("identity.pendingTime", !id.PendingTime.IsZero() && !h.LaunchedAt.IsZero(),
		id.PendingTime.Sub(h.LaunchedAt).Abs() <= identitySlack)
	v.same("identity.bootId", id.BootID, h.BootID)
	return v.checks
}

func (v *vetting) same(name, a, b string) { v.known(name, a != "" && b != "", a == b) }

// checkAssurance holds a claimed host to its own level: L2 needs a document
// that agrees with the rest of the record, and a document makes it L2. It is
// derived again here, so that a record cannot say more than it shows.
func (v verdict) checkAssurance(h Host) error {
	switch {
	case h.Assurance != L0 && h.Assurance != L1 && h.Assurance != L2:
		return v.breaks(10, "assurance", "host %s claims the assurance %s, which nothing can show", h.InstanceID, h.Assurance)
	case h.Identity == nil && h.Assurance == L2:
		return v.breaks(10, "assurance", "host %s claims L2 without an identity document", h.InstanceID)
	case h.Identity == nil:
		return nil
	case h.Assurance != L2:
		return v.breaks(10, "assurance", "host %s has an identity document and claims %s, not L2", h.InstanceID, h.Assurance)
	}
	for _, c := range h.Identity.checks(h) {
		if c.Verdict != Pass {
			return v.breaks(10, "assurance", "host %s claims L2, and check %s of its identity document says %s", h.InstanceID, c.Name, c.Verdict)
		}
		if !slices.Contains(h.Checks, c) {
			return v.breaks(10, "assurance", "host %s claims L2 without the check %s", h.InstanceID, c.Name)
		}
	}
	return nil
}
