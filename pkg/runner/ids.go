package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// JobID is GitHub's jobId, a GUID. It is the only key of a job:
// runnerRequestId is 0 on github.com.
type JobID string

// Name is a runner's name: its registration's, its pod's and its evidence's.
// It is unguessable, a DNS label and never used twice.
type Name string

// Digest is "sha256:" and 64 lower-case hexadecimal digits.
type Digest string

// DigestOf is the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// Hex is the digest without its algorithm.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// audiencePrefix names the tokens that we ask outside issuers to sign. The
// audience of a token is the hash of our latest record, so that the issuer's
// signature covers our log (hash-audience chaining).
const audiencePrefix = "urn:runnerward:record:"

// Audience is the token audience that names the record with this digest.
func (d Digest) Audience() string { return audiencePrefix + string(d) }

// ParseAudience is the inverse of [Digest.Audience].
func ParseAudience(aud string) (Digest, error) {
	rest, ok := strings.CutPrefix(aud, audiencePrefix)
	if !ok {
		return "", fmt.Errorf("audience %.80q does not start with %s", aud, audiencePrefix)
	}
	d := Digest(rest)
	if !patterns["digest"].MatchString(rest) {
		return "", fmt.Errorf("audience %.80q does not name a sha256 digest", aud)
	}
	return d, nil
}
