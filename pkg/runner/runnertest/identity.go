package runnertest

import (
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Identified is the cast on a host whose witness presented these files of the
// instance metadata service. What they say agrees with the cast's host.
func (c Cast) Identified(document, signature, certificate []byte) Cast {
	h := c.Host
	c.Host = h.WithIdentity(&runner.HostIdentity{
		Document: runner.DigestOf(document), Signature: runner.DigestOf(signature), Certificate: runner.DigestOf(certificate),
		InstanceID: h.InstanceID, AccountID: h.AccountID, Region: h.Region, ImageID: h.ImageID, InstanceType: h.InstanceType,
		PrivateIP: h.PrivateIP, PendingTime: h.LaunchedAt, BootID: h.BootID,
		WitnessPod: "1b7bbd2e-4444-4a3c-9c1c-000000000000", SeenAt: Start().Add(-time.Minute),
	}, true)
	return c
}
