package awsmodel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// services that the simulator speaks for.
func services() []string {
	return []string{"autoscaling", "ec2", "eks", "iam", "kms", "ssm", "sts"}
}

// moduleDir is where the SDK's module of a service is on this machine. It is
// there, since these tests are linked with it.
func moduleDir(t *testing.T, service string) string {
	t.Helper()
	name := "github.com/aws/aws-sdk-go-v2/service/" + service
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", name).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("find the module %s: %v (%q)", name, err, dir)
	}
	return dir
}

// snapshot is a frozen request or answer: a first line, headers, a blank line
// and a body.
type snapshot struct {
	first  string
	header map[string]string
	body   string
}

func readSnapshot(path string) (snapshot, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{header: map[string]string{}}
	var rest string
	s.first, rest, _ = strings.Cut(string(b), "\n")
	// Requests have an empty line after the first, too.
	head, body, _ := strings.Cut(strings.TrimPrefix(rest, "\n"), "\n\n")
	for line := range strings.Lines(strings.TrimSpace(head)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			return snapshot{}, fmt.Errorf("%s: header %q", path, line)
		}
		s.header[k] = v
	}
	s.body = strings.TrimSpace(body)
	return s, nil
}

// protocolErrors are the codes that mean that a request was not understood.
func protocolErrors() []string {
	return []string{
		"SerializationException", "UnknownOperationException", "InvalidAction", "MissingAction", "MissingParameter", "UnknownParameter",
		"NoSuchVersion", "AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException", "MissingAuthenticationToken",
	}
}

// Every request that the SDK's snapshots show, with every member set, is
// understood if the simulator serves the action, and refused as unknown if not.
func TestTheSDKsOwnRequestsAreUnderstood(t *testing.T) {
	for _, service := range services() {
		dir := filepath.Join(moduleDir(t, service), "request_snapshot")
		files, err := filepath.Glob(filepath.Join(dir, "*.request.snap"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no snapshots in %s: %v", dir, err)
		}
		w := newWorld(t)
		understood := map[string]bool{}
		for _, file := range files {
			operation := strings.TrimSuffix(filepath.Base(file), ".request.snap")
			s, err := readSnapshot(file)
			if err != nil {
				t.Fatal(err)
			}
			method, path, ok := strings.Cut(s.first, " ")
			if !ok {
				t.Fatalf("%s begins with %q", file, s.first)
			}
			if service == "eks" && !strings.HasPrefix(path, "/clusters") {
				continue
			}
			got := w.send(t, service, method, path, s.header, s.body)
			code := got.wireCode(t)
			driven := slices.ContainsFunc(drives(), func(d drive) bool { return d.service == service && d.operation == operation })
			switch {
			case driven && slices.Contains(protocolErrors(), code):
				t.Errorf("%s %s is not understood: %d %s", service, operation, got.status, got.body)
			case !driven && !unserved(code):
				t.Errorf("%s %s, which is not served, was answered by %d %s", service, operation, got.status, got.body)
			}
			understood[operation] = true
		}
		for _, d := range drives() {
			if d.service == service && !understood[d.operation] {
				t.Errorf("%s has no snapshot of %s", service, d.operation)
			}
		}
	}
}

// What the simulator answers in JSON is a part of the SDK's own example of the
// answer, in which every member is set: the same names, the same kinds.
func TestAnswersResembleTheSDKsOwn(t *testing.T) {
	for _, service := range []string{"eks", "kms", "ssm"} {
		dir := filepath.Join(moduleDir(t, service), "response_snapshot")
		compared := 0
		for _, d := range drives() {
			if d.service != service || d.code == "ValidationException" {
				// A violated constraint is answered in front of the service.
				continue
			}
			w := newWorld(t)
			if err := d.call(t.Context(), w); errorCode(err) != d.code {
				t.Fatalf("%s %s = %v, want %q", service, d.operation, err, d.code)
			}
			name := d.operation + ".response.snap"
			if d.code != "" {
				name = d.code + ".error.snap"
			}
			s, err := readSnapshot(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if status, err := strconv.Atoi(s.first); err != nil || (status < 300) != (w.last.status < 300) {
				t.Errorf("%s %s: status %d, the SDK's example has %s", service, d.operation, w.last.status, s.first)
			}
			var got, want any
			if err := errors.Join(json.Unmarshal(w.last.body, &got), json.Unmarshal([]byte(s.body), &want)); err != nil {
				t.Fatal(err)
			}
			if problem := partOf(got, want); problem != "" {
				t.Errorf("%s %s: %s in %s, the SDK's example is %s", service, d.operation, problem, w.last.body, s.body)
			}
			compared++
		}
		if compared == 0 {
			t.Errorf("nothing of %s was compared", service)
		}
	}
}

// partOf says where a value has what the example has not. The names in a map
// are free: an example has the name key0.
func partOf(got, example any) string {
	switch e := example.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%v for an object", got)
		}
		for name, v := range g {
			like, ok := e[name]
			if free, isMap := e["key0"]; isMap {
				like, ok = free, true
			}
			if !ok {
				return "the member " + name
			}
			if problem := partOf(v, like); problem != "" {
				return name + ": " + problem
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			return fmt.Sprintf("%v for a list", got)
		}
		for _, v := range g {
			if problem := partOf(v, e[0]); problem != "" {
				return problem
			}
		}
	default:
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", example) {
			return fmt.Sprintf("%T for a %T", got, example)
		}
	}
	return ""
}

// The comparison finds what it is there for.
func TestWhatDoesNotResembleIsFound(t *testing.T) {
	example := `{"a":[{"n":1,"tags":{"key0":"v"}}],"b":true}`
	for got, want := range map[string]string{
		`{"a":[{"n":2,"tags":{"x":"y"}}]}`: "",
		`{"c":1}`:                          "the member c",
		`{"a":[{"n":"1"}]}`:                "a: n: string for a float64",
		`{"b":null}`:                       "b: <nil> for a bool",
		`{"a":{}}`:                         "a: map[] for a list",
	} {
		var g, e any
		d := json.NewDecoder(bytes.NewReader([]byte(got)))
		if err := errors.Join(d.Decode(&g), json.Unmarshal([]byte(example), &e)); err != nil {
			t.Fatal(err)
		}
		if problem := partOf(g, e); problem != want {
			t.Errorf("partOf(%s) = %q, want %q", got, problem, want)
		}
	}
}
