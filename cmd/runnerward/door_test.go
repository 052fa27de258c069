package main

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// TestTheDoorIsHeldAndShut: an address that was free when a daemon began to
// stand by, and taken when it was to lead, ended the takeover.
func TestTheDoorIsHeldAndShut(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	d := shut(listener)
	if taken, err := net.Listen("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another listens where a daemon stands by: %v, %v", taken, err)
	}
	for range 3 {
		caller, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := caller.Read(make([]byte, 1)); err == nil || n != 0 {
			t.Errorf("a caller reads %d, %v from who stands by, want the end", n, err)
		}
		if err := caller.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		near, err := listener.Accept()
		if err == nil {
			_, err = near.Write([]byte("hello"))
			err = errors.Join(err, near.Close())
		}
		answered <- err
	}()
	caller, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if said, err := io.ReadAll(caller); err != nil || string(said) != "hello" {
		t.Errorf("who leads answers %q, %v", said, err)
	}
	if err := errors.Join(<-answered, listener.Close()); err != nil {
		t.Error(err)
	}
}

// TestTheDoorOfAClosedListener is nobody's.
func TestTheDoorOfAClosedListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := shut(listener)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	<-d.turned
	if err := d.open(); err == nil {
		t.Error("a closed listener is opened")
	}
}
