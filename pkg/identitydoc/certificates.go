package identitydoc

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// minBits is the smallest RSA modulus that may vouch for a document. FIPS
// 186-5 and Go's FIPS module refuse smaller ones.
const minBits = 2048

// Certificates are the pinned certificates by region. They are not changed
// after [ParseCertificates] and are safe for concurrent use.
type Certificates struct {
	byRegion map[string][]*x509.Certificate
}

// LineError is a mistake in a file of certificates.
type LineError struct {
	Line int // counted from 1
	What string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.What) }

const (
	pemBegin = "-----BEGIN CERTIFICATE-----"
	pemEnd   = "-----END CERTIFICATE-----"
)

var regionName = regexp.MustCompile(`\A[a-z]{2,8}(-[a-z]+)+-[0-9]{1,2}\z`)

// ParseCertificates reads a file of pinned certificates: for each certificate
// one line "# REGION" and after it one PEM block of the type CERTIFICATE;
// empty lines may stand between. A region may be named more than once, as
// while AWS changes its certificate; then each of them may sign. Anything else
// in the file is refused with a [*LineError]: a certificate that is not taken
// for its region would be one that nobody misses.
func ParseCertificates(file []byte) (*Certificates, error) {
	p := parser{out: &Certificates{byRegion: map[string][]*x509.Certificate{}}}
	for line := range strings.Lines(string(file)) {
		p.line++
		if err := p.next(strings.TrimRight(line, "\r\n")); err != nil {
			return nil, err
		}
	}
	switch {
	case p.block != nil:
		return nil, p.wrong("the file ends within the certificate of %s", p.region)
	case p.region != "":
		return nil, p.wrong("the file ends after the region %s without its certificate", p.region)
	case len(p.out.byRegion) == 0:
		return nil, errors.New("no certificate in the file")
	}
	return p.out, nil
}

type parser struct {
	out    *Certificates
	line   int
	region string   // that the next certificate is of, empty if none was named
	block  []string // lines of a PEM block that began, nil outside of one
}

func (p *parser) wrong(format string, args ...any) error {
	return &LineError{p.line, fmt.Sprintf(format, args...)}
}

func (p *parser) next(line string) error {
	switch {
	case p.block != nil:
		p.block = append(p.block, line)
		if line == pemEnd {
			return p.finish()
		}
		return nil
	case line == "":
		return nil
	case strings.HasPrefix(line, "# "):
		return p.name(strings.TrimPrefix(line, "# "))
	case line == pemBegin && p.region == "":
		return p.wrong(`a certificate without a line "# REGION" before it`)
	case line == pemBegin:
		p.block = []string{line}
		return nil
	}
	return p.wrong(`%.60q is neither "# REGION" nor a PEM certificate`, line)
}

func (p *parser) name(region string) error {
	switch {
	case p.region != "":
		return p.wrong("the region %s has no certificate", p.region)
	case !regionName.MatchString(region):
		return p.wrong("%.60q is not the name of a region", region)
	}
	p.region = region
	return nil
}

func (p *parser) finish() error {
	block, rest := pem.Decode([]byte(strings.Join(p.block, "\n") + "\n"))
	if block == nil || len(bytes.TrimSpace(rest)) != 0 || len(block.Headers) != 0 {
		return p.wrong("the certificate of %s is not a PEM block of base64 alone", p.region)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return p.wrong("the certificate of %s: %v", p.region, err)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < minBits {
		return p.wrong("the certificate of %s has no RSA key of %d bits or more: take those for RSA-2048 signatures", p.region, minBits)
	}
	if slices.ContainsFunc(p.out.byRegion[p.region], cert.Equal) {
		return p.wrong("the certificate of %s is there twice", p.region)
	}
	p.out.byRegion[p.region] = append(p.out.byRegion[p.region], cert)
	p.region, p.block = "", nil
	return nil
}

// Regions are the regions that a certificate is pinned for, sorted.
func (c *Certificates) Regions() []string { return slices.Sorted(maps.Keys(c.byRegion)) }
