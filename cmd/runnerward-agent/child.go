package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// supervise starts the child and does for it what the first process of a
// container owes: signals are passed on, and every process that was orphaned
// is reaped, and nothing outlives it. It returns the child's exit code, 128 and
// the signal's number when a signal ended it. When the context ends it kills
// all at once. The caller must have no other children.
func supervise(ctx context.Context, child *exec.Cmd, signals <-chan os.Signal) (int, error) {
	if err := child.Start(); err != nil {
		return 0, err
	}
	defer killRest()
	ended := make(chan result, 1)
	go func() { ended <- reapUntil(child.Process.Pid) }()
	for {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case s := <-signals:
			// The handle is a pidfd where the kernel has them, so a process
			// that took over the number of a reaped child is never hit.
			if err := child.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				fmt.Fprintln(child.Stderr, "runnerward-agent: pass on the signal:", err)
			}
		case r := <-ended:
			return r.code, errors.Join(r.err, child.Process.Release())
		}
	}
}

type result struct {
	code int
	err  error
}

// reapUntil reaps whatever ends until this process did. [exec.Cmd.Wait] would
// wait for one process only and must not be called beside it.
func reapUntil(pid int) result {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return result{err: fmt.Errorf("wait for the runner: %w", err)}
		case got != pid:
		case status.Signaled():
			return result{code: 128 + int(status.Signal())}
		case status.Exited():
			return result{code: status.ExitStatus()}
		}
	}
}
