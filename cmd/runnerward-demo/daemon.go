package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// daemon is the production binary as a child process.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone and its log read
	err   error
}

// startDaemon runs 'runnerward serve'. Its log goes to a file, and what it
// records to the narrator.
func (s *stage) startDaemon(ctx context.Context) error {
	logFile, err := os.OpenFile(s.file("daemon.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	d := &daemon{cmd: exec.Command(s.opts.binary, "serve", "--config", s.config), ended: make(chan struct{})}
	d.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.opts.dir, "TMPDIR=" + os.TempDir(),
		"AWS_ACCESS_KEY_ID=" + world.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + world.SecretKey, "AWS_EC2_METADATA_DISABLED=true",
	}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		return errors.Join(err, logFile.Close())
	}
	if err := d.cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start the daemon: %w", err), logFile.Close())
	}
	go func() {
		defer close(d.ended)
		s.follow(io.TeeReader(stderr, logFile))
		d.err = errors.Join(d.cmd.Wait(), logFile.Close())
	}()
	s.daemon = d
	return s.ready(ctx)
}

// follow tells of every record that the daemon says it has written.
func (s *stage) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Msg, Kind, Chain string
			Index            uint64
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "recorded" {
			s.tell.record(line.Index, line.Kind, line.Chain)
		}
	}
	_, _ = io.Copy(io.Discard, r) // an overlong line must not block the daemon
}

// ready waits until the daemon says that it is, and knows a vetted host.
func (s *stage) ready(ctx context.Context) error {
	return s.until(ctx, "the daemon is ready and knows a vetted host", 30*time.Second, func() (bool, error) {
		select {
		case <-s.daemon.ended:
			return false, fmt.Errorf("the daemon ended: %w (see %s)", s.daemon.err, s.file("daemon.log"))
		default:
		}
		v, err := s.view(ctx)
		if err != nil {
			return false, nil // not up yet
		}
		for _, h := range v.Hosts {
			if h.Vetted && v.CanDeploy {
				return true, nil
			}
		}
		return false, nil
	})
}

// view asks the status endpoint, as on-call does.
func (s *stage) view(ctx context.Context) (supervisor.View, error) {
	var v supervisor.View
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.statusURL+"/statusz", nil)
	if err != nil {
		return v, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("the status endpoint answers %s", resp.Status)
	}
	return v, json.NewDecoder(resp.Body).Decode(&v)
}

// until polls a condition. The error names what did not happen.
func (s *stage) until(ctx context.Context, what string, limit time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// kill is SIGKILL: the daemon has no last word.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill the daemon: %w", err)
	}
	<-d.ended
	return nil
}

// end asks the daemon to end and waits for it.
func (d *daemon) end() error {
	if d == nil {
		return nil
	}
	select {
	case <-d.ended:
		return nil
	default:
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end the daemon: %w", err)
	}
	select {
	case <-d.ended:
		return d.err
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("the daemon did not end within 20 s of SIGTERM"), d.kill())
	}
}
