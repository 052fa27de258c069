package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ending is a signal, and how long the process has after it.
type ending struct {
	signal syscall.Signal
	wait   time.Duration
}

// endings are how a step is cancelled: ProcessInvoker.cs.
func endings() []ending {
	return []ending{{syscall.SIGINT, 7500 * time.Millisecond}, {syscall.SIGTERM, 2500 * time.Millisecond}, {syscall.SIGKILL, 0}}
}

// script is one that bash runs, as JobExtensionRunner.cs and ScriptHandler.cs
// have it run, in the runner's own process group.
type script struct {
	file, dir string
	env       []string
	out       *os.File
	endings   []ending
}

// run waits for the script's end and ends it once stop closes.
func (s script) run(stop <-chan struct{}) error {
	cmd := exec.Command("/bin/bash", "-e", s.file)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, s.out, s.out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var due <-chan time.Time
	for left := s.endings; ; {
		select {
		case err := <-ended:
			return err
		case <-stop:
			stop = nil
		case <-due:
		}
		if len(left) == 0 {
			return <-ended
		}
		_ = cmd.Process.Signal(left[0].signal) // it may have ended
		due, left = time.After(left[0].wait), left[1:]
	}
}

// newID is a GUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand documents it
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
