package hosts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/smithy-go/logging"
)

// expiryWindow is how long before they expire credentials are renewed, so that
// a call and its repetitions end before they do. The SDK itself renews those of
// a web identity only once they have expired.
const expiryWindow = 5 * time.Minute

// defaultResponseTimeout bounds the wait for one answer's first byte, so that
// a connection that went silent costs an attempt and not the whole call.
const defaultResponseTimeout = 10 * time.Second

// ConfigOptions say how AWS is reached.
type ConfigOptions struct {
	// Region must be given: a daemon that guesses its region might look for
	// its hosts, and not find them, in the wrong one.
	Region string
	// Endpoint replaces the services' own endpoints, for a VPC endpoint or a
	// simulator. It cannot be combined with AWS_USE_FIPS_ENDPOINT.
	Endpoint string
	// CAFile is a PEM file of the authorities to trust instead of the system's,
	// RootCAs the same in memory. The SDK adds those of AWS_CA_BUNDLE to either.
	CAFile  string
	RootCAs *x509.CertPool
	// HTTPClient replaces the transport altogether.
	HTTPClient aws.HTTPClient
	// ResponseTimeout bounds the wait for the first byte of one answer; 10 s
	// if zero. The SDK itself waits for ever.
	ResponseTimeout time.Duration
	// Service is where the one service is that the configuration is for, nil for
	// where Endpoint is. Temporary credentials do not come from there: AWS's own
	// endpoints of S3 and KMS know nothing of roles. Where a server of S3 does,
	// AWS_ENDPOINT_URL_STS names it, unless Endpoint is given.
	Service *Service
}

// Service is an endpoint, empty for AWS's own, and a PEM file of the authorities
// to trust there, empty for the system's.
type Service struct{ Endpoint, CAFile string }

// LoadConfig finds credentials as every AWS tool does (environment, web
// identity of IRSA, Pod Identity, instance role) and returns a configuration
// whose requests time out and whose temporary credentials are renewed before
// they expire. No request is made until a client is used. It refuses an
// endpoint that the SDK would refuse at every call, or pass over.
func LoadConfig(ctx context.Context, o ConfigOptions) (aws.Config, error) {
	cfg, err := o.load(ctx)
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	if o.Service == nil {
		return cfg, nil
	}
	own := o
	own.Endpoint, own.CAFile, own.RootCAs = o.Service.Endpoint, o.Service.CAFile, nil
	of, err := own.load(ctx)
	if err != nil {
		return aws.Config{}, fmt.Errorf("load the AWS configuration: %w", err)
	}
	of.Credentials = cfg.Credentials
	return of, nil
}

func (o ConfigOptions) load(ctx context.Context) (aws.Config, error) {
	if o.Region == "" {
		return aws.Config{}, errors.New("no region given")
	}
	client, err := o.client()
	if err != nil {
		return aws.Config{}, err
	}
	load := []func(*config.LoadOptions) error{
		config.WithRegion(o.Region), config.WithHTTPClient(client),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = expiryWindow }),
		// Else the agent of EKS Pod Identity is asked by a client of the SDK's
		// own. That waits for ever, since renewals outlive the contexts of the
		// calls that need them, and later calls wait for the same renewal.
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }),
		// What the SDK says beside its errors would be lines of its own format in
		// the daemon's log: of connections that cannot be used again, of checksums.
		config.WithLogger(logging.Nop{}),
	}
	if o.Endpoint != "" {
		load = append(load, config.WithBaseEndpoint(o.Endpoint))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return aws.Config{}, err
	}
	cfg.Credentials = &patientCredentials{provider: cfg.Credentials}
	return cfg, checkEndpoints(ctx, cfg, o.Endpoint)
}

func (o ConfigOptions) client() (aws.HTTPClient, error) {
	if o.HTTPClient != nil {
		return o.HTTPClient, nil
	}
	roots := o.RootCAs
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authorities: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificate authorities: no certificate in %s", o.CAFile)
		}
	}
	timeout := o.ResponseTimeout
	if timeout == 0 {
		timeout = defaultResponseTimeout
	}
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = timeout
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if roots != nil {
			t.TLSClientConfig.RootCAs = roots.Clone()
		}
	}), nil
}
