package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The files that Install writes.
const (
	BinaryName = "runnerward-agent"
	ScriptName = "job-started.sh"
)

// Install copies the executable and writes the job-started hook into dir, for
// a container that does not have them. Each file appears whole and read-only;
// installing again replaces it.
func Install(executable, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	source, err := os.Open(executable)
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	defer source.Close()
	binary := filepath.Join(dir, BinaryName)
	if err := place(binary, source); err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	if err := place(filepath.Join(dir, ScriptName), strings.NewReader(script(binary))); err != nil {
		return fmt.Errorf("install the hook: %w", err)
	}
	return nil
}

// script is the hook. The runner runs it with bash -e, sends SIGINT to its
// whole process group when the pod is deleted, and takes any exit for the
// hook's: so it ignores signals, which the agent inherits, and ends only when
// the agent said "allowed". It tries again when the agent could not be started
// or was killed before Run heard of it; later, the agent's end is the runner's.
// The agent learns who started it, so that it does not outlive the script.
func script(binary string) string {
	quoted := "'" + strings.ReplaceAll(binary, "'", `'\''`) + "'"
	return "#!/bin/bash\n" +
		"trap '' INT TERM\n" +
		"until " + quoted + " hook $$; do sleep 5 || :; done\n"
}

// place writes a file beside its place and renames it there.
func place(path string, content io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".install-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, content)
	if err := errors.Join(err, f.Chmod(0o555), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
