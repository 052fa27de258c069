package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// shell runs the programs that the test is made of. It is safe for concurrent use.
type shell struct {
	dir  string // of this run: everything of it is in here
	root string // of the repository
	bin  string // what test/kube/build.sh made
	path []string
	env  []string
}

// newShell finds the programs that test/kube/build.sh made, in bin, before the
// machine's own.
func newShell(dir, root, bin string) shell {
	path := append([]string{bin}, filepath.SplitList(os.Getenv("PATH"))...)
	return shell{dir: dir, root: root, bin: bin, path: path, env: append(os.Environ(), "PATH="+strings.Join(path, ":"),
		"HOME="+dir, "KUBECONFIG="+filepath.Join(dir, "kubeconfig"), "KIND_EXPERIMENTAL_DOCKER_NETWORK="+network)}
}

func (s shell) file(name string) string { return filepath.Join(s.dir, name) }

// run returns what the program wrote to its standard output. Its error holds
// what it wrote to the other.
func (s shell) run(ctx context.Context, args ...string) (string, error) {
	return s.feed(ctx, nil, args...)
}

// feed is run for a program that reads.
func (s shell) feed(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	path, err := s.find(args[0])
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin = s.env, s.dir, stdin
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), tail(problem.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// tail is the end of what a program said.
func tail(b []byte) string {
	const most = 4 << 10
	return string(bytes.TrimSpace(bytes.ToValidUTF8(b[max(0, len(b)-most):], nil)))
}

// find looks for the program in our own PATH, which is not the process's.
func (s shell) find(name string) (string, error) {
	for _, dir := range s.path {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not there: %s installs or builds it", name, target)
}

// until polls a condition. The error names what did not happen, and what the last
// look that had its time said about that.
func until(ctx context.Context, what string, limit time.Duration, ok func(context.Context) (yes bool, why error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		yes, why := ok(ctx)
		if yes {
			return nil
		}
		if ctx.Err() == nil {
			last = why
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %s: %w", limit, what, errors.Join(last, context.Cause(ctx)))
		}
	}
}
