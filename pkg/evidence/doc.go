// Package evidence is the format of the log and its independent check.
//
// Every event becomes an in-toto Statement v1 that is signed as a DSSE
// envelope; the envelope's bytes are a leaf of an RFC 6962 Merkle tree whose
// root is signed as a C2SP checkpoint. [Verify] reads a copy of a ledger and
// names everything that is wrong with it; [Explain] answers an auditor's
// questions from a log that was verified.
//
// The package is pure: it reads no clock, disk, network or logger and starts
// no goroutine. A ledger arrives as an [io/fs.FS], keys and times as arguments.
//
// Formats:
//   - Statement v1: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
//   - DSSE: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
//   - Checkpoints: https://c2sp.org/tlog-checkpoint, signed notes: https://c2sp.org/signed-note
//   - Tiles: https://c2sp.org/tlog-tiles
package evidence
