// Package s3test runs the ledger against a whole S3 server: versitygw, in this
// process, on a folder of the disk. It is a module of its own, so that the
// server is none of the daemon's dependencies.
//
// versitygw 1.8.0 differs from Amazon S3 in what the tests here keep away from:
//
//  1. A bucket's default retention is kept, and GetObjectRetention does not
//     tell of it. The ledger asks for mode and date with every object.
//  2. If-None-Match: * over a delete marker answers 412; S3 lets the put
//     succeed. The tests of the driver have that case.
//  3. A put with a lock and without a checksum is accepted; S3 answers 400.
//  4. Suspending the versions of a locked bucket answers 400, and not 409.
//  5. Bypassing GOVERNANCE needs a bucket policy even for the root user. The
//     ledger knows COMPLIANCE only.
//
// Beyond the list: deleting a key that never was leaves no delete marker, and
// the expected owner of a bucket is compared as the next test file shows.
package s3test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
)

const (
	accessKey, secretKey = "AKIDS3TESTEXAMPLE", "the secret of these tests"
	region               = "us-east-1"
	prefix               = "prod/runnerward"
)

// gateway is the one server of this process: versitygw allows no second one.
var gateway struct {
	endpoint, caFile string
	module           string // folder of the module under test
	cfg              aws.Config
	buckets          atomic.Int64
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	// Absolute paths, because the server changes the working folder.
	if gateway.module, err = filepath.Abs("../.."); err != nil {
		return 1, err
	}
	folder, err := os.MkdirTemp("", "s3test")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if err := start(ctx, folder, ended); err != nil {
		stop()
		return 1, err
	}
	code = m.Run()
	stop()
	return code, <-ended
}

// start serves buckets from the folder and returns when the server answers.
func start(ctx context.Context, folder string, ended chan error) error {
	for _, sub := range []string{"objects", "versions"} {
		if err := os.Mkdir(filepath.Join(folder, sub), 0o750); err != nil {
			return err
		}
	}
	pool, err := certificate(folder)
	if err != nil {
		return err
	}
	at, err := freeAddress()
	if err != nil {
		return err
	}
	backend, err := posix.New(filepath.Join(folder, "objects"), meta.XattrMeta{}, posix.PosixOpts{
		VersioningDir: filepath.Join(folder, "versions"),
	})
	if err != nil {
		return fmt.Errorf("open the server's folder, which must be on a file system with extended attributes: %w", err)
	}
	go func() {
		ended <- embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess: accessKey, RootUserSecret: secretKey, Region: region, Ports: []string{at},
			CertFile: filepath.Join(folder, "tls.crt"), KeyFile: filepath.Join(folder, "tls.key"),
			MaxConnections: 1000, MaxRequests: 500, MultipartMaxParts: 10000, Quiet: true, HealthPath: "/healthz", KeepAlive: true,
		})
	}()
	gateway.endpoint, gateway.caFile = "https://"+at, filepath.Join(folder, "tls.crt")
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 50,
	}}
	gateway.cfg = aws.Config{
		Region: region, BaseEndpoint: &gateway.endpoint, HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	}
	return ready(client, gateway.endpoint+"/healthz", ended)
}

// ready asks until the server answers or ended.
func ready(client *http.Client, url string, ended <-chan error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if resp, err := client.Get(url); err == nil {
			return resp.Body.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the server ended: %w", err)
		case <-tick.C:
		}
	}
	return errors.New("the server did not answer for ten seconds")
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// certificate makes the server's own, self-signed.
func certificate(folder string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "s3test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool, errors.Join(
		os.WriteFile(filepath.Join(folder, "tls.crt"), cert, 0o600),
		os.WriteFile(filepath.Join(folder, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}

// place is a pair of buckets of one test.
type place struct {
	bucket, view string
	client       *s3.Client
}

// newPlace makes buckets as docs/install.md does: one locked, one not.
func newPlace(t testing.TB) place {
	t.Helper()
	n := gateway.buckets.Add(1)
	p := place{
		bucket: fmt.Sprintf("evidence-%d", n), view: fmt.Sprintf("view-%d", n),
		client: s3.NewFromConfig(gateway.cfg, func(o *s3.Options) { o.UsePathStyle = true }),
	}
	p.make(t, p.bucket, true)
	p.make(t, p.view, false)
	return p
}

func (p place) make(t testing.TB, bucket string, locked bool) {
	t.Helper()
	if _, err := p.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket, ObjectLockEnabledForBucket: &locked}); err != nil {
		t.Fatal(err)
	}
}

func (p place) options() s3store.Options {
	return s3store.Options{
		Bucket: p.bucket, Prefix: prefix, ViewBucket: p.view, PathStyle: true, SlackDays: 30, MaxBackoff: 10 * time.Millisecond,
	}
}

func (p place) store() *s3store.Store { return s3store.New(gateway.cfg, p.options()) }

func (p place) open(testing.TB) ledger.Store { return p.store() }

func (p place) files(t testing.TB) fs.FS { return p.store().FS(t.Context()) }

// Overwrite puts without a condition, as somebody else would.
func (p place) Overwrite(t testing.TB, name string, data []byte) {
	t.Helper()
	_, err := p.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &p.bucket, Key: key(name), Body: strings.NewReader(string(data))})
	if err != nil {
		t.Fatal(err)
	}
}

// Hide deletes without a version.
func (p place) Hide(t testing.TB, name string) {
	t.Helper()
	if _, err := p.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &p.bucket, Key: key(name)}); err != nil {
		t.Fatal(err)
	}
}

func key(name string) *string { return aws.String(prefix + "/" + name) }

// versions are the ids of an object's versions, the newest first.
func (p place) versions(t testing.TB, name string) []types.ObjectVersion {
	t.Helper()
	out, err := p.client.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &p.bucket, Prefix: key(name)})
	if err != nil {
		t.Fatal(err)
	}
	return out.Versions
}
