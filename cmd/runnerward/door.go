package main

import (
	"errors"
	"net"
	"os"
	"time"
)

// door is the address of a daemon that stands by. It is held from the start: one
// that somebody else had taken by the time this daemon is to lead would end the
// takeover. Whoever calls is turned away at once.
type door struct {
	listener net.Listener
	turned   chan struct{} // closed when nobody is turned away any more
}

// turnPause is how long a process that can open no more files waits before it
// looks for callers again.
const turnPause = 100 * time.Millisecond

// shut turns callers away until [door.open].
func shut(listener net.Listener) *door {
	d := &door{listener: listener, turned: make(chan struct{})}
	go func() {
		defer close(d.turned)
		for {
			caller, err := listener.Accept()
			switch {
			case err == nil:
				_ = caller.Close() // it sees the connection end
			case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
				return
			default:
				time.Sleep(turnPause)
			}
		}
	}()
	return d
}

// open leaves the listener to who accepts next. It is called once.
func (d *door) open() error {
	deadline, ok := d.listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return errors.New("a listener whose wait cannot be ended")
	}
	if err := deadline.SetDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	<-d.turned
	return deadline.SetDeadline(time.Time{})
}
