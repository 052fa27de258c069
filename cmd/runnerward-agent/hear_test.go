package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// hear stands for run where a hook is started without it, and gives what the
// first hook said once that has ended.
func (p *pod) hear(t *testing.T) <-chan string {
	t.Helper()
	l, err := net.Listen("unix", p.path("hook.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	said := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer conn.Close()
		b, err := io.ReadAll(conn)
		if err != nil {
			b = []byte(err.Error())
		}
		said <- string(b)
	}()
	return said
}

// A script that is killed before its agent can follow it leaves an orphan; the
// orphan is what tells.
func TestAnOrphanedHookTellsAndBlocks(t *testing.T) {
	for what, parent := range map[string]string{"another parent": "1", "no process": "x"} {
		t.Run(what, func(t *testing.T) {
			p := newPod(t, nil)
			said := p.hear(t)
			cmd, lines := p.start(t, "hook", parent)
			until(t, lines, "the parent is process "+strconv.Itoa(os.Getpid()))
			if got := <-said; got != "" {
				t.Errorf("run heard %q, want that the hook ended", got)
			}
			for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			until(t, lines, "")
			exit, ok := errors.AsType[*exec.ExitError](cmd.Wait())
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("hook ended with %v, want it to block until it is killed", exit)
			}
		})
	}
}
