package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/runnerward/runnerward/pkg/evidence"
)

// checkpoint signs the year's tree of this size. A stored checkpoint with other
// bytes is as good if it is valid for the same size and root.
func (l *Log) checkpoint(ctx context.Context, y *year, size uint64) error {
	signed, err := l.signCheckpoint(ctx, y, size)
	if err != nil {
		return err
	}
	name := evidence.CheckpointName(size)
	err = l.in(y).create(ctx, name, signed)
	if errors.Is(err, ErrExists) {
		signed, err = l.acceptCheckpoint(ctx, y, name, signed)
	}
	if err != nil {
		return err
	}
	l.acknowledge(y, size, signed)
	return nil
}

func (l *Log) acknowledge(y *year, size uint64, signed []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	y.size, y.head = size, signed
	l.size, l.head = y.Before+size, signed
}

func (l *Log) acceptCheckpoint(ctx context.Context, y *year, name string, ours []byte) ([]byte, error) {
	stored, err := l.in(y).read(ctx, name)
	if err != nil || bytes.Equal(stored, ours) {
		return stored, err
	}
	want, err := l.verifier.CheckpointIn(y.Place, ours)
	if err != nil {
		return nil, err
	}
	if got, err := l.verifier.CheckpointIn(y.Place, stored); err != nil || got != want {
		return nil, l.fenceOff(y.Name(name))
	}
	return stored, nil
}

func (l *Log) signCheckpoint(ctx context.Context, y *year, size uint64) ([]byte, error) {
	root, err := y.tree.Root(size)
	if err != nil {
		return nil, err
	}
	inLog := y.Before + size
	if size == 0 {
		inLog = 0 // an empty tree, whatever is before it
	}
	signer, err := l.keys.checkpointSigner(l.verifier.CheckpointKey(inLog))
	if err != nil {
		return nil, err
	}
	origin := y.Origin(l.keys.origin)
	named, err := signer.as(origin)
	if err != nil {
		return nil, err
	}
	signed, err := evidence.SignCheckpoint(ctx, evidence.Checkpoint{Origin: origin, Size: size, Root: root}, named)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeys, err)
	}
	return signed, nil
}

// errKeys says that the keys cannot sign at this time. It is not the store that
// is away then, and what cannot be signed cannot be kept in a spool either.
var errKeys = errors.New("the log's signing keys are away")
