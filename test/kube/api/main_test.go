// Package api holds the tests against a real API server: "make test-api".
//
// One control plane serves them all, for it takes seconds to start. Tests keep
// apart by namespaces and node names of their own; what needs a release's fixed
// namespace cleans up after itself.
package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/runnerward/runnerward/test/kube/plane"
)

// binaries names the folder that test/kube/build.sh filled.
const binaries = "RUNNERWARD_KUBE"

// control is the control plane of all tests: TestMain sets it before the first
// one and nobody changes it; nil without binaries.
var control *plane.Plane

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	bin := os.Getenv(binaries)
	if bin == "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "runnerward-api-")
	if err != nil {
		return 1, err
	}
	began := time.Now()
	if control, err = plane.Start(context.Background(), plane.Options{Bin: bin, Dir: dir}); err != nil {
		return 1, errors.Join(err, os.RemoveAll(dir))
	}
	fmt.Printf("control plane ready after %.1f s\n", time.Since(began).Seconds())
	code = m.Run()
	return code, errors.Join(control.Stop(), os.RemoveAll(dir))
}

// planeOf is the control plane, or the reason for which the test is skipped.
// With the binaries' folder named nothing is skipped.
func planeOf(t *testing.T) *plane.Plane {
	t.Helper()
	if control == nil {
		t.Skip("needs a real API server: make test-api")
	}
	return control
}

// admin is a client with all rights.
func admin(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := planeOf(t).Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// binary is the path of one of the binaries.
func binary(t *testing.T, name string) string {
	t.Helper()
	planeOf(t)
	path := filepath.Join(os.Getenv(binaries), name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v (test/kube/build.sh api)", err)
	}
	return path
}

// namespace makes one that enforces this Pod Security level, named after the
// test. It is deleted with the test, as far as the test goes: its pods go in the
// background.
func namespace(t *testing.T, level string) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	makeNamespace(t, name, level)
	return name
}

func makeNamespace(t *testing.T, name, level string) {
	t.Helper()
	c := admin(t)
	_, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": level},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// until asks again and again, until the answer is yes or patience ends. The
// error of the last question is part of what is reported.
func until(t *testing.T, what string, patience time.Duration, yes func() (bool, error)) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		ok, err := yes()
		if ok && err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %s: %s (%v)", patience, what, err)
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, context.Cause(t.Context()))
		}
	}
}

// patience is how long anything may take that takes a second on an idle machine.
const patience = 30 * time.Second

// start is a control plane for this test alone, for what changes a cluster as a
// whole, such as its kinds.
func start(t *testing.T) *plane.Plane {
	t.Helper()
	planeOf(t)
	p, err := plane.Start(t.Context(), plane.Options{Bin: os.Getenv(binaries), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}
