package plane

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// auditPolicy logs who asked for what, with the bodies of what may not hold a
// secret left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: None
    users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
  - level: Metadata
`

// Request is one request of the API server's audit log.
// https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
type Request struct {
	// AuditID is what the answer's header Audit-Id told the caller.
	AuditID          string
	Verb, RequestURI string
	User             struct {
		Username string
		Groups   []string
	}
	UserAgent string
	ObjectRef struct {
		APIGroup, APIVersion, Resource, Subresource, Namespace, Name string
	}
	ResponseStatus           struct{ Code int }
	RequestReceivedTimestamp time.Time
	// Annotations hold authorization.k8s.io/decision and its reason.
	Annotations map[string]string
}

// Audit is every request that has ended so far. The log is written before an
// answer leaves. A watch is in it once it ended.
func (p *Plane) Audit() ([]Request, error) {
	f, err := os.Open(p.file("audit.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer f.Close()
	var out []Request
	for d := json.NewDecoder(bufio.NewReader(f)); d.More(); {
		var r Request
		if err := d.Decode(&r); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}
