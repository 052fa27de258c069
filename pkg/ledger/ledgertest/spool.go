package ledgertest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/runnerward/runnerward/pkg/ledger"
)

// The operations of a spool.
const (
	OpKeep   Op = "keep"
	OpKept   Op = "kept"
	OpTake   Op = "take"
	OpForget Op = "forget"
)

// MemSpool is a [ledger.Spool] in memory. The zero value is not ready; use
// [NewMemSpool].
type MemSpool struct {
	fault Fault

	mu    sync.Mutex
	files map[uint64][]byte
}

// NewMemSpool is an empty spool. A nil fault never fails.
func NewMemSpool(fault Fault) *MemSpool {
	if fault == nil {
		fault = func(Op, string) (bool, error) { return true, nil }
	}
	return &MemSpool{fault: fault, files: map[uint64][]byte{}}
}

// With is a copy of the spool as it stands, whose operations fail otherwise:
// what the next process finds.
func (m *MemSpool) With(fault Fault) *MemSpool {
	other := NewMemSpool(fault)
	other.files = m.Files()
	return other
}

// Files are the envelopes by index. The map is the caller's.
func (m *MemSpool) Files() map[uint64][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.files)
}

// Set puts these bytes in a record's place, whatever is there; nil removes it.
func (m *MemSpool) Set(index uint64, envelope []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[index] = envelope
	if envelope == nil {
		delete(m.files, index)
	}
}

func (m *MemSpool) do(op Op, index uint64, effect func() error) error {
	apply, fault := m.fault(op, strconv.FormatUint(index, 10))
	if fault != nil && !apply {
		return fault
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := effect(); err != nil && fault == nil {
		return fmt.Errorf("%s record %d: %w", op, index, err)
	}
	return fault
}

// Put implements [ledger.Spool].
func (m *MemSpool) Put(index uint64, envelope []byte) error {
	return m.do(OpKeep, index, func() error {
		if old, ok := m.files[index]; ok && !bytes.Equal(old, envelope) {
			return ledger.ErrExists
		}
		m.files[index] = bytes.Clone(envelope)
		return nil
	})
}

// List implements [ledger.Spool].
func (m *MemSpool) List() (indexes []uint64, err error) {
	err = m.do(OpKept, 0, func() error {
		indexes = slices.Sorted(maps.Keys(m.files))
		return nil
	})
	return indexes, err
}

// Read implements [ledger.Spool].
func (m *MemSpool) Read(index uint64) (envelope []byte, err error) {
	err = m.do(OpTake, index, func() error {
		stored, ok := m.files[index]
		if !ok {
			return ledger.ErrNotFound
		}
		envelope = bytes.Clone(stored)
		return nil
	})
	return envelope, err
}

// Remove implements [ledger.Spool].
func (m *MemSpool) Remove(index uint64) error {
	return m.do(OpForget, index, func() error {
		delete(m.files, index)
		return nil
	})
}

// Where implements [ledger.Spool].
func (m *MemSpool) Where() string { return "/var/lib/test/spool" }
