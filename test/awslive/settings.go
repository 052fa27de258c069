// Package awslive asks real AWS what the simulators only assume, with the
// daemon's own packages: first without changing anything, then, in a sandbox
// account and with its owner's explicit word, by writing, signing and ending one
// host. Nothing runs without the settings that RUNNERWARD_AWS_LIVE names.
package awslive

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The environment that the suite reads, besides what every AWS tool reads.
const (
	// EnvSettings is the path of the settings; without it nothing runs.
	EnvSettings = "RUNNERWARD_AWS_LIVE"
	// EnvChange allows the second stage when it is [Phrase].
	EnvChange = "RUNNERWARD_AWS_LIVE_CHANGE"
)

// Phrase is what an owner has to say before anything is changed.
const Phrase = "yes-this-is-a-sandbox"

// Settings name what belongs to the sandbox. Region and Account are needed, and
// at least one of the three parts; a part that is left out is not asked about.
type Settings struct {
	Region  string `yaml:"region"`
	Account string `yaml:"account"`
	// AllowProduction lets hosts be looked at, and one ended, that bear the tag
	// Boundary=production.
	AllowProduction bool `yaml:"allowProduction"`
	// Endpoint replaces the endpoints of all services but S3, and CAFile is a
	// PEM file of authorities to trust, for VPC endpoints and simulators.
	Endpoint string `yaml:"endpoint"`
	CAFile   string `yaml:"caFile"`
	Hosts    Hosts  `yaml:"hosts"`
	S3       S3     `yaml:"s3"`
	KMS      KMS    `yaml:"kms"`
}

// Hosts are the group and what its members must be, as in the daemon's own
// configuration.
type Hosts struct {
	Group            string            `yaml:"group"`
	Tags             map[string]string `yaml:"tags"` // of every member
	Subnets          []string          `yaml:"subnets"`
	ImageParameters  []string          `yaml:"imageParameters"`
	ImageNames       []string          `yaml:"imageNames"`
	ImageOwners      []string          `yaml:"imageOwners"` // amazon if empty
	BootModes        []string          `yaml:"bootModes"`   // uefi and uefi-preferred if empty
	InstanceProfiles []string          `yaml:"instanceProfiles"`
	// Nodegroup is the value of the tag eks:nodegroup-name, not asked if empty.
	Nodegroup string `yaml:"nodegroup"`
	// EndInstance is the one member that the second stage ends; none if empty.
	EndInstance string `yaml:"endInstance"`
	// Poll is the time between two looks at it, 2 s if zero. EndBy bounds the
	// wait for its end, 20 min if zero; AgeOutBy the wait until EC2 no longer
	// lists it, which takes about an hour: 0 does not wait.
	Poll     time.Duration `yaml:"poll"`
	EndBy    time.Duration `yaml:"endBy"`
	AgeOutBy time.Duration `yaml:"ageOutBy"`
}

// S3 are two buckets of the sandbox. What is written to Bucket stays for a day,
// whoever asks.
type S3 struct {
	Bucket     string `yaml:"bucket"`
	ViewBucket string `yaml:"viewBucket"`
	Prefix     string `yaml:"prefix"`
	Region     string `yaml:"region"` // Region of the settings if empty
	Endpoint   string `yaml:"endpoint"`
}

// KMS are the ARNs of the ledger's two keys.
type KMS struct {
	RecordKey     string `yaml:"recordKey"`
	CheckpointKey string `yaml:"checkpointKey"`
}

// Load reads the settings and refuses what it does not know.
func Load(path string) (Settings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Settings{}, fmt.Errorf("read the settings that %s names: %w", EnvSettings, err)
	}
	var s Settings
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Settings{}, fmt.Errorf("read the settings in %s: %w", path, err)
	}
	s.complete()
	if err := s.check(); err != nil {
		return Settings{}, fmt.Errorf("settings in %s: %w", path, err)
	}
	return s, nil
}

func (s *Settings) complete() {
	h := &s.Hosts
	if len(h.ImageOwners) == 0 {
		h.ImageOwners = []string{"amazon"}
	}
	if len(h.BootModes) == 0 {
		h.BootModes = []string{"uefi", "uefi-preferred"}
	}
	h.Poll, h.EndBy = cmp.Or(h.Poll, 2*time.Second), cmp.Or(h.EndBy, 20*time.Minute)
	s.S3.Region = cmp.Or(s.S3.Region, s.Region)
}

var (
	accountShape  = regexp.MustCompile(`\A[0-9]{12}\z`)
	instanceShape = regexp.MustCompile(`\Ai-[0-9a-f]{8,17}\z`)
	prefixShape   = regexp.MustCompile(`\A[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\z`)
)

// check says everything that is wrong at once.
func (s *Settings) check() error {
	var problems []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	h, b, k := s.Hosts, s.S3, s.KMS
	want(s.Region != "", "region is missing")
	want(accountShape.MatchString(s.Account), "account must be the 12 digits of the sandbox account, in quotes")
	want(h.Group != "" || b.Bucket != "" || k.RecordKey != "", "nothing to ask: give hosts.group, s3.bucket or kms.recordKey")
	want(h.Group == "" || len(h.Tags) > 0, "hosts.tags must name a tag that only the sandbox's hosts bear")
	want(h.EndInstance == "" || h.Group != "" && instanceShape.MatchString(h.EndInstance), "hosts.endInstance must be the id of a member of hosts.group, such as i-0123456789abcdef0")
	want(h.Poll > 0 && h.EndBy > 0 && h.AgeOutBy >= 0, "hosts.poll and hosts.endBy must be longer than 0s, hosts.ageOutBy not negative")
	want(b.Bucket == "" || b.ViewBucket != "" && b.ViewBucket != b.Bucket, "s3.viewBucket must be another bucket than s3.bucket")
	want(b.Bucket == "" || prefixShape.MatchString(b.Prefix), "s3.prefix must be a folder without a slash at either end, of which nothing else makes use")
	want((k.RecordKey == "") == (k.CheckpointKey == ""), "kms needs both keys or none")
	for name, arn := range map[string]string{"recordKey": k.RecordKey, "checkpointKey": k.CheckpointKey} {
		want(arn == "" || s.owns(arn), "kms.%s must be the ARN of a key in account %s and region %s", name, s.Account, s.Region)
	}
	return errors.Join(problems...)
}

// owns says that the ARN is of a key in the sandbox.
func (s *Settings) owns(arn string) bool {
	parts := strings.SplitN(arn, ":", 6)
	return len(parts) == 6 && parts[0] == "arn" && parts[2] == "kms" && parts[3] == s.Region && parts[4] == s.Account &&
		strings.HasPrefix(parts[5], "key/")
}
