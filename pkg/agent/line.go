package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
)

// The line is how Run hears what becomes of a hook: a connection that the hook
// opens before anything else and that its death closes, whoever brings that
// about. A cancelled run is such an end: the worker kills the hook, and goes on
// with the job's steps that are if: always(). So whatever ends the line, but
// for the word "allowed", ends the runner.
//
// A step of the job can reach the socket too, and say what it likes. No step
// runs before a hook was allowed, and afterwards there is nothing to gain.
const (
	lineName    = "hook.sock" // beside the bound file
	saidAllowed = "allowed\n"
	saidEnded   = "ended\n"
	maxSaid     = 64 // bytes that are read of a hook
)

// ErrKilled says that Run killed the runner, because nobody may rely on its
// hook any more.
var ErrKilled = errors.New("the runner was killed")

var errHookEnded = fmt.Errorf("%w: its job-started hook ended without being allowed", ErrKilled)

func linePath(boundFile string) string { return filepath.Join(filepath.Dir(boundFile), lineName) }

// Dialer connects to the Run that started the runner with this environment.
// Unlike [FromEnv] it works with any: a hook that cannot ask has to be heard
// all the same.
func Dialer(getenv func(string) string) func(context.Context) (net.Conn, error) {
	file := getenv(EnvBoundFile)
	if file == "" {
		file = DefaultBoundFile
	}
	return dialer(file)
}

func dialer(boundFile string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", linePath(boundFile))
	}
}

func listener(boundFile string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen("unix", linePath(boundFile)) }
}

// Announce opens the line. From its return on, the end of this process is the
// end of the runner, unless [Agent.Hook] says otherwise. It tries until it
// succeeds or the context ends, with its cause.
func Announce(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	var pace backoff
	for {
		line, err := dial(ctx)
		if err == nil {
			return line, nil
		}
		if err := pace.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// hangUp is for a hook that ends with its context. It returns when Run has
// taken note, which no process that is killed would wait for, so that the
// runner does not outrun its own death inside one process.
func hangUp(line net.Conn) {
	if _, err := io.WriteString(line, saidEnded); err == nil {
		_, _ = io.Copy(io.Discard, line)
	}
}

// watch hears every hook until the listener is closed. It kills when a hook
// ends without having been allowed, and when it can hear no more of them.
func watch(ctx context.Context, hooks net.Listener, kill context.CancelCauseFunc) {
	var heard sync.WaitGroup
	defer heard.Wait()
	for {
		line, err := hooks.Accept()
		if err != nil {
			kill(fmt.Errorf("%w: its hooks cannot be heard: %w", ErrKilled, err))
			return
		}
		heard.Go(func() {
			defer line.Close()
			stop := context.AfterFunc(ctx, func() { _ = line.Close() })
			defer stop()
			said, _ := bufio.NewReader(io.LimitReader(line, maxSaid)).ReadString('\n')
			if said != saidAllowed {
				kill(errHookEnded)
			}
		})
	}
}
