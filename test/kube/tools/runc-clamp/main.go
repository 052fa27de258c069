// Command runc-clamp is runc for machines that cannot grant all of what a
// container asks for: the kernels of small virtual machines run without
// CAP_SYS_RESOURCE and under a hard limit of open files, and runc fails there
// with "unable to apply caps: operation not permitted".
//
// It takes runc's command line, takes out of the container's specification what
// its own process does not have, and becomes runc: the file RUNC names, or
// runc.real beside it, or runc of the PATH.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "runc-clamp:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if file, inSpec := edited(args[1:]); file != "" {
		own, err := ownLimits()
		if err != nil {
			return err
		}
		if err := clampFile(file, inSpec, own); err != nil {
			return err
		}
	}
	runc, err := realRunc()
	if err != nil {
		return err
	}
	return fmt.Errorf("become %s: %w", runc, syscall.Exec(runc, append([]string{runc}, args[1:]...), os.Environ()))
}

// edited is the file of this command line that says how a process is to run,
// empty if there is none: the specification of a bundle, whose process is a
// part of it, or the process itself.
// https://github.com/opencontainers/runc/blob/main/man/runc-create.8.md
func edited(args []string) (file string, inSpec bool) {
	command, bundle, process := "", ".", ""
	for i, arg := range args {
		name, value, joined := strings.Cut(arg, "=")
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "--bundle", "-b":
			bundle = value
		case "--process", "-p":
			process = value
		case "create", "run", "exec":
			if command == "" {
				command = name
			}
		}
	}
	switch {
	case command == "create" || command == "run":
		return filepath.Join(bundle, "config.json"), true
	case command == "exec":
		return process, false // without the flag the process is in the arguments
	}
	return "", false
}

func realRunc() (string, error) {
	if runc := os.Getenv("RUNC"); runc != "" {
		return runc, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "runc.real")
	if _, err := os.Stat(beside); !errors.Is(err, os.ErrNotExist) {
		return beside, err
	}
	return exec.LookPath("runc")
}
