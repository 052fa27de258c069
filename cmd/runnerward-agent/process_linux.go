package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Of prctl(2), which package syscall does not name.
const (
	setParentDeathSignal = 1  // PR_SET_PDEATHSIG
	setChildSubreaper    = 36 // PR_SET_CHILD_SUBREAPER
)

func prctl(option, value uintptr) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, option, value, 0); errno != 0 {
		return errno
	}
	return nil
}

// adopt makes every process that is orphaned below this one its child, as if
// it were the first of a container, so that none gets out of reach.
func adopt() error {
	if err := prctl(setChildSubreaper, 1); err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	return nil
}

// dieWith has the kernel kill this process when its parent ends. It fails when
// the parent ended before. The kernel keeps the wish per thread; threads of a
// Go program last as long as it does.
func dieWith(parent string) error {
	if err := prctl(setParentDeathSignal, uintptr(syscall.SIGKILL)); err != nil {
		return fmt.Errorf("follow the hook's script: %w", err)
	}
	if got := strconv.Itoa(os.Getppid()); got != parent {
		return fmt.Errorf("follow the hook's script: the parent is process %s, not %s", got, parent)
	}
	return nil
}

// killRest kills every other process of the container. Where this process is
// not the first of one, it kills all that descend from it, and goes on until
// none is left: a process may be starting another. That ends after two seconds
// with what cannot be killed now.
func killRest() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL) // it fails when there is nobody
		return
	}
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		alive := descendants(os.Getpid())
		if len(alive) == 0 {
			return
		}
		for _, pid := range alive {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// descendants lists what runs below a process, by proc_pid_stat(5). What has
// ended and is not reaped yet does not run.
func descendants(of int) (running []int) {
	children := map[int][]int{}
	ended := map[int]bool{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it is gone
		}
		// The name, in parentheses, may hold anything; state and parent follow.
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		pid, pidErr := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if len(fields) < 2 || pidErr != nil {
			continue
		}
		if parent, err := strconv.Atoi(string(fields[1])); err == nil {
			children[parent] = append(children[parent], pid)
			ended[pid] = slices.Contains([]string{"Z", "X"}, string(fields[0]))
		}
	}
	for below := children[of]; len(below) > 0; below = below[1:] {
		if !ended[below[0]] {
			running = append(running, below[0])
		}
		below = append(below, children[below[0]]...)
	}
	return running
}
