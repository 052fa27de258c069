package main

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// TestAnAuditorsRoleComesThroughTheSameProxy: who must trust an authority of
// their own to reach S3 at AWS must trust it to reach STS as well.
func TestAnAuditorsRoleComesThroughTheSameProxy(t *testing.T) {
	b, c := fourStories(t), newCloud(t)
	c.keep(t, b)
	const issuer, subject = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF", "system:serviceaccount:audit:auditor"
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": issuer, "sub": subject, "aud": []string{"sts.amazonaws.com"}, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := simaws.New(simaws.Config{Region: "us-east-1", AccountID: s3Account, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "a secret of the test"})
	sim.AddIssuer(simaws.Issuer{URL: issuer, Keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "one"}}}})
	sts := httptest.NewTLSServer(sim)
	t.Cleanup(sts.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
		"AWS_ROLE_ARN":          sim.AddRole(simaws.Role{Name: "auditor", Issuer: issuer, Subject: subject}),
		"AWS_ROLE_SESSION_NAME": "audit", "AWS_WEB_IDENTITY_TOKEN_FILE": file,
		// What these name stands for AWS behind a proxy of the house.
		"AWS_ENDPOINT_URL_STS": sts.URL, "AWS_ENDPOINT_URL_S3": c.at.Endpoint,
	} {
		t.Setenv(name, value)
	}
	verify := []string{"verify", "--root", b.root, "--ledger", "s3://evidence/prod", "--region", c.at.Region, "--bucket-owner", s3Account}
	call(t, append(verify, "--ca-file", c.at.CAFile)...).want(t, exitOK, "no findings")
	if n := len(sim.Requests()); n == 0 {
		t.Error("STS was never asked")
	}
	call(t, verify...).want(t, exitUsage, "certificate")
}
