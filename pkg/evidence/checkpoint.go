package evidence

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is the size and root of a log. See https://c2sp.org/tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
}

// Text is the body that is signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// CheckpointSigner signs the text of a checkpoint with Ed25519, as AWS KMS does
// with ED25519_SHA_512 and MessageType RAW: the same text gives the same
// signature, of 64 bytes. It must be safe for concurrent use and may be called
// again after any failure; the context bounds a call to a remote key.
type CheckpointSigner interface {
	// VerifierKey is the public half, in the vkey form of signed notes.
	VerifierKey() string
	Sign(ctx context.Context, text []byte) ([]byte, error)
}

// SignCheckpoint makes the signed note. Ed25519 is deterministic: the same
// checkpoint and key give the same bytes, so that a replay after a crash
// writes what was there before. A signature that does not verify is an error.
func SignCheckpoint(ctx context.Context, c Checkpoint, s CheckpointSigner) ([]byte, error) {
	verifier, err := note.NewVerifier(s.VerifierKey())
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of size %d: %w", c.Size, err)
	}
	text := []byte(c.Text())
	signature, err := s.Sign(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of size %d: %w", c.Size, err)
	}
	if !verifier.Verify(text, signature) {
		return nil, fmt.Errorf("sign checkpoint of size %d: the signature is not by the key", c.Size)
	}
	// https://c2sp.org/signed-note: the key's hash comes before the signature.
	raw := append(binary.BigEndian.AppendUint32(nil, verifier.KeyHash()), signature...)
	return signedNote(c, verifier.Name(), raw), nil
}

func signedNote(c Checkpoint, name string, signature []byte) []byte {
	return fmt.Appendf(nil, "%s\n\u2014 %s %s\n", c.Text(), name, base64.StdEncoding.EncodeToString(signature))
}

// Checkpoint is [Verifier.CheckpointIn] for the first shard of the log.
func (v *Verifier) Checkpoint(b []byte) (Checkpoint, error) { return v.CheckpointIn(Place{}, b) }

// CheckpointIn checks a checkpoint of one shard of this log. The bytes must be exactly what
// [SignCheckpoint] writes: note.Open decodes base64 leniently and passes over
// signatures that it does not know, both of which would let a byte change
// unseen. Its error is a [*Problem].
func (v *Verifier) CheckpointIn(at Place, b []byte) (Checkpoint, error) {
	cp, opened, err := v.openCheckpoint(at, b)
	if err != nil {
		return cp, err
	}
	if len(opened.Sigs) != 1 {
		return cp, problem(7, "checkpoint", "the checkpoint has %d signatures of the log, want 1", len(opened.Sigs))
	}
	sig := opened.Sigs[0]
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil {
		return cp, problem(7, "checkpoint", "the signature is not base64: %v", err)
	}
	if string(signedNote(cp, sig.Name, raw)) != string(b) {
		return cp, problem(7, "checkpoint", "the checkpoint is not in its canonical form")
	}
	return cp, nil
}

// openCheckpoint is lenient about other signatures, such as a witness'.
func (v *Verifier) openCheckpoint(at Place, b []byte) (Checkpoint, *note.Note, error) {
	known := make([]note.Verifier, len(v.logs))
	for i, k := range v.logs {
		var err error
		if known[i], err = k.in(at.Origin(v.root.Origin)); err != nil {
			return Checkpoint{}, nil, problem(7, "checkpoint", "%v", err)
		}
	}
	opened, err := note.Open(b, note.VerifierList(known...))
	if err != nil {
		return Checkpoint{}, nil, problem(7, "checkpoint", "the checkpoint is not signed by the log's key: %v", err)
	}
	cp, err := parseCheckpoint(opened.Text)
	if err != nil {
		return Checkpoint{}, nil, problem(7, "checkpoint", "%v", err)
	}
	if origin := at.Origin(v.root.Origin); cp.Origin != origin {
		return cp, nil, problem(7, "checkpoint-origin", "the checkpoint is of log %.80q, not of %q", cp.Origin, origin)
	}
	key := v.logKey(at.Before + cp.Size)
	named, err := key.in(cp.Origin)
	if err != nil {
		return cp, nil, problem(7, "checkpoint", "%v", err)
	}
	if cp.Size > 0 && !slices.ContainsFunc(opened.Sigs, func(s note.Signature) bool { return s.Hash == named.KeyHash() }) {
		return cp, nil, problem(7, "key-order", "the checkpoint of size %d is not signed by key %s, which is in force there", cp.Size, key.id)
	}
	return cp, opened, nil
}

func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("the checkpoint has %d lines, want 3", len(lines)-1)
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint's size %.40q is not a number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("the checkpoint's root %.80q is not a hash", lines[2])
	}
	cp := Checkpoint{Origin: lines[0], Size: size, Root: tlog.Hash(root)}
	if cp.Text() != text {
		return Checkpoint{}, fmt.Errorf("the checkpoint's text is not in its canonical form")
	}
	return cp, nil
}
