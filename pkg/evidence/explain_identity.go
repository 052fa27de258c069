package evidence

import (
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// identified is what AWS signed about the host, where a witness presented it.
func identified(f *facts, at uint64, id *runner.HostIdentity) {
	if id == nil {
		return
	}
	f.add(at, "AWS signed", "%s in account %s, %s", id.InstanceID, id.AccountID, id.Region)
	f.add(at, "AWS signed its image", "%s on %s", id.ImageID, id.InstanceType)
	f.add(at, "AWS signed its launch", "%s", strings.TrimSpace(when(id.PendingTime)+" "+id.PrivateIP))
	f.add(at, "identity document", "%s", id.Document)
	f.add(at, "its signature", "%s", id.Signature)
	f.add(at, "its certificate", "%s", id.Certificate)
	f.add(at, "presented by", "witness pod %s on boot %s, last %s", id.WitnessPod, id.BootID, when(id.SeenAt))
}
