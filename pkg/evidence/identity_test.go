package evidence_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

var (
	document    = []byte("what AWS says of the host")
	signature   = []byte("what AWS signed it with")
	certificate = []byte("of AWS")
)

// identified is a ledger with a job on a host whose document is kept, and one
// on a host without a witness.
func identified(t *testing.T, story []runner.Kind) (*forge, runnertest.Cast) {
	t.Helper()
	f := newForge(t)
	s := f.script()
	for _, b := range [][]byte{document, signature} {
		if _, err := f.putBlob(b); err != nil {
			t.Fatal(err)
		}
	}
	c := runnertest.NewCast(0).Identified(document, signature, certificate)
	for _, cast := range []runnertest.Cast{c, runnertest.NewCast(1)} {
		if err := s.Tell(cast, story); err != nil {
			t.Fatal(err)
		}
	}
	return f.publish(), c
}

// aws stands for a verifier with pinned certificates.
func aws(c runnertest.Cast, change func(*runner.HostIdentity)) evidence.VerifyDocument {
	return func(d, s []byte) (runner.HostIdentity, error) {
		if !bytes.Equal(d, document) || !bytes.Equal(s, signature) {
			return runner.HostIdentity{}, errors.New("nobody signed this")
		}
		id := *c.Host.Identity
		id.BootID, id.WitnessPod, id.SeenAt = "", "", time.Time{} // nobody signs these
		change(&id)
		return id, nil
	}
}

func verifyDocuments(t *testing.T, files fstest.MapFS, root evidence.Root, how evidence.VerifyDocument) *evidence.Report {
	t.Helper()
	rep, err := evidence.VerifyOptions{Documents: how}.Verify(files, root)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func wantNote(t *testing.T, rep *evidence.Report, want string) {
	t.Helper()
	for _, n := range rep.Notes {
		if strings.Contains(n.Detail, want) {
			return
		}
	}
	t.Errorf("notes = %v, want one of %q", rep.Notes, want)
}

func TestDocumentsAreVerifiedAgain(t *testing.T) {
	f, c := identified(t, runnertest.CompletedStory())
	rep := verify(t, f.files, f.root)
	if !rep.OK() {
		t.Errorf("without certificates: findings = %v", rep.Findings)
	}
	wantNote(t, rep, "1 identity document of hosts not verified again")
	rep = verifyDocuments(t, f.files, f.root, aws(c, func(*runner.HostIdentity) {}))
	if !rep.OK() {
		t.Errorf("with certificates: findings = %v", rep.Findings)
	}
	wantNote(t, rep, "1 identity document of hosts verified again")
	if rep := verify(t, told(t, runnertest.CompletedStory()).files, f.root); len(rep.Notes) != 0 {
		t.Errorf("without a witness: notes = %v, want none", rep.Notes)
	}
}

func TestADocumentThatDoesNotShowWhatIsRecordedIsFound(t *testing.T) {
	f, c := identified(t, runnertest.CompletedStory())
	const claimed = 3 // offered, reviewed, authorized come before
	wantThere := func(t *testing.T, rep *evidence.Report, rule string) {
		t.Helper()
		got := wantFinding(t, rep, 10, rule)
		if got.Record != claimed || got.File != evidence.BlobName(c.Host.Identity.Document) {
			t.Errorf("finding = %v, want it at record %d and its document", got, claimed)
		}
	}
	t.Run("not signed", func(t *testing.T) {
		rep := verifyDocuments(t, f.files, f.root, func(_, _ []byte) (runner.HostIdentity, error) {
			return runner.HostIdentity{}, errors.New("no certificate for us-east-1")
		})
		wantThere(t, rep, "identity-document")
	})
	for field, change := range map[string]func(*runner.HostIdentity){
		"certificate":  func(id *runner.HostIdentity) { id.Certificate = runner.DigestOf([]byte("x")) },
		"document":     func(id *runner.HostIdentity) { id.Document = runner.DigestOf([]byte("x")) },
		"signature":    func(id *runner.HostIdentity) { id.Signature = runner.DigestOf([]byte("x")) },
		"instanceId":   func(id *runner.HostIdentity) { id.InstanceID = "i-0fffffffffffffff0" },
		"accountId":    func(id *runner.HostIdentity) { id.AccountID = "999999999999" },
		"region":       func(id *runner.HostIdentity) { id.Region = "us-west-2" },
		"imageId":      func(id *runner.HostIdentity) { id.ImageID = "ami-2" },
		"instanceType": func(id *runner.HostIdentity) { id.InstanceType = "t2.nano" },
		"privateIp":    func(id *runner.HostIdentity) { id.PrivateIP = "10.9.9.9" },
		"pendingTime":  func(id *runner.HostIdentity) { id.PendingTime = id.PendingTime.Add(time.Second) },
	} {
		t.Run(field, func(t *testing.T) {
			rep := verifyDocuments(t, f.files, f.root, aws(c, change))
			wantThere(t, rep, "identity-content")
			if len(rep.Findings) != 1 || !strings.Contains(rep.Findings[0].Detail, field+" is ") {
				t.Errorf("findings = %v, want one that names %s", rep.Findings, field)
			}
		})
	}
}

func TestTheBytesOfADocumentHaveToBeThere(t *testing.T) {
	f, c := identified(t, runnertest.CompletedStory())
	for _, d := range []runner.Digest{c.Host.Identity.Document, c.Host.Identity.Signature} {
		files := f.copy()
		delete(files, evidence.BlobName(d))
		for _, how := range []evidence.VerifyDocument{nil, aws(c, func(*runner.HostIdentity) {})} {
			got := wantFinding(t, verifyDocuments(t, files, f.root, how), 10, "blob-missing")
			if got.File != evidence.BlobName(d) {
				t.Errorf("finding = %v, want %s", got, evidence.BlobName(d))
			}
		}
		files = f.copy()
		files[evidence.BlobName(d)].Data[0] ^= 1
		rep := verifyDocuments(t, files, f.root, aws(c, func(*runner.HostIdentity) {}))
		wantFinding(t, rep, 10, "blob-digest")
		wantFinding(t, rep, 10, "identity-document")
	}
}

func TestALevelThatNothingShowsIsFound(t *testing.T) {
	f := newForge(t)
	s, c := f.script(), runnertest.NewCast(0)
	if err := s.Tell(c, runnertest.Upto(runnertest.CompletedStory(), runner.KindAuthorized)); err != nil {
		t.Fatal(err)
	}
	c.Host.Assurance = runner.L2
	e, err := s.Next(c, runner.KindClaimed)
	if err != nil {
		t.Fatal(err)
	}
	if _, refused, err := s.Say(e); err != nil || refused == nil {
		t.Fatalf("Say = %v, %v, want it appended and refused by the fold", refused, err)
	}
	got := wantFinding(t, verify(t, f.publish().files, f.root), 10, "assurance")
	if !strings.Contains(got.Detail, "claims L2 without an identity document") {
		t.Errorf("finding = %v", got)
	}
}

func TestExplainTellsWhatAWSSigned(t *testing.T) {
	f, c := identified(t, runnertest.CompletedStory())
	rep := verify(t, f.files, f.root)
	_, text := explain(t, rep, c.JobURL())
	id := c.Host.Identity
	wantText(t, text, "assurance L2", "AWS signed "+c.Host.InstanceID+" in account 111122223333, us-east-1",
		"AWS signed its image ami-0123456789abcdef0 on m7i.large", "AWS signed its launch 2026-03-02 08:00:00.000 UTC 10.20.0.0",
		"identity document "+string(id.Document), "its signature "+string(id.Signature), "its certificate "+string(id.Certificate),
		"presented by witness pod "+id.WitnessPod+" on boot "+id.BootID, "identity.bootId")
	_, text = explain(t, rep, runnertest.NewCast(1).JobURL())
	if !strings.Contains(text, "assurance L1") || strings.Contains(text, "AWS signed") {
		t.Errorf("the host without a witness is explained as\n%s", text)
	}
}
