// Package configs holds the configuration that ships inside the binary: the
// default admission policy. An operator may name another folder instead.
package configs

import (
	"embed"
	"io/fs"
)

//go:embed policy
var files embed.FS

// Policy is the default policy bundle, rooted at its own folder. Its tests are
// part of it, so that a copy of the folder can be tested with stock opa.
func Policy() (fs.FS, error) { return fs.Sub(files, "policy") }
