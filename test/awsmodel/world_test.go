package awsmodel

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

const (
	keyID     = "AKIDEXAMPLE"
	keySecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	region    = "us-east-1"
	group     = "eks-pool-1"
	role      = "runnerward"
	issuerURL = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF"
	subject   = "system:serviceaccount:gha-runners:runnerward"
	parameter = "/aws/service/bottlerocket/aws-k8s-1.35/x86_64/latest/image_id"
)

// world is an account with one of everything, a client of every service and
// the last raw answer.
type world struct {
	sim      *simaws.Server
	last     answer
	instance string
	volume   string
	roleARN  string
	issuer   crypto.Signer

	ec2         *ec2.Client
	autoscaling *autoscaling.Client
	sts         *sts.Client
	iam         *iam.Client
	kms         *kms.Client
	ssm         *ssm.Client
	eks         *eks.Client
}

// RoundTrip carries a request to the simulator and keeps the answer.
func (w *world) RoundTrip(out *http.Request) (*http.Response, error) {
	in := out.Clone(out.Context())
	in.Host = out.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	w.sim.ServeHTTP(recorder, in)
	resp := recorder.Result()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	w.last = answer{status: resp.StatusCode, header: resp.Header, body: body}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := simaws.New(simaws.Config{AccessKeyID: keyID, SecretAccessKey: keySecret, Seed: 11, ShuttingDown: time.Hour, VolumeDeleting: time.Hour})
	s.AddGroup(simaws.Group{
		Name: group, Min: 1, Max: 9, Desired: 6, SubnetIDs: []string{"subnet-0aaaaaaaaaaaaaaaa", "subnet-0bbbbbbbbbbbbbbbb"},
		ImageID: "ami-0123456789abcdef0", ImageName: "bottlerocket-aws-k8s-1.35-x86_64-v1.57.0-5ed15786", ImageOwnerAlias: "amazon", ImageOwnerID: "111122223333",
		InstanceType: "m6i.large", Tags: map[string]string{"Compliance": "HIPAA"}, HTTPTokens: "required", HopLimit: 1, BootMode: "uefi",
		Profile: "arn:aws:iam::111122223333:instance-profile/nodes",
	})
	s.AddNodegroup(simaws.Nodegroup{
		Cluster: "prod", Name: "pool", Group: group, AMIType: "BOTTLEROCKET_x86_64", Labels: map[string]string{"pool": "hipaa"},
		Taints:  []simaws.NodegroupTaint{{Effect: "NO_EXECUTE", Key: "workload", Value: "runner"}},
		Version: "1.35", Release: "1.57.0-5ed15786", Role: "arn:aws:iam::111122223333:role/node",
	})
	s.AddNodegroup(simaws.Nodegroup{Cluster: "prod", Name: "lost", Group: "none", AMIType: "CUSTOM"})
	s.AddBottlerocket(simaws.Bottlerocket{
		Variant: "aws-k8s-1.35", Arch: "x86_64", Version: "1.57.0", Build: "5ed15786", ImageID: "ami-0123456789abcdef0", Latest: true,
	})
	s.AddIssuer(simaws.Issuer{URL: issuerURL, Keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: issuer.Public(), KeyID: "one"}}}})
	w := &world{sim: s, issuer: issuer, instance: s.Instances()[0].ID, volume: s.Instances()[0].Volumes[0]}
	w.roleARN = s.AddRole(simaws.Role{Name: role, Issuer: issuerURL, Subject: subject})
	for spec, alias := range map[string]string{simaws.SpecP256: "alias/p256", simaws.SpecEd25519: "alias/ed25519"} {
		if _, err := s.AddKey(simaws.Key{Spec: spec, Alias: alias}); err != nil {
			t.Fatal(err)
		}
	}
	w.connect()
	return w
}

func (w *world) connect() {
	cfg := aws.Config{
		Region: region, Credentials: credentials.NewStaticCredentialsProvider(keyID, keySecret, ""),
		HTTPClient: &http.Client{Transport: w}, BaseEndpoint: aws.String("https://aws.example"),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}
	w.ec2, w.autoscaling = ec2.NewFromConfig(cfg), autoscaling.NewFromConfig(cfg)
	w.sts, w.iam, w.kms = sts.NewFromConfig(cfg), iam.NewFromConfig(cfg), kms.NewFromConfig(cfg)
	w.ssm, w.eks = ssm.NewFromConfig(cfg), eks.NewFromConfig(cfg)
}

// token is one that the role trusts, if it has not expired.
func (w *world) token(life time.Duration) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: w.issuer, KeyID: "one"}}, nil)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(map[string]any{
		"iss": issuerURL, "sub": subject, "aud": "sts.amazonaws.com", "iat": time.Now().Unix(), "exp": time.Now().Add(life).Unix(),
	}).Serialize()
}
