// Package ledger is the append-only log on a store of create-once objects.
//
// A record is committed by the creation of its segment, which only one writer
// can win: that is the fence between two daemons. Its checkpoint follows, and
// only then is the record acknowledged. The view (checkpoint and tiles for
// readers of tlog-tiles) is derived from the log, mutable, and never trusted.
// While the store cannot be written, records that end something wait in a
// [Spool], with the bytes and the place that they will have in the log.
//
//	seg/<first record>        framed envelopes     commit point, create-once
//	checkpoints/<size>        signed note          create-once
//	blobs/sha256/<hex>        attachments          create-once
//	view/checkpoint, view/tile/...                 derived
//
// That is the year in which the log began. Each later one has the same under
// <year>/ and view/<year>/, numbered from zero again, see [evidence.Shard].
package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Errors of a [Store] that a caller branches on.
var (
	// ErrExists: an object of this name was created before.
	ErrExists = errors.New("object exists")
	// ErrNotFound: there is no object of this name.
	ErrNotFound = errors.New("object not found")
)

// Store keeps objects that are written once, and beside them the derived
// objects of the view. It is safe for concurrent use, by several processes
// too. Names are slash-separated paths without empty, "." or ".." parts; those
// under tmp/ belong to the store itself.
//
// An error other than the two above leaves open whether the operation took
// effect, or will yet: every operation may be repeated after any failure.
type Store interface {
	// Create writes an object that does not exist. When it returns nil the
	// object survives the loss of power. Of several writers exactly one wins;
	// the others are told ErrExists, and by then the winner's object is as
	// durable. No reader ever sees part of an object, and a crash leaves it
	// whole or absent.
	Create(ctx context.Context, name string, data []byte) error
	// Read returns the object's bytes, which the caller may keep and change,
	// or ErrNotFound.
	Read(ctx context.Context, name string) ([]byte, error)
	// List returns the sorted names that begin with the prefix. Every object
	// whose creation was acknowledged before the call is among them.
	List(ctx context.Context, prefix string) ([]string, error)
	// Publish writes or replaces a derived object, whole. It is used for names
	// under view/ only.
	Publish(ctx context.Context, name string, data []byte) error
	// Unpublish removes a derived object; one that is gone is a success.
	Unpublish(ctx context.Context, name string) error
}

// CheckName refuses names that a [Store] does not take. Derived objects live
// under view/ and all others elsewhere, so that no mistake can make a record
// replaceable.
func CheckName(name string, derived bool) error {
	switch {
	case !fs.ValidPath(name) || name == ".":
		return fmt.Errorf("object name %.120q is not a clean relative path", name)
	case strings.HasPrefix(name, "tmp/"):
		return fmt.Errorf("object name %.120q is in the store's own folder", name)
	case strings.HasPrefix(name, "view/") != derived:
		return fmt.Errorf("object name %.120q: derived objects, and only they, are under view/", name)
	}
	return nil
}
