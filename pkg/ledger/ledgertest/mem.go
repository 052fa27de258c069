// Package ledgertest holds the conformance suite of [ledger.Store] and a store
// in memory that fails where it is told to.
package ledgertest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/fstest"

	"github.com/runnerward/runnerward/pkg/ledger"
)

// Op names an operation of a store.
type Op string

// The operations of a store.
const (
	OpCreate    Op = "create"
	OpRead      Op = "read"
	OpList      Op = "list"
	OpPublish   Op = "publish"
	OpUnpublish Op = "unpublish"
)

// Fault decides how an operation fails: not at all with a nil error, else with
// this error, after it was applied or without. A store that applied what it
// reported failed is the harder case: a lost answer. It is called with the
// store unlocked and must be safe for concurrent use.
type Fault func(op Op, name string) (apply bool, err error)

// Mem is a [ledger.Store] in memory. The zero value is not ready; use [NewMem].
type Mem struct {
	fault Fault

	mu      sync.Mutex
	objects map[string][]byte
}

// NewMem is an empty store. A nil fault never fails.
func NewMem(fault Fault) *Mem {
	if fault == nil {
		fault = func(Op, string) (bool, error) { return true, nil }
	}
	return &Mem{fault: fault, objects: map[string][]byte{}}
}

// With is a copy of the store as it stands, whose operations fail otherwise:
// what the next process finds.
func (m *Mem) With(fault Fault) *Mem {
	other := NewMem(fault)
	other.objects = m.snapshot()
	return other
}

func (m *Mem) snapshot() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.objects)
}

// FS is a copy of the objects as files.
func (m *Mem) FS() fs.FS {
	files := fstest.MapFS{}
	for name, data := range m.snapshot() {
		files[name] = &fstest.MapFile{Data: bytes.Clone(data), Mode: 0o640}
	}
	return files
}

// do runs an operation through the fault. The effect reports the operation's
// own refusal, such as ErrExists.
func (m *Mem) do(ctx context.Context, op Op, name string, effect func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	apply, fault := m.fault(op, name)
	if fault != nil && !apply {
		return fault
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := effect(); err != nil && fault == nil {
		return fmt.Errorf("%s %s: %w", op, name, err)
	}
	return fault
}

// Create implements [ledger.Store].
func (m *Mem) Create(ctx context.Context, name string, data []byte) error {
	if err := ledger.CheckName(name, false); err != nil {
		return err
	}
	return m.do(ctx, OpCreate, name, func() error {
		if _, ok := m.objects[name]; ok {
			return ledger.ErrExists
		}
		m.objects[name] = bytes.Clone(data)
		return nil
	})
}

// Read implements [ledger.Store].
func (m *Mem) Read(ctx context.Context, name string) (data []byte, err error) {
	err = m.do(ctx, OpRead, name, func() error {
		stored, ok := m.objects[name]
		if !ok {
			return ledger.ErrNotFound
		}
		data = append([]byte{}, stored...)
		return nil
	})
	return data, err
}

// List implements [ledger.Store].
func (m *Mem) List(ctx context.Context, prefix string) (names []string, err error) {
	err = m.do(ctx, OpList, prefix, func() error {
		names = []string{}
		for name := range m.objects {
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

// Publish implements [ledger.Store].
func (m *Mem) Publish(ctx context.Context, name string, data []byte) error {
	if err := ledger.CheckName(name, true); err != nil {
		return err
	}
	return m.do(ctx, OpPublish, name, func() error {
		m.objects[name] = bytes.Clone(data)
		return nil
	})
}

// Unpublish implements [ledger.Store].
func (m *Mem) Unpublish(ctx context.Context, name string) error {
	if err := ledger.CheckName(name, true); err != nil {
		return err
	}
	return m.do(ctx, OpUnpublish, name, func() error {
		delete(m.objects, name)
		return nil
	})
}
