package port_test

import (
	"errors"
	"net"
	"testing"

	"github.com/runnerward/runnerward/pkg/sim/port"
)

// TestReservationsDiffer while they last, and can be listened at by their owners.
func TestReservationsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 400 { // of 10,000: with luck alone, all would differ in one of 3,000 runs
		r, err := port.Reserve("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if seen[r.Port] {
			t.Errorf("%d was reserved twice", r.Port)
		}
		if r.Port < 20000 || r.Port > 29999 {
			t.Errorf("%d may be the near end of an outgoing connection", r.Port)
		}
		seen[r.Port] = true
		l, err := net.Listen("tcp", r.Address)
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			t.Errorf("the owner cannot listen: %v", err)
		}
	}
}

// TestNoAddress is an error that says so.
func TestNoAddress(t *testing.T) {
	if r, err := port.Reserve("192.0.2.1"); err == nil { // TEST-NET-1, RFC 5737
		t.Errorf("Reserve = %+v, want an error", r)
	} else if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("Reserve = %v, want why not", err)
	}
}
