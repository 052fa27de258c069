//go:build !linux

package main

import "errors"

// errNotLinux keeps the agent from being a gate where it cannot hold one:
// runner pods are Linux containers.
var errNotLinux = errors.New("the agent guards a runner on Linux only")

func adopt() error { return errNotLinux }

func dieWith(string) error { return errNotLinux }

func killRest() {}
