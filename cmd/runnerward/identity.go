package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/identitydoc"
)

// readCertificates reads a file of AWS's pinned certificates.
func readCertificates(file string) (*identitydoc.Certificates, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pinned, err := identitydoc.ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return pinned, nil
}

// loadCertificates reads those that the configuration names, nil if none: then
// no host has a witness.
func loadCertificates(cfg *config.Config) (*identitydoc.Certificates, error) {
	file := cfg.Hosts.Identity.CertificatesFile
	if file == "" {
		return nil, nil
	}
	pinned, err := readCertificates(file)
	if err != nil {
		return nil, fmt.Errorf("hosts.identity.certificatesFile: %w", err)
	}
	for _, region := range cfg.Hosts.Regions {
		if !slices.Contains(pinned.Regions(), region) {
			return nil, fmt.Errorf("hosts.identity.certificatesFile: %s has no certificate for %s of hosts.regions: add the one that AWS publishes for it", file, region)
		}
	}
	return pinned, nil
}
