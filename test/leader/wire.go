package leader

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Wire carries TCP connections on loopback to one of several addresses, each to
// the next one in turn, as kube-proxy does without looking whether anybody
// listens there. It can be cut and mended. Its methods are safe for concurrent use.
type Wire struct {
	listener net.Listener
	turn     atomic.Uint64
	carried  sync.WaitGroup

	mu    sync.Mutex
	to    []string
	down  bool
	conns map[net.Conn]bool // both ends of what is carried
}

// NewWire listens at once; connections are refused while there is no address.
func NewWire(to ...string) (*Wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("lay a wire: %w", err)
	}
	w := &Wire{listener: l, to: to, conns: map[net.Conn]bool{}}
	w.carried.Go(w.accept)
	return w, nil
}

// Address is where the wire listens.
func (w *Wire) Address() string { return w.listener.Addr().String() }

// To adds an address.
func (w *Wire) To(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = append(w.to, address)
}

// Cut breaks every connection and refuses new ones until Mend.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for c := range w.conns {
		_ = c.Close()
	}
}

// Mend lets connections through again.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// Close ends the wire and all that it carries.
func (w *Wire) Close() error {
	err := w.listener.Close()
	w.Cut()
	w.carried.Wait()
	return err
}

func (w *Wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		w.carried.Go(func() {
			_ = w.carry(near) // whoever calls sees the connection end
		})
	}
}

func (w *Wire) carry(near net.Conn) error {
	defer near.Close()
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	if len(to) == 0 {
		return errors.New("the wire leads nowhere")
	}
	far, err := net.Dial("tcp", to[w.turn.Add(1)%uint64(len(to))])
	if err != nil {
		return err
	}
	defer far.Close()
	if !w.hold(near, far) {
		return errors.New("the wire is cut")
	}
	defer w.drop(near, far)
	ended := make(chan error, 2)
	go func() { ended <- pass(far, near) }()
	go func() { ended <- pass(near, far) }()
	return errors.Join(<-ended, <-ended)
}

// pass carries one direction, and its end.
func pass(to, from net.Conn) error {
	_, err := io.Copy(to, from)
	return errors.Join(err, to.(*net.TCPConn).CloseWrite())
}

func (w *Wire) hold(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return !w.down
}

func (w *Wire) drop(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.conns, c)
	}
}
