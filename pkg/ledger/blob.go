package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
)

// PutBlob implements [supervisor.Ledger]. It stores into the year of the last
// record; when the record that rests on it begins another, Append brings it
// there.
func (l *Log) PutBlob(ctx context.Context, b []byte) (runner.Digest, error) {
	if err := l.fence(); err != nil {
		return "", err
	}
	l.mu.Lock()
	y := l.year
	l.mu.Unlock()
	digest := runner.DigestOf(b)
	if err := l.storeBlob(ctx, l.in(y), evidence.BlobName(digest), b); err != nil {
		return "", fmt.Errorf("store attachment: %w", err)
	}
	l.noteBlob(y, digest)
	return digest, nil
}

func (l *Log) storeBlob(ctx context.Context, in inShard, name string, b []byte) error {
	err := in.create(ctx, name, b)
	if !errors.Is(err, ErrExists) {
		return err
	}
	stored, err := in.read(ctx, name)
	if err == nil && !bytes.Equal(stored, b) {
		err = fmt.Errorf("%s holds other bytes than its name says", in.shard.Name(name))
	}
	return err
}

// bring makes sure that attachments are in the shard of the record that rests
// on them: those in effect are in the year before, and so is what was stored
// just before the year ended. One that is nowhere, or damaged, is for a verifier
// to report: to refuse the record would lose that too.
func (l *Log) bring(ctx context.Context, y *year, attachments []runner.Digest) error {
	if y.Shard == 0 {
		return nil
	}
	for _, d := range attachments {
		if l.has(y, d) {
			continue
		}
		if err := l.bringOne(ctx, y, d); err != nil {
			return fmt.Errorf("bring attachment %s into year %d: %w", d, y.Shard, err)
		}
		l.noteBlob(y, d)
	}
	return nil
}

func (l *Log) bringOne(ctx context.Context, y *year, d runner.Digest) error {
	name := evidence.BlobName(d)
	_, err := l.in(y).read(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	b, err := inShard{l.store, y.prior}.read(ctx, name)
	if errors.Is(err, ErrNotFound) || err == nil && runner.DigestOf(b) != d {
		return nil // what is damaged is not written once more
	}
	if err != nil {
		return err
	}
	return l.storeBlob(ctx, l.in(y), name, b)
}

func (l *Log) has(y *year, d runner.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return y.blobs[d]
}

func (l *Log) noteBlob(y *year, d runner.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	y.blobs[d] = true
}
