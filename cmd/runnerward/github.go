package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/kms"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// gitHub is what speaks to GitHub.
type gitHub struct {
	client   *github.Client
	identity *github.Identity
	set      scaleset.Config
}

// connectGitHub makes the parts that speak to GitHub, all signed in as one App
// or with one token. It asks nothing of GitHub, but of KMS where it holds the
// App's key: a key that cannot sign ends the start with a clear message.
func connectGitHub(ctx context.Context, cfg *config.Config, roots *x509.CertPool, proxy func(*http.Request) (*url.URL, error), logger *zap.Logger) (*gitHub, error) {
	pool := cfg.RunnerPool()
	gh := github.Config{
		URL: cfg.GitHub.URL, Org: pool.Organization, RootCAs: roots, Proxy: proxy, Environment: cfg.Pool.Environment, Repositories: pool.Repositories,
		ApproverTeams: cfg.Pool.ApproverTeams, Group: cfg.Pool.Group, Labels: cfg.Pool.Labels, RunnerScaleSetName: cfg.Pool.Name,
		SAMLNames: cfg.GitHub.SAMLNames, InstallationID: cfg.GitHub.App.InstallationID,
	}
	for _, w := range pool.Workflows {
		gh.Workflows = append(gh.Workflows, w.Ref)
	}
	set := scaleset.Config{
		URL: cfg.GitHub.URL, Name: cfg.Pool.Name, Group: cfg.Pool.Group, Labels: cfg.Pool.Labels, Owner: hostname(),
		RootCAs: roots, Proxy: proxy, Version: buildVersion(),
	}
	if cfg.GitHub.TokenFile != "" {
		token, err := readSecret("github.tokenFile", cfg.GitHub.TokenFile)
		if err != nil {
			return nil, err
		}
		gh.Token, set.Token = token, token
	} else {
		app, err := newApp(ctx, cfg, roots, proxy)
		if err != nil {
			return nil, err
		}
		gh.App, set.App = app, app
	}
	client, err := github.New(gh, logger.Named("github"))
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("github: %w", err))
	}
	set.Boundary = client.Boundary
	identity, err := github.NewIdentity(github.IdentityConfig{Issuer: cfg.GitHub.OIDCIssuer, RootCAs: roots, Proxy: proxy})
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("github.oidcIssuer: %w", err))
	}
	return &gitHub{client, identity, set}, nil
}

// newApp signs in as the configured App, with its key from a file or in KMS.
func newApp(ctx context.Context, cfg *config.Config, roots *x509.CertPool, proxy func(*http.Request) (*url.URL, error)) (*ghapp.App, error) {
	key, err := appKey(ctx, cfg)
	if err != nil {
		return nil, err
	}
	api, err := ghapp.APIBase(cfg.GitHub.URL)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("github.url: %w", err))
	}
	app, err := ghapp.New(ghapp.Config{
		API: api, ClientID: cfg.GitHub.App.ClientID, InstallationID: cfg.GitHub.App.InstallationID, Key: key,
		Transport: ghapp.Transport(roots, proxy),
	})
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("github.app: %w", err))
	}
	return app, nil
}

func appKey(ctx context.Context, cfg *config.Config) (ghapp.Signer, error) {
	arn := cfg.GitHub.App.PrivateKeyKMS
	if arn == "" {
		pem, err := readSecret("github.app.privateKeyFile", cfg.GitHub.App.PrivateKeyFile)
		if err != nil {
			return nil, err
		}
		key, err := ghapp.ParseKey([]byte(pem.Reveal()))
		if err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("github.app.privateKeyFile: %w", err))
		}
		return key, nil
	}
	// arn:PARTITION:kms:REGION:ACCOUNT:key/ID, as check-config requires.
	region := strings.Split(arn, ":")[3]
	aws, err := hosts.LoadConfig(ctx, hosts.ConfigOptions{Region: region, Endpoint: cfg.Hosts.Endpoint, CAFile: cfg.Hosts.CAFile})
	if err != nil {
		return nil, err
	}
	key, err := kms.OpenRSA(ctx, aws, arn)
	if err != nil {
		return nil, fmt.Errorf("github.app.privateKeyKMS: %w", err)
	}
	return key, nil
}

func readPool(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("%s: %w", key, err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, failWith(exitUsage, fmt.Errorf("%s: %s holds no certificate", key, file))
	}
	return pool, nil
}

func readSecret(key, file string) (supervisor.Secret, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return supervisor.Secret{}, failWith(exitUsage, fmt.Errorf("%s: %w", key, err))
	}
	return supervisor.NewSecret(strings.TrimSpace(string(b))), nil
}

// proxyOf is nil, which follows the environment, when no proxy is configured.
func proxyOf(raw string) (func(*http.Request) (*url.URL, error), error) {
	if raw == "" {
		return nil, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, failWith(exitUsage, errors.New("github.proxy is not a URL"))
	}
	return http.ProxyURL(u), nil
}

// serverOf is scheme and host of the organization's URL.
func serverOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Scheme + "://" + u.Host
}
