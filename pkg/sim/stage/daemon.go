package stage

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

// Daemon is the production binary as a child process, which may be started
// again after it ended. Its methods are not safe for concurrent use, but View is.
type Daemon struct {
	// Config and Log are files, StatusURL and Admission where it listens.
	Config, Log          string
	StatusURL, Admission string

	stage *Stage
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone and its log read
	err   error
}

// NewDaemon writes the configuration of a daemon as NAME.yaml. change may be
// nil. It starts nothing.
func (s *Stage) NewDaemon(name string, change func(Config)) (*Daemon, error) {
	admission, err := s.reserve()
	if err != nil {
		return nil, err
	}
	status, err := s.reserve()
	if err != nil {
		return nil, err
	}
	config, err := s.Config(admission, status)
	if err != nil {
		return nil, err
	}
	if change != nil {
		change(config)
	}
	d := &Daemon{stage: s, Config: s.File(name + ".yaml"), Log: s.File(name + ".log"), StatusURL: "https://" + status, Admission: admission}
	s.daemons = append(s.daemons, d)
	return d, config.write(d.Config)
}

// Start runs 'runnerward serve'. Its log is appended to a file. It does not
// wait; see [Daemon.Ready].
func (d *Daemon) Start() error {
	logFile, err := os.OpenFile(d.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	d.cmd, d.ended = exec.Command(d.stage.opts.Binary, "serve", "--config", d.Config), make(chan struct{})
	d.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.stage.opts.Dir, "TMPDIR=" + os.TempDir()}, credentials[:]...)
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		return errors.Join(err, logFile.Close())
	}
	if err := d.cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start the daemon: %w", err), logFile.Close())
	}
	cmd, ended := d.cmd, d.ended
	go func() {
		defer close(ended)
		d.stage.follow(io.TeeReader(stderr, logFile))
		d.err = errors.Join(cmd.Wait(), logFile.Close())
	}()
	d.stage.Ask = d.View
	return nil
}

// credentials are those of the simulated account, for daemons and auditors.
var credentials = [...]string{
	"AWS_ACCESS_KEY_ID=" + world.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + world.SecretKey, "AWS_EC2_METADATA_DISABLED=true",
}

// follow tells of every record that the daemon says it has written.
func (s *Stage) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Msg, Kind, Chain string
			Index            uint64
		}
		if s.opts.OnRecord != nil && json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "recorded" {
			s.opts.OnRecord(line.Index, line.Kind, line.Chain)
		}
	}
	_, _ = io.Copy(io.Discard, r) // an overlong line must not block the daemon
}

// readyLimit bounds a daemon's start.
const readyLimit = 30 * time.Second

// Ready waits until the daemon says that it is, and knows a vetted host.
func (d *Daemon) Ready(ctx context.Context) error {
	return d.stage.Until(ctx, "the daemon is ready and knows a vetted host", readyLimit, func() (bool, error) {
		select {
		case <-d.ended:
			return false, fmt.Errorf("the daemon ended: %w (see %s)", d.err, d.Log)
		default:
		}
		v, err := d.View(ctx)
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

// View asks the status endpoint, as on-call does.
func (d *Daemon) View(ctx context.Context) (supervisor.View, error) {
	return ViewAt(ctx, d.stage.Client, d.StatusURL)
}

// ViewAt asks the status endpoint at this URL.
func ViewAt(ctx context.Context, client *http.Client, url string) (supervisor.View, error) {
	var v supervisor.View
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/statusz", nil)
	if err != nil {
		return v, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("the status endpoint answers %s", resp.Status)
	}
	return v, json.NewDecoder(resp.Body).Decode(&v)
}

// PID is the process that was started last.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Ended is closed once the process that was started last is gone; Err is how
// it ended, nil for an orderly end.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Err is valid once [Daemon.Ended] is closed.
func (d *Daemon) Err() error { return d.err }

// Signal sends the process a signal.
func (d *Daemon) Signal(sig syscall.Signal) error {
	if err := d.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send the daemon %s: %w", sig, err)
	}
	return nil
}

// Kill is SIGKILL: the daemon has no last word.
func (d *Daemon) Kill() error {
	if err := d.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-d.ended
	return nil
}

// endLimit is how long a daemon may take to end when asked.
const endLimit = 20 * time.Second

// End asks the daemon to end and waits for it. One that is over already, or was
// never started, is a success however it ended.
func (d *Daemon) End() error {
	if d.cmd == nil {
		return nil
	}
	select {
	case <-d.ended:
		return nil
	default:
	}
	// A process that is stopped hears nothing.
	if err := errors.Join(d.Signal(syscall.SIGTERM), d.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	select {
	case <-d.ended:
		return d.err
	case <-time.After(endLimit):
		return errors.Join(fmt.Errorf("the daemon did not end within %s of SIGTERM", endLimit), d.Kill())
	}
}
