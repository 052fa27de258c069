package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// HostAudience is the audience of the token of a host's witness. A runner
// pod's token has a digest for its audience, so neither passes for the other.
const HostAudience = "runnerward-host"

// Documents verifies what a cloud signed about its instances. It is safe for
// concurrent use and calls nobody.
type Documents interface {
	// Verify says what the signed document says. An error is final: these
	// bytes will never be accepted.
	Verify(document, signature []byte) (runner.HostIdentity, error)
}

// HostClaim is what the witness of a host presents: two files of the instance
// metadata service, byte for byte, and the boot id that the kernel gives.
type HostClaim struct {
	Document, Signature []byte
	BootID              string
}

// Host takes the identity document that the witness on a host presents. Who
// asks, from which pod on which node, the cluster says by reviewing the token;
// nothing of that is believed from the request. The document must be of the
// instance that the node's provider id names and the boot id that of the node;
// the first document binds the instance to the node, so that a document that
// somebody has once read is of no use on another node.
//
// It returns [ErrTokenRejected], or [ErrConflict] for what will never be
// accepted; any other error is worth asking again. Nothing is durable yet: the
// document goes to the ledger when its host is claimed.
func (s *Supervisor) Host(ctx context.Context, token string, claim HostClaim) (runner.HostIdentity, error) {
	id, err := s.identify(ctx, token, claim)
	if err != nil {
		return runner.HostIdentity{}, err
	}
	s.Logger.Info("host identified", zap.String("instance", id.InstanceID), zap.String("document", string(id.Document)))
	s.wake() // a claim may wait for it
	return id, nil
}

func (s *Supervisor) identify(ctx context.Context, token string, claim HostClaim) (id runner.HostIdentity, err error) {
	if s.Documents == nil {
		return id, fmt.Errorf("%w: no identity documents are taken, hosts.identity.certificatesFile names no certificates", ErrConflict)
	}
	pod, err := s.Cluster.ReviewWitness(ctx, token, HostAudience)
	if err != nil {
		return id, fmt.Errorf("review the witness's token: %w", err)
	}
	found, err := s.Documents.Verify(claim.Document, claim.Signature)
	if err != nil {
		return id, fmt.Errorf("%w: verify the document of node %s: %w", ErrConflict, pod.NodeName, err)
	}
	found.BootID, found.WitnessPod, found.SeenAt = claim.BootID, pod.PodUID, time.Now().UTC().Round(0)
	if err := runner.Validate(found); err != nil {
		return id, fmt.Errorf("%w: the identity of node %s does not have the shape of one: %w", ErrConflict, pod.NodeName, err)
	}
	if err := s.onThatNode(ctx, pod, found); err != nil {
		return id, err
	}
	if err := s.witnesses.take(pod.NodeUID, found, claim); err != nil {
		return id, fmt.Errorf("node %s: %w", pod.NodeName, err)
	}
	return found, nil
}

// onThatNode compares the document with the node on which its witness runs.
func (s *Supervisor) onThatNode(ctx context.Context, pod runner.PodIdentity, id runner.HostIdentity) error {
	nodes, err := s.Cluster.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("list the pool's nodes: %w", err)
	}
	for _, n := range nodes {
		if n.UID != pod.NodeUID || n.Name != pod.NodeName {
			continue
		}
		instance, ok := n.InstanceID()
		switch {
		case !ok:
			return fmt.Errorf("node %s names no instance yet", n.Name)
		case instance != id.InstanceID:
			return fmt.Errorf("%w: node %s is instance %s, the document is of %s", ErrConflict, n.Name, instance, id.InstanceID)
		case n.BootID == "":
			return fmt.Errorf("node %s tells no boot id yet", n.Name)
		case n.BootID != id.BootID:
			return fmt.Errorf("%w: node %s booted as %s, its witness as %s", ErrConflict, n.Name, n.BootID, id.BootID)
		}
		return nil
	}
	return fmt.Errorf("%w: node %s is not of the pool", ErrConflict, pod.NodeName)
}

// maxWitnesses bounds how many hosts' documents are remembered.
const maxWitnesses = 1024

// witnesses are the documents of hosts by the UID of their node. They are in
// memory only: after a restart the witnesses present them again. It is safe
// for concurrent use.
type witnesses struct {
	mu     sync.Mutex
	byNode map[string]*witnessed
}

// witnessed is one host's document. It is not changed once it is in the map.
type witnessed struct {
	id    runner.HostIdentity
	claim HostClaim
}

func newWitnesses() *witnesses { return &witnesses{byNode: map[string]*witnessed{}} }

// take remembers the node's document. The latest wins, if it is of the same
// instance; an instance stays with the node that presented it first.
func (w *witnesses) take(nodeUID string, id runner.HostIdentity, claim HostClaim) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid, known := range w.byNode {
		if (uid == nodeUID) != (known.id.InstanceID == id.InstanceID) {
			return fmt.Errorf("%w: instance %s and node %s were not identified together before", ErrConflict, id.InstanceID, nodeUID)
		}
	}
	if w.byNode[nodeUID] == nil && len(w.byNode) >= maxWitnesses {
		w.forgetOldest()
	}
	w.byNode[nodeUID] = &witnessed{id, claim}
	return nil
}

// forgetOldest makes room. What is forgotten was not seen for longest, and a
// host that is alive presents itself again.
func (w *witnesses) forgetOldest() {
	var oldest string
	for uid, known := range w.byNode {
		if oldest == "" || known.id.SeenAt.Before(w.byNode[oldest].id.SeenAt) {
			oldest = uid
		}
	}
	delete(w.byNode, oldest)
}

func (w *witnesses) of(nodeUID string) *witnessed {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byNode[nodeUID]
}

// identified is the host with the document that its witness presented, if any.
func (s *Supervisor) identified(h runner.Host) runner.Host {
	var id *runner.HostIdentity
	if known := s.witnesses.of(h.NodeUID); known != nil {
		id = new(known.id)
	}
	return h.WithIdentity(id, s.Rules.IdentityRequired)
}

// keepDocument makes the bytes of the host's document durable. It comes before
// the claimed record that names them: a crash in between leaves bytes without
// a record, never a record without its bytes.
func (s *Supervisor) keepDocument(ctx context.Context, h runner.Host) error {
	if h.Identity == nil {
		return nil
	}
	known := s.witnesses.of(h.NodeUID)
	if known == nil || known.id.Document != h.Identity.Document || known.id.Signature != h.Identity.Signature {
		return errors.New("the host's identity document was replaced meanwhile")
	}
	for want, b := range map[runner.Digest][]byte{h.Identity.Document: known.claim.Document, h.Identity.Signature: known.claim.Signature} {
		switch got, err := s.Ledger.PutBlob(ctx, b); {
		case err != nil:
			return fmt.Errorf("store the host's identity document: %w", err)
		case got != want:
			return fmt.Errorf("store the host's identity document: stored as %s, want %s", got, want)
		}
	}
	return nil
}
