// Package awsmodel holds the simulated AWS to AWS's own descriptions: the
// service models that botocore carries, and the requests and answers that the
// SDK's modules ship as snapshots. Both say what an answer may look like, not
// what a service does; for that the simulator names its sources.
package awsmodel

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// model is a service's description, as far as answers go.
type model struct {
	Metadata struct {
		APIVersion, Protocol, TargetPrefix string
		XMLNamespace                       string
	}
	Operations map[string]operation
	Shapes     map[string]shape
}

type operation struct {
	HTTP struct {
		Method     string
		RequestURI string
	}
	Output *ref
	Errors []ref
}

// ref is a member's use of a shape.
type ref struct {
	Shape, LocationName, ResultWrapper string
	TimestampFormat                    string
}

type shape struct {
	Type               string
	Members            map[string]ref
	Required           []string
	Member, Key, Value *ref
	Enum               []string
	TimestampFormat    string
	Error              struct {
		Code           string
		HTTPStatusCode int
	}
}

// newest is the version directory that sorts last. Versions are dates.
func newest(t *testing.T, service string) string {
	t.Helper()
	dirs, err := os.ReadDir(filepath.Join(botocore(t), "data", service))
	if err != nil {
		t.Fatalf("botocore has no models of %s: %v", service, err)
	}
	var names []string
	for _, d := range dirs {
		names = append(names, d.Name())
	}
	return filepath.Join(botocore(t), "data", service, slices.Max(names))
}

// botocore is the directory of the package that this machine's python3 has.
func botocore(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-c", "import botocore,os;print(os.path.dirname(botocore.__file__))").Output()
	if err != nil {
		t.Skip("botocore is not installed, so AWS's models are not at hand: pip install botocore")
	}
	return strings.TrimSpace(string(out))
}

// loadModel reads botocore's description of a service, compressed or not.
func loadModel(t *testing.T, service string) model {
	t.Helper()
	path := filepath.Join(newest(t, service), "service-2.json")
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		b, err = unzip(path + ".gz")
	}
	var m model
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		t.Fatalf("read the model of %s: %v", service, err)
	}
	return m
}

func unzip(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return io.ReadAll(z)
}
