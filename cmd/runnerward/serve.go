package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/runnerward/runnerward/configs"
	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/certs"
	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/status"
)

func serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the supervisor until it is told to end (SIGTERM)",
		Example: `  runnerward check-config --config /etc/runnerward/runnerward.yaml >/dev/null &&
    runnerward serve --config /etc/runnerward/runnerward.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, file)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "f", "", "configuration file (YAML)")
	return cmd
}

func checkConfigCommand() *cobra.Command {
	var (
		file    string
		offline bool
	)
	cmd := &cobra.Command{
		Use:   "check-config --config FILE",
		Short: "Check a configuration as serve would and print it as it takes effect (exit 2 when it is refused)",
		Long: `Check a configuration as serve would, the files that it names and the policy
included, and print it as it takes effect: with defaults and the environment.

Everything that is wrong is reported at once, one problem a line, as
FILE:LINE:COLUMN: KEY: what is wrong (how to mend it).`,
		Example: `  runnerward check-config --config /etc/runnerward/runnerward.yaml
  runnerward check-config --offline --config runnerward.yaml   # on another machine`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opts []config.Option
			if offline {
				opts = append(opts, config.Offline())
			}
			cfg, err := loadConfig(cmd, file, opts...)
			if err != nil {
				return err
			}
			if !offline {
				_, policyErr := loadPolicy(cfg)
				_, certificatesErr := loadCertificates(cfg)
				if err := errors.Join(policyErr, certificatesErr); err != nil {
					return failWith(exitUsage, err)
				}
			}
			for _, warning := range cfg.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			effective, err := cfg.Effective()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(effective)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "config", "f", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&offline, "offline", false, "do not look for the files that the configuration names")
	return cmd
}

func loadConfig(cmd *cobra.Command, file string, opts ...config.Option) (*config.Config, error) {
	if err := required(cmd, "config"); err != nil {
		return nil, err
	}
	cfg, err := config.Load(file, os.Environ(), opts...)
	if _, ok := errors.AsType[*config.Problems](err); ok {
		err = &placed{err}
	}
	if err != nil {
		return nil, failWith(exitUsage, err)
	}
	return cfg, nil
}

// loadPolicy compiles the policy that the configuration names.
func loadPolicy(cfg *config.Config) (*policy.Bundle, error) {
	if cfg.Policy.Dir == "" {
		files, err := configs.Policy()
		if err != nil {
			return nil, fmt.Errorf("open the policy in the binary: %w", err)
		}
		return policy.Load(files)
	}
	bundle, err := policy.Load(os.DirFS(cfg.Policy.Dir))
	if err != nil {
		return nil, inFolder(cfg.Policy.Dir, err)
	}
	return bundle, nil
}

// inFolder gives the files in a policy's errors the path by which the reader
// finds them: the policy knows them by their names within its folder.
func inFolder(dir string, err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if _, joined := inner.(interface{ Unwrap() []error }); !joined {
			continue
		}
		lines := strings.Split(inner.Error(), "\n")
		for i, line := range lines {
			lines[i] = filepath.Clean(dir) + "/" + line
		}
		return &placed{errors.New(strings.Join(lines, "\n"))}
	}
	return fmt.Errorf("policy.dir: %s: %w", dir, err)
}

// serve runs the daemon. Its parts end together: a status endpoint or an
// admission API that died takes the daemon with it, for the process manager
// to start it again.
func serve(ctx context.Context, cfg *config.Config) error {
	logger, err := newLogger(cfg.Log)
	if err != nil {
		return failWith(exitUsage, err)
	}
	defer func() { _ = logger.Sync() }() // stderr may not be syncable
	logger.Info("starting", zap.String("version", buildVersion()))

	admissionListener, statusListener, err := listen(cfg)
	if err != nil {
		return err
	}
	return serveOn(ctx, cfg, logger, admissionListener, statusListener)
}

// serveOn serves on these listeners, which it closes. The status endpoint answers
// from the first moment on, the admission API once there is a supervisor.
func serveOn(ctx context.Context, cfg *config.Config, logger *zap.Logger, admissionListener, statusListener net.Listener) error {
	front, err := newFront(cfg, logger)
	if err != nil {
		return errors.Join(err, admissionListener.Close(), statusListener.Close())
	}
	elected, err := newElection(cfg, logger, front, admissionListener)
	if err != nil {
		return errors.Join(err, admissionListener.Close(), statusListener.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	status, ctx := errgroup.WithContext(ctx)
	status.Go(func() error { return front.server.Serve(ctx, statusListener) })
	err = elected(ctx, func(ctx context.Context, admissionListener net.Listener) error {
		daemon, err := build(ctx, cfg, logger, front)
		if err != nil {
			return errors.Join(err, admissionListener.Close())
		}
		err = daemon.run(ctx, cfg, logger, admissionListener)
		// An operator's last request is answered while there is a log to write to.
		stop()
		_ = status.Wait() // reported below
		return errors.Join(err, daemon.close())
	})
	stop()
	err = errors.Join(err, status.Wait())
	logger.Info("ended", zap.NamedError("cause", context.Cause(ctx)), zap.Error(err))
	return err
}

// run does what the daemon is for. Its parts end together.
func (d *daemon) run(ctx context.Context, cfg *config.Config, logger *zap.Logger, admissionListener net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.admission.Serve(ctx, admissionListener) })
	group.Go(func() error {
		_ = d.cluster.Run(ctx) // ends with the context and has nothing else to say
		return nil
	})
	group.Go(func() error { return d.supervisor.Run(ctx) })
	group.Go(func() error { return d.keep(ctx, cfg.Ledger.S3.SlackDays, logger.Named("ledger")) })
	return group.Wait()
}

// listen opens both endpoints before anything is written or registered.
func listen(cfg *config.Config) (admission, status net.Listener, err error) {
	admission, err = net.Listen("tcp", cfg.Admission.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("admission.listen: %w", err)
	}
	status, err = net.Listen("tcp", cfg.Status.Listen)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("status.listen: %w", err), admission.Close())
	}
	return admission, status, nil
}

func admissionServer(cfg *config.Config, gate admission.Gate, logger *zap.Logger) (admission.Server, error) {
	log := logger.Named("admission")
	tlsConfig, err := admission.TLSConfig(certs.Files{Cert: cfg.Admission.CertFile, Key: cfg.Admission.KeyFile}, log)
	if err != nil {
		return admission.Server{}, failWith(exitUsage, fmt.Errorf("admission.certFile, keyFile: %w", err))
	}
	return admission.Server{
		Handler: admission.NewHandler(gate, log, admission.Limits{}),
		TLS:     tlsConfig, Log: log, Grace: shutdownGrace,
	}, nil
}

func statusOptions(cfg *config.Config, logger *zap.Logger) (status.Options, error) {
	log := logger.Named("status")
	tlsConfig, err := status.TLSConfig(certs.Files{
		Cert: cfg.Status.CertFile, Key: cfg.Status.KeyFile, ClientCA: cfg.Status.ClientCAFile,
	}, log)
	if err != nil {
		return status.Options{}, failWith(exitUsage, fmt.Errorf("status.certFile, keyFile, clientCAFile: %w", err))
	}
	pool := cfg.RunnerPool()
	return status.Options{
		Admins: cfg.Status.Admins, Logger: log, Version: buildVersion(), FIPS: fips(),
		Labels:  status.Labels{Organization: pool.Organization, Name: cfg.Pool.Name, Namespace: cfg.Cluster.Namespace},
		Explain: inPlainWords, TLS: tlsConfig,
	}, nil
}
