package hosts_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
)

const (
	issuerURL      = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF"
	serviceAccount = "runnerward"
	namespace      = "gha-runners"
	podUID         = "f2b7a6c0-7d5c-4a0e-9a53-0f3c8a1d2e4b"
)

// identity is a cluster that signs tokens, and the pod's token file.
type identity struct {
	key  *rsa.PrivateKey
	sim  *simaws.Server
	role string
	file string
}

// newIdentity makes an account that trusts a cluster, and an environment
// without any other credentials.
func newIdentity(t *testing.T, session time.Duration) identity {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	issuer := simaws.Issuer{URL: issuerURL, Keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "one"}}}}
	sim := simaws.New(simConfig())
	sim.AddIssuer(issuer)
	role := sim.AddRole(simaws.Role{
		Name: "runnerward", Issuer: issuerURL, Subject: "system:serviceaccount:" + namespace + ":" + serviceAccount, Pods: true,
	})
	sim.AddPodAssociation(simaws.PodAssociation{
		Cluster: "prod", Namespace: namespace, ServiceAccount: serviceAccount, RoleARN: role, Session: session,
	}, issuer)
	for _, name := range os.Environ() {
		if name, _, _ = strings.Cut(name, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	return identity{key, sim, role, filepath.Join(t.TempDir(), "token")}
}

// project writes a new token, as the kubelet does.
func (i identity) project(t *testing.T, audience string, life time.Duration) {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: i.key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": issuerURL, "sub": "system:serviceaccount:" + namespace + ":" + serviceAccount, "aud": []string{audience},
		"iat": time.Now().Unix(), "exp": time.Now().Add(life).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": namespace, "pod": map[string]string{"name": "runnerward-0", "uid": podUID},
			"serviceaccount": map[string]string{"name": serviceAccount},
		},
	}).Serialize()
	if err == nil {
		err = os.WriteFile(i.file, []byte(token), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// irsa and podIdentity set what the webhooks of EKS set in a pod:
// https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
// https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
func (i identity) irsa(t *testing.T) {
	t.Setenv("AWS_ROLE_ARN", i.role)
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", i.file)
	t.Setenv("AWS_ROLE_SESSION_NAME", podUID)
}

func (i identity) podIdentity(t *testing.T, url string) {
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", i.file)
}

// whoAmI loads the configuration and asks AWS who that is.
func whoAmI(t *testing.T, o hosts.ConfigOptions) (aws.Credentials, string) {
	t.Helper()
	cfg, err := hosts.LoadConfig(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	me, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	return got, *me.Arn
}

func TestLoadConfigFindsTheRoleOfAServiceAccount(t *testing.T) {
	i := newIdentity(t, 0)
	srv := httptest.NewTLSServer(i.sim)
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	options := hosts.ConfigOptions{Region: region, Endpoint: srv.URL, RootCAs: roots}

	t.Run("IRSA", func(t *testing.T) {
		i.irsa(t)
		i.project(t, "sts.amazonaws.com", time.Hour)
		got, arn := whoAmI(t, options)
		if arn != "arn:aws:sts::"+account+":assumed-role/runnerward/"+podUID || got.Source != "WebIdentityCredentials" || got.AccountID != account {
			t.Errorf("%s from %s of %s, want a session named after the pod", arn, got.Source, got.AccountID)
		}
	})
	t.Run("EKS Pod Identity", func(t *testing.T) {
		agent := httptest.NewServer(i.sim.PodIdentityAgent())
		t.Cleanup(agent.Close)
		i.podIdentity(t, agent.URL+"/v1/credentials")
		i.project(t, "pods.eks.amazonaws.com", time.Hour)
		got, arn := whoAmI(t, options)
		if !strings.HasPrefix(arn, "arn:aws:sts::"+account+":assumed-role/runnerward/eks-prod-runnerward-0-") || got.Source != "CredentialsEndpointProvider" {
			t.Errorf("%s from %s, want a session of Pod Identity", arn, got.Source)
		}
	})
}

// TestCredentialsDoNotComeFromTheService: S3 at an endpoint of its own was asked
// for the role too, and knows nothing of roles.
func TestCredentialsDoNotComeFromTheService(t *testing.T) {
	i := newIdentity(t, 0)
	i.irsa(t)
	i.project(t, "sts.amazonaws.com", time.Hour)
	general := httptest.NewTLSServer(i.sim)
	t.Cleanup(general.Close)
	var asked []string
	var mu sync.Mutex
	service := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.FormValue("Action"))
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(service.Close)
	roots := x509.NewCertPool()
	roots.AddCert(general.Certificate())
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: service.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL_EC2", "https://elsewhere.example") // the configuration's own word counts
	cfg, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{
		Region: region, Endpoint: general.URL, RootCAs: roots, Service: &hosts.Service{Endpoint: service.URL, CAFile: caFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cfg.Credentials.Retrieve(t.Context()); err != nil || got.Source != "WebIdentityCredentials" {
		t.Errorf("credentials from %s, %v, want those of the role", got.Source, err)
	}
	_, err = ec2.NewFromConfig(cfg).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if status := statusOf(err); status != http.StatusForbidden {
		t.Errorf("DescribeInstances = %v, want the service's refusal", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(asked, []string{"DescribeInstances"}) {
		t.Errorf("the service was asked for %q, want DescribeInstances alone", asked)
	}
}

// statusOf is the HTTP status of an answer that is an error, 0 of no answer.
func statusOf(err error) int {
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	return 0
}

func TestARefusedRoleIsAnError(t *testing.T) {
	i := newIdentity(t, 0)
	i.irsa(t)
	i.project(t, "somebody-else", time.Hour)
	cfg, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{
		Region: region, Endpoint: "https://aws.example", HTTPClient: &http.Client{Transport: inProcess{i.sim}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ec2.NewFromConfig(cfg).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if code(err) != "InvalidIdentityToken" {
		t.Errorf("DescribeInstances = %v, want InvalidIdentityToken", err)
	}
}

func TestASilentAgentCostsOneResponseTimeout(t *testing.T) {
	i := newIdentity(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.sim.PodIdentityAgent().ServeHTTP(w, r)
		// The client gave up by itself; spare the test the repetitions.
		cancel()
	}))
	t.Cleanup(func() {
		agent.CloseClientConnections()
		agent.Close()
	})
	i.podIdentity(t, agent.URL+"/v1/credentials")
	i.project(t, "pods.eks.amazonaws.com", time.Hour)
	cfg, err := hosts.LoadConfig(ctx, hosts.ConfigOptions{Region: region, ResponseTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	i.sim.Inject(simaws.Fault{Action: "AssumeRoleForPodIdentity", Kind: simaws.Hang})
	_, err = cfg.Credentials.Retrieve(ctx)
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("Retrieve = %v with %v, want the response timeout, not the call's deadline", err, ctx.Err())
	}
}

// inMemory is AWS behind TLS, and the agent of Pod Identity on 127.0.0.1
// without, on a network that a bubble's clock knows.
func inMemory(t *testing.T, sim *simaws.Server, pair tls.Certificate) *http.Client {
	t.Helper()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	service, agent := memnet.Listen(), memnet.Listen()
	server := &http.Server{Handler: sim, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	var ended sync.WaitGroup
	ended.Go(func() { _ = server.ServeTLS(service, "", "") })
	stopAgent := agent.Serve(sim.PodIdentityAgent())
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "127.0.0.1:80" {
				return agent.DialContext(ctx, network, address)
			}
			return service.DialContext(ctx, network, address)
		},
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stopAgent()
		_ = server.Close()
		ended.Wait()
	})
	return &http.Client{Transport: detached{transport}}
}

// detached gives the transport a body of its own. The SDK closes its body once
// an answer begins, and over a pipe an answer may begin while the transport
// still looks for the body's end.
type detached struct{ transport http.RoundTripper }

func (d detached) RoundTrip(out *http.Request) (*http.Response, error) {
	if out.Body == nil || out.Body == http.NoBody {
		return d.transport.RoundTrip(out)
	}
	body, err := io.ReadAll(out.Body)
	if err != nil {
		return nil, err
	}
	out = out.Clone(out.Context())
	out.Body = io.NopCloser(bytes.NewReader(body))
	return d.transport.RoundTrip(out)
}

// certificate is httptest's, valid for example.com since 1970: a bubble begins
// in the year 2000.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	return srv.TLS.Certificates[0]
}

func TestCredentialsAreRenewedBeforeTheyExpire(t *testing.T) {
	pair := certificate(t)
	for _, tt := range []struct {
		name, audience string
		use            func(identity, *testing.T)
		life           time.Duration
	}{
		{"IRSA", "sts.amazonaws.com", identity.irsa, time.Hour},
		{"EKS Pod Identity", "pods.eks.amazonaws.com", func(i identity, t *testing.T) {
			i.podIdentity(t, "http://127.0.0.1/v1/credentials")
		}, 20 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newIdentity(t, tt.life)
			tt.use(i, t)
			synctest.Test(t, func(t *testing.T) {
				i.sim.AddGroup(testGroup())
				cfg, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{
					Region: region, Endpoint: "https://example.com", HTTPClient: inMemory(t, i.sim, pair),
				})
				if err != nil {
					t.Fatal(err)
				}
				i.project(t, tt.audience, tt.life)
				client := ec2.NewFromConfig(cfg)
				keys := map[string][]time.Duration{}
				start := time.Now()
				for range 3 * int(tt.life/time.Minute) {
					if _, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{}); err != nil {
						t.Fatalf("after %s: %v", time.Since(start), err)
					}
					used, err := cfg.Credentials.Retrieve(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					keys[used.AccessKeyID] = append(keys[used.AccessKeyID], time.Since(start))
					wait(t, time.Minute)
					// The kubelet renews the token; the first one would be too
					// old for the second renewal.
					i.project(t, tt.audience, tt.life)
				}
				if len(keys) != 4 {
					t.Errorf("%d keys in three lives, want 4", len(keys))
				}
				for key, at := range keys {
					if used := at[len(at)-1] - at[0]; used >= tt.life-4*time.Minute {
						t.Errorf("%s was used for %s of %s, want it renewed 5 minutes before its end", key, used, tt.life)
					}
				}
			})
		})
	}
}

func TestAPauseOfSTSStopsNothingThatAWSWouldAccept(t *testing.T) {
	i := newIdentity(t, 0)
	i.irsa(t)
	synctest.Test(t, func(t *testing.T) {
		i.project(t, "sts.amazonaws.com", 24*time.Hour)
		cfg, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{
			Region: region, Endpoint: "https://aws.example", HTTPClient: &http.Client{Transport: inProcess{i.sim}},
		})
		if err != nil {
			t.Fatal(err)
		}
		client := ec2.NewFromConfig(cfg)
		describe := func() error {
			_, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
			return err
		}
		if err := describe(); err != nil {
			t.Fatal(err)
		}
		wait(t, 55*time.Minute)
		i.sim.Inject(simaws.Fault{Action: "AssumeRoleWithWebIdentity", Kind: simaws.Throttle, Count: 1000})
		for second := range 300 {
			if err := describe(); err != nil {
				t.Fatalf("%d s into the last five minutes: %v", second, err)
			}
			wait(t, time.Second)
		}
		tried := len(slices.DeleteFunc(actions(i.sim), func(a string) bool { return a != "AssumeRoleWithWebIdentity Throttling" }))
		if tried < 10 || tried > 20 {
			t.Errorf("%d renewals in five minutes, want one in 20 s", tried)
		}
		if err := describe(); code(err) != "Throttling" {
			t.Errorf("after the end of the credentials: %v, want the reason why there are none", err)
		}
	})
}

func TestEC2CallsAnExpiredSessionAnExpiredRequest(t *testing.T) {
	i := newIdentity(t, 0)
	i.irsa(t)
	synctest.Test(t, func(t *testing.T) {
		i.project(t, "sts.amazonaws.com", time.Hour)
		cfg, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{
			Region: region, Endpoint: "https://aws.example", HTTPClient: &http.Client{Transport: inProcess{i.sim}},
		})
		if err != nil {
			t.Fatal(err)
		}
		session, err := cfg.Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Credentials = credentials.StaticCredentialsProvider{Value: session}
		for _, want := range []string{"", "RequestExpired"} {
			_, err := ec2.NewFromConfig(cfg).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
			if code(err) != want || want == "" && err != nil {
				t.Errorf("DescribeInstances at %s = %v, want %q", time.Now(), err, want)
			}
			wait(t, time.Hour)
		}
	})
}

// recorder answers nothing and remembers for whom requests were.
type recorder struct {
	mu    sync.Mutex
	hosts []string
}

func (r *recorder) RoundTrip(out *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts = append(r.hosts, out.URL.Scheme+"://"+out.URL.Host)
	return nil, fmt.Errorf("no network in tests")
}

func TestFIPSEndpointsAreThoseOfTheServices(t *testing.T) {
	newIdentity(t, 0)
	t.Setenv("AWS_ACCESS_KEY_ID", keyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", keySecret)
	t.Setenv("AWS_USE_FIPS_ENDPOINT", "true")
	for _, tt := range []struct {
		region string
		want   []string
	}{
		{"us-east-1", []string{
			"https://ec2-fips.us-east-1.amazonaws.com", "https://autoscaling-fips.us-east-1.amazonaws.com", "https://kms-fips.us-east-1.amazonaws.com",
			"https://sts-fips.us-east-1.amazonaws.com", "https://bucket.s3-fips.us-east-1.amazonaws.com",
		}},
		// GovCloud's plain names are FIPS endpoints, but for KMS and S3.
		{"us-gov-west-1", []string{
			"https://ec2.us-gov-west-1.amazonaws.com", "https://autoscaling.us-gov-west-1.amazonaws.com", "https://kms-fips.us-gov-west-1.amazonaws.com",
			"https://sts.us-gov-west-1.amazonaws.com", "https://bucket.s3-fips.us-gov-west-1.amazonaws.com",
		}},
	} {
		seen := &recorder{}
		cfg, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{Region: tt.region, HTTPClient: &http.Client{Transport: seen}})
		if err != nil {
			t.Fatal(err)
		}
		calls := []func() error{
			func() error {
				_, err := ec2.NewFromConfig(cfg).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
				return err
			},
			func() error {
				_, err := autoscaling.NewFromConfig(cfg).DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{})
				return err
			},
			func() error {
				_, err := kms.NewFromConfig(cfg).GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String("alias/app")})
				return err
			},
			func() error {
				_, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
				return err
			},
			func() error {
				_, err := s3.NewFromConfig(cfg).HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("bucket")})
				return err
			},
		}
		for _, call := range calls {
			if call() == nil {
				t.Error("a call succeeded without a network")
			}
		}
		if !slices.Equal(seen.hosts, tt.want) {
			t.Errorf("%s: requests went to %v, want %v", tt.region, seen.hosts, tt.want)
		}
	}
}

func TestEndpointsThatTheSDKWouldRefuseOrPassOver(t *testing.T) {
	const custom = "https://vpce-1.ec2.us-east-1.vpce.amazonaws.com"
	profile := filepath.Join(t.TempDir(), "config")
	text := "[default]\nuse_fips_endpoint = true\nservices = own\n[services own]\nkms =\n  endpoint_url = " + custom + "\n"
	if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fips := map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}
	for name, tt := range map[string]struct {
		env      map[string]string
		endpoint string
		want     []string
	}{
		"FIPS and our endpoint":           {fips, custom, []string{custom, "hosts.endpoint", "AWS_USE_FIPS_ENDPOINT=false", "https://ec2-fips.us-east-1.amazonaws.com"}},
		"FIPS and an endpoint for all":    {map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_ENDPOINT_URL": custom}, "", []string{custom}},
		"FIPS and an endpoint for one":    {map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_ENDPOINT_URL_AUTO_SCALING": custom}, "", []string{custom + " for Auto Scaling"}},
		"both of a profile":               {map[string]string{"AWS_CONFIG_FILE": profile}, "", []string{custom + " for KMS"}},
		"an endpoint that is passed over": {map[string]string{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, custom, []string{custom, "unset it"}},
		"FIPS and an ignored endpoint": {map[string]string{
			"AWS_USE_FIPS_ENDPOINT": "true", "AWS_ENDPOINT_URL_EC2": custom, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
		}, "", nil},
		"FIPS alone":                    {fips, "", nil},
		"an endpoint alone":             {nil, custom, nil},
		"an endpoint and FIPS off":      {map[string]string{"AWS_USE_FIPS_ENDPOINT": "false"}, custom, nil},
		"an environment over a profile": {map[string]string{"AWS_CONFIG_FILE": profile, "AWS_USE_FIPS_ENDPOINT": "false"}, custom, nil},
	} {
		t.Run(name, func(t *testing.T) {
			newIdentity(t, 0)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			_, err := hosts.LoadConfig(t.Context(), hosts.ConfigOptions{Region: region, Endpoint: tt.endpoint})
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("LoadConfig = %v, want %v", err, tt.want)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("LoadConfig = %v, want %q in it", err, part)
				}
			}
		})
	}
}
