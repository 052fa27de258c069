// Package port finds ports for processes that are started later, and again:
// what is free at the moment is somebody else's at the next, on a machine on
// which tests run side by side.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are drawn from below Kubernetes' node ports and those from which systems
// choose the near end of an outgoing connection, which begin at 30000, and at
// 32768 on Linux and 49152 elsewhere (RFC 6335, section 6).
const (
	first = 20000
	last  = 29999
)

// Reservation is a TCP port that no other reservation on this machine has, by
// whichever process, until it is closed.
type Reservation struct {
	// Port is the number, Address host:port.
	Port    int
	Address string

	// mark is the port of that number for UDP, which nothing here uses: to have
	// it is to have the reservation, and it ends with the process.
	mark net.PacketConn
}

// Reserve finds a port on which nobody listens at this IP address.
func Reserve(host string) (*Reservation, error) {
	var problems []error
	for range 50 {
		port := first + rand.IntN(last-first+1)
		r := &Reservation{Port: port, Address: net.JoinHostPort(host, strconv.Itoa(port))}
		var err error
		if r.mark, err = net.ListenPacket("udp", r.Address); err != nil {
			problems = append(problems, err)
			continue
		}
		probe, err := net.Listen("tcp", r.Address)
		if err != nil {
			problems = append(problems, err, r.Close())
			continue
		}
		return r, probe.Close()
	}
	return nil, fmt.Errorf("reserve a port: %w", errors.Join(problems...))
}

// Close lets others have it.
func (r *Reservation) Close() error { return r.mark.Close() }
