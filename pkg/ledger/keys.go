package ledger

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/runnerward/runnerward/pkg/evidence"
)

// The files of a keys folder. Both are credentials.
const (
	// RecordKeyFile signs records: ECDSA P-256, PKCS #8 in PEM, after a line
	// that says since when the key is valid.
	RecordKeyFile = "records.pem"
	// LogKeyFile signs checkpoints: Ed25519 in the skey form of signed notes.
	LogKeyFile = "checkpoints.skey"
)

const validFrom = "Valid-From: "

// Keys are the private keys of a log, kept in files. They are safe for
// concurrent use and implement [evidence.Signer] for records.
type Keys struct {
	record *ecdsa.PrivateKey
	keyID  string
	log    note.Signer
	root   evidence.Root
}

// OpenKeys reads the keys of the log with this origin from a folder and
// creates those that are missing, with mode 0600; a new record key is valid
// from now on. It refuses key files that anybody but their owner may read.
func OpenKeys(folder, origin string, now time.Time) (*Keys, error) {
	if !filepath.IsAbs(folder) {
		return nil, fmt.Errorf("keys folder %q is not an absolute path", folder)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("create keys folder: %w", err)
	}
	skey, err := loadKey(folder, LogKeyFile, func() ([]byte, error) {
		skey, _, err := note.GenerateKey(rand.Reader, origin)
		return []byte(skey + "\n"), err
	})
	if err != nil {
		return nil, err
	}
	record, err := loadKey(folder, RecordKeyFile, func() ([]byte, error) { return newRecordKey(now) })
	if err != nil {
		return nil, err
	}
	k := &Keys{}
	if err := k.parseLog(strings.TrimSpace(string(skey)), origin); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, LogKeyFile), err)
	}
	if err := k.parseRecord(record); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, RecordKeyFile), err)
	}
	if _, err := k.root.Verifier(); err != nil {
		return nil, fmt.Errorf("keys in %s: %w", folder, err)
	}
	return k, nil
}

// loadKey reads a key file or makes it, whole and durable before it is used: a
// key that is lost after it has signed makes its log unverifiable.
func loadKey(folder, name string, generate func() ([]byte, error)) ([]byte, error) {
	path := filepath.Join(folder, name)
	b, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	b, err = generate()
	if err != nil {
		return nil, fmt.Errorf("generate %s: %w", name, err)
	}
	if err := writeKey(folder, path, b); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return readKey(path)
}

func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o037 != 0 {
		return nil, fmt.Errorf("key %s has mode %04o and may be read by others: run chmod 600 %s", path, perm, path)
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("key %s cannot be read by uid %d: run chown %d %s: %w", path, os.Geteuid(), os.Geteuid(), path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return b, nil
}

func writeKey(folder, path string, b []byte) error {
	f, err := os.CreateTemp(folder, ".new-*") // created with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		// Of two daemons that start at once both go on with the same key.
		if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err := errors.Join(err, os.Remove(f.Name())); err != nil {
		return err
	}
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func newRecordKey(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\n", validFrom, now.UTC().Format(time.RFC3339Nano))
	err = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return b.Bytes(), err
}

func (k *Keys) parseLog(skey, origin string) error {
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	if signer.Name() != origin {
		return fmt.Errorf("the key is of log %q, configured is %q", signer.Name(), origin)
	}
	vkey, err := logVerifierKey(skey, origin)
	if err != nil {
		return err
	}
	k.log = signer
	k.root = evidence.Root{Schema: evidence.RootSchema, Origin: origin, LogKey: vkey, KeyProtection: "file"}
	return nil
}

func (k *Keys) parseRecord(b []byte) error {
	line, _, _ := strings.Cut(string(b), "\n")
	text, ok := strings.CutPrefix(line, validFrom)
	if !ok {
		return fmt.Errorf("the first line does not begin with %q", validFrom)
	}
	from, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("the first line has no time: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return errors.New("no PEM block of type PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("parse private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("the key is a %T, want ECDSA", parsed)
	}
	public, err := evidence.NewRecordKey(&key.PublicKey, from)
	if err != nil {
		return err
	}
	k.record, k.keyID = key, public.KeyID
	k.root.RecordKeys = []evidence.RecordKey{public}
	return nil
}

// Root is what an auditor needs to verify the log: the content of root.json.
func (k *Keys) Root() evidence.Root { return k.root }

// KeyID implements [evidence.Signer].
func (k *Keys) KeyID() string { return k.keyID }

// Sign implements [evidence.Signer].
func (k *Keys) Sign(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.record, digest[:])
}

// logVerifierKey derives the vkey from a signer key, whose last part is the
// algorithm's byte and the Ed25519 seed: https://c2sp.org/signed-note.
func logVerifierKey(skey, origin string) (string, error) {
	parts := strings.SplitN(skey, "+", 5)
	if len(parts) != 5 {
		return "", errors.New("the key is not a signer key of a signed note")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return "", errors.New("the key is not an Ed25519 signer key")
	}
	public, ok := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return "", errors.New("the key has no Ed25519 public key")
	}
	return note.NewEd25519VerifierKey(origin, public)
}
