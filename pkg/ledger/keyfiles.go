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

// The files of a keys folder. All are credentials.
const (
	// RecordKeyFile signs records: ECDSA P-256, PKCS #8 in PEM, after a line
	// that says since when the key is valid.
	RecordKeyFile = "records.pem"
	// LogKeyFile signs checkpoints: Ed25519 in the skey form of signed notes.
	LogKeyFile = "checkpoints.skey"
	// A key that was renamed to one of these hands over to a new one. It is in
	// force until the log holds the handover: what is there must never be
	// replaced, see docs/keys.md.
	PreviousRecordKeyFile = "records-previous.pem"
	PreviousLogKeyFile    = "checkpoints-previous.skey"
)

const validFrom = "Valid-From: "

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
	signers := Signers{Protection: evidence.ProtectionFile}
	if signers.Checkpoint, err = parseLog(skey, origin); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, LogKeyFile), err)
	}
	if signers.Record, err = parseRecord(record); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, RecordKeyFile), err)
	}
	if err := signers.readPrevious(folder, origin, PreviousRecordKeyFile, PreviousLogKeyFile); err != nil {
		return nil, err
	}
	keys, err := NewKeys(origin, signers, now)
	if err != nil {
		return nil, fmt.Errorf("keys in %s: %w", folder, err)
	}
	return keys, nil
}

// From lets the keys in this folder hand over, which is the way of a log from
// keys in files to keys elsewhere.
func (s *Signers) From(folder, origin string) error {
	if err := s.readPrevious(folder, origin, RecordKeyFile, LogKeyFile); err != nil {
		return err
	}
	if s.PreviousRecord == nil || s.PreviousCheckpoint == nil {
		return fmt.Errorf("folder %s does not hold %s and %s", folder, RecordKeyFile, LogKeyFile)
	}
	return nil
}

// readPrevious reads the keys that hand over; a file that is missing is none.
func (s *Signers) readPrevious(folder, origin, recordFile, logFile string) error {
	skey, err := readKey(filepath.Join(folder, logFile))
	if err == nil {
		s.PreviousCheckpoint, err = parseLog(skey, origin)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", filepath.Join(folder, logFile), err)
	}
	record, err := readKey(filepath.Join(folder, recordFile))
	if err == nil {
		s.PreviousRecord, err = parseRecord(record)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", filepath.Join(folder, recordFile), err)
	}
	return nil
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

// fileLog is a checkpoint key that was read from a file.
type fileLog struct{ key ed25519.PrivateKey }

// Public implements [CheckpointSigner].
func (k fileLog) Public() ed25519.PublicKey {
	public, _ := k.key.Public().(ed25519.PublicKey) // it is of no other type
	return public
}

// Sign implements [CheckpointSigner].
func (k fileLog) Sign(_ context.Context, text []byte) ([]byte, error) {
	return ed25519.Sign(k.key, text), nil
}

// parseLog reads a signer key, whose last part is the algorithm's byte and the
// Ed25519 seed: https://c2sp.org/signed-note.
func parseLog(text []byte, origin string) (CheckpointSigner, error) {
	skey := strings.TrimSpace(string(text))
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, err
	}
	if signer.Name() != origin {
		return nil, fmt.Errorf("the key is of log %q, configured is %q", signer.Name(), origin)
	}
	parts := strings.SplitN(skey, "+", 5)
	if len(parts) != 5 {
		return nil, errors.New("the key is not a signer key of a signed note")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, errors.New("the key is not an Ed25519 signer key")
	}
	return fileLog{ed25519.NewKeyFromSeed(raw[1:])}, nil
}

// fileRecord is a record key that was read from a file.
type fileRecord struct {
	key  *ecdsa.PrivateKey
	from time.Time
}

// Public implements [RecordSigner].
func (k fileRecord) Public() *ecdsa.PublicKey { return &k.key.PublicKey }

// Sign implements [RecordSigner].
func (k fileRecord) Sign(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.key, digest[:])
}

// ValidFrom implements [dated].
func (k fileRecord) ValidFrom() time.Time { return k.from }

func parseRecord(b []byte) (RecordSigner, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	text, ok := strings.CutPrefix(line, validFrom)
	if !ok {
		return nil, fmt.Errorf("the first line does not begin with %q", validFrom)
	}
	from, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil, fmt.Errorf("the first line has no time: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block of type PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, want ECDSA", parsed)
	}
	return fileRecord{key, from}, nil
}
