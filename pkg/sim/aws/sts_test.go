package simaws_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

const (
	issuerURL = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF"
	subject   = "system:serviceaccount:gha-runners:runnerward"
	roleName  = "runnerward"
)

// cluster signs tokens as a cluster's issuer does.
type cluster struct {
	key    *rsa.PrivateKey
	issuer simaws.Issuer
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "one", Algorithm: "RS256", Use: "sig"}}}
	return cluster{key, simaws.Issuer{URL: issuerURL, Keys: set}}
}

// claims of a token that is accepted, to spoil.
func claims() map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": issuerURL, "sub": subject, "aud": "sts.amazonaws.com", "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "gha-runners", "pod": map[string]string{"name": "runnerward-0"}, "serviceaccount": map[string]string{"name": "runnerward"},
		},
	}
}

func (c cluster) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: c.key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func assumeInput(arn, token string) *sts.AssumeRoleWithWebIdentityInput {
	return &sts.AssumeRoleWithWebIdentityInput{RoleArn: &arn, RoleSessionName: aws.String("pod-uid"), WebIdentityToken: &token}
}

func trusting(s *simaws.Server, c cluster) string {
	s.AddIssuer(c.issuer)
	return s.AddRole(simaws.Role{Name: roleName, Issuer: issuerURL, Subject: "system:serviceaccount:gha-*:runnerward"})
}

func TestTheCallerIsTheAccountsUser(t *testing.T) {
	s := newServer()
	out, err := sts.NewFromConfig(clientConfig(s)).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || *out.Account != account || *out.Arn != "arn:aws:iam::"+account+":user/operator" || !strings.HasPrefix(*out.UserId, "AIDA") {
		t.Errorf("GetCallerIdentity = %+v, %v, want the user", out, err)
	}
	s.Deny("sts:GetCallerIdentity", true)
	if _, err := sts.NewFromConfig(clientConfig(s)).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); err != nil {
		t.Errorf("GetCallerIdentity that is denied = %v, want success: it needs no permission", err)
	}
}

// probe calls every service with some credentials and returns their codes.
func probe(t *testing.T, s *simaws.Server, provider aws.CredentialsProvider) map[string]string {
	t.Helper()
	cfg := clientConfig(s)
	cfg.Credentials = provider
	_, stsErr := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	_, kmsErr := kms.NewFromConfig(cfg).DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/app")})
	_, ssmErr := ssm.NewFromConfig(cfg).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/own/parameter")})
	_, eksErr := eks.NewFromConfig(cfg).DescribeNodegroup(t.Context(), describe("prod", "pool"))
	_, iamErr := iam.NewFromConfig(cfg).GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String(roleName)})
	_, asgErr := autoscaling.NewFromConfig(cfg).DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{})
	return map[string]string{
		"sts": errorCode(stsErr), "kms": errorCode(kmsErr), "ssm": errorCode(ssmErr), "eks": errorCode(eksErr),
		"iam": errorCode(iamErr), "autoscaling": errorCode(asgErr),
	}
}

func expectCodes(t *testing.T, when string, got, want map[string]string) {
	t.Helper()
	for service, code := range got {
		if code != want[service] {
			t.Errorf("%s: %s answers %q, want %q", when, service, code, want[service])
		}
	}
}

func TestASessionIsGoodForEveryServiceUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newServer(), newCluster(t)
		arn := trusting(s, c)
		addKey(t, s, simaws.SpecP256, "alias/app")
		publish(s)
		nodegroup(s)
		cfg := clientConfig(s)
		cfg.Credentials = nil
		out, err := sts.NewFromConfig(cfg).AssumeRoleWithWebIdentity(t.Context(), assumeInput(arn, c.token(t, claims())))
		if err != nil {
			t.Fatal(err)
		}
		if *out.AssumedRoleUser.Arn != "arn:aws:sts::"+account+":assumed-role/runnerward/pod-uid" ||
			*out.SubjectFromWebIdentityToken != subject || *out.Audience != "sts.amazonaws.com" ||
			*out.Provider != "arn:aws:iam::"+account+":oidc-provider/"+strings.TrimPrefix(issuerURL, "https://") {
			t.Errorf("AssumeRoleWithWebIdentity = %+v", out)
		}
		got := out.Credentials
		if !strings.HasPrefix(*got.AccessKeyId, "ASIA") || len(*got.AccessKeyId) != 20 || !got.Expiration.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("credentials = %s until %s, want ASIA… for an hour", *got.AccessKeyId, got.Expiration)
		}
		session := credentials.NewStaticCredentialsProvider(*got.AccessKeyId, *got.SecretAccessKey, *got.SessionToken)
		expectCodes(t, "fresh", probe(t, s, session), nil)
		who, err := sts.NewFromConfig(aws.Config{
			Region: cfg.Region, HTTPClient: cfg.HTTPClient, BaseEndpoint: cfg.BaseEndpoint, Credentials: session,
		}).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		if err != nil || *who.Arn != *out.AssumedRoleUser.Arn || *who.UserId != *out.AssumedRoleUser.AssumedRoleId {
			t.Errorf("GetCallerIdentity of the session = %+v, %v", who, err)
		}
		wrong := map[string]string{
			"sts": "InvalidClientTokenId", "iam": "InvalidClientTokenId", "autoscaling": "InvalidClientTokenId",
			"kms": "UnrecognizedClientException", "ssm": "UnrecognizedClientException", "eks": "UnrecognizedClientException",
		}
		expectCodes(t, "without its token", probe(t, s, credentials.NewStaticCredentialsProvider(*got.AccessKeyId, *got.SecretAccessKey, "")), wrong)
		expectCodes(t, "with another token", probe(t, s, credentials.NewStaticCredentialsProvider(*got.AccessKeyId, *got.SecretAccessKey, "x")), wrong)
		expectCodes(t, "of nobody", probe(t, s, credentials.NewStaticCredentialsProvider("ASIANOBODY", "a-secret-of-nobody", "x")), wrong)
		expectCodes(t, "with another secret", probe(t, s, credentials.NewStaticCredentialsProvider(*got.AccessKeyId, "another-secret", *got.SessionToken)), map[string]string{
			"sts": "SignatureDoesNotMatch", "iam": "SignatureDoesNotMatch", "autoscaling": "SignatureDoesNotMatch",
			"kms": "InvalidSignatureException", "ssm": "InvalidSignatureException", "eks": "InvalidSignatureException",
		})
		pass(t, time.Hour-time.Second)
		expectCodes(t, "in its last second", probe(t, s, session), nil)
		pass(t, time.Second)
		expectCodes(t, "afterwards", probe(t, s, session), map[string]string{
			"sts": "ExpiredToken", "iam": "ExpiredToken", "autoscaling": "ExpiredToken",
			"kms": "ExpiredTokenException", "ssm": "ExpiredTokenException", "eks": "ExpiredTokenException",
		})
	})
}

// late sets a header that the signature does not cover.
type late struct{ next http.RoundTripper }

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Amz-Extra", "1")
	return l.next.RoundTrip(r)
}

func TestEveryHeaderOfAWSMustBeSigned(t *testing.T) {
	s := newServer()
	cfg := clientConfig(s)
	cfg.HTTPClient = &http.Client{Transport: late{inProcess{s}}}
	_, err := kms.NewFromConfig(cfg).DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/app")})
	if errorCode(err) != "InvalidSignatureException" || !strings.Contains(err.Error(), "X-Amz-Extra") {
		t.Errorf("DescribeKey = %v, want InvalidSignatureException for X-Amz-Extra", err)
	}
}

func pass(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

func TestTokensThatSTSRefuses(t *testing.T) {
	s, c, stranger := newServer(), newCluster(t), newCluster(t)
	arn := trusting(s, c)
	other := s.AddRole(simaws.Role{Name: "other", Issuer: "https://other.example", Subject: "*"})
	short := s.AddRole(simaws.Role{Name: "short", Issuer: issuerURL, Subject: subject, MaxSession: 20 * time.Minute})
	// A role for another audience, which the issuer is registered for too.
	c.issuer.Audiences = []string{"sts.amazonaws.com", "elsewhere"}
	s.AddIssuer(c.issuer)
	with := func(name string, value any) string {
		changed := claims()
		changed[name] = value
		if value == nil {
			delete(changed, name)
		}
		return c.token(t, changed)
	}
	good := c.token(t, claims())
	seconds := func(n int32) func(*sts.AssumeRoleWithWebIdentityInput) {
		return func(in *sts.AssumeRoleWithWebIdentityInput) { in.DurationSeconds = &n }
	}
	for name, tt := range map[string]struct {
		arn, token string
		change     func(*sts.AssumeRoleWithWebIdentityInput)
		want       string
	}{
		"good":                 {arn, good, nil, ""},
		"garbage":              {arn, "not-a-token", nil, "InvalidIdentityToken"},
		"without a signature":  {arn, "eyJhbGciOiJub25lIn0.e30.", nil, "InvalidIdentityToken"},
		"of an unknown issuer": {arn, with("iss", "https://evil.example"), nil, "InvalidIdentityToken"},
		"signed by a stranger": {arn, stranger.token(t, claims()), nil, "InvalidIdentityToken"},
		"for another audience": {arn, with("aud", "sts.amazon.com"), nil, "InvalidIdentityToken"},
		"for an audience that the role does not trust": {arn, with("aud", "elsewhere"), nil, "AccessDenied"},
		"without an expiry":                            {arn, with("exp", nil), nil, "InvalidIdentityToken"},
		"without a subject":                            {arn, with("sub", nil), nil, "InvalidIdentityToken"},
		"not valid yet":                                {arn, with("nbf", time.Now().Add(time.Hour).Unix()), nil, "InvalidIdentityToken"},
		"expired":                                      {arn, with("exp", time.Now().Add(-time.Second).Unix()), nil, "ExpiredTokenException"},
		"of another subject":                           {arn, with("sub", "system:serviceaccount:default:runnerward"), nil, "AccessDenied"},
		"for a role of another issuer":                 {other, good, nil, "AccessDenied"},
		"for no role":                                  {strings.Replace(arn, "role/", "role/not", 1), good, nil, "AccessDenied"},
		"for no ARN of a role":                         {"arn:aws:iam::" + account + ":user/operator", good, nil, "ValidationError"},
		"for a bad session name":                       {arn, good, func(in *sts.AssumeRoleWithWebIdentityInput) { in.RoleSessionName = aws.String("a b") }, "ValidationError"},
		"for less than 15 minutes":                     {arn, good, seconds(899), "ValidationError"},
		"for more than the role lets":                  {short, good, seconds(1201), "ValidationError"},
		"for as long as the role lets":                 {short, good, seconds(1200), ""},
	} {
		in := assumeInput(tt.arn, tt.token)
		if tt.change != nil {
			tt.change(in)
		}
		_, err := sts.NewFromConfig(clientConfig(s)).AssumeRoleWithWebIdentity(t.Context(), in)
		if errorCode(err) != tt.want {
			t.Errorf("a token %s = %v, want %q", name, err, tt.want)
		}
		if _, typed := errors.AsType[*types.InvalidIdentityTokenException](err); typed != (tt.want == "InvalidIdentityToken") {
			t.Errorf("a token %s: %T is not typed as %s", name, err, tt.want)
		}
		if _, typed := errors.AsType[*types.ExpiredTokenException](err); typed != (tt.want == "ExpiredTokenException") {
			t.Errorf("a token %s: %T is not typed as %s", name, err, tt.want)
		}
	}
	_, err := sts.NewFromConfig(clientConfig(s)).GetSessionToken(t.Context(), &sts.GetSessionTokenInput{})
	if errorCode(err) != "InvalidAction" {
		t.Errorf("GetSessionToken = %v, want InvalidAction", err)
	}
	for _, r := range s.Requests() {
		if strings.Contains(strings.Join(r.IDs, " "), good) {
			t.Errorf("the log holds a token: %+v", r)
		}
	}
}

func TestFaultsOfSTS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newServer(), newCluster(t)
		arn := trusting(s, c)
		client := sts.NewFromConfig(clientConfig(s))
		assume := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			defer cancel()
			_, err := client.AssumeRoleWithWebIdentity(ctx, assumeInput(arn, c.token(t, claims())))
			return err
		}
		faultsAreTold(t, s, "AssumeRoleWithWebIdentity", map[simaws.FaultKind]string{
			simaws.Throttle: "Throttling", simaws.Unavailable: "ServiceUnavailable",
			simaws.Unauthorized: "AccessDenied", simaws.Stale: "AccessDenied",
		}, assume)
		hangs(t, s, "AssumeRoleWithWebIdentity", assume)
	})
}

// ask is what a container does: GET with the token file's content.
func ask(t *testing.T, h http.Handler, token string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://169.254.170.23/v1/credentials", nil)
	r.Header.Set("Authorization", token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

func TestWhatThePodIdentityAgentRefuses(t *testing.T) {
	s, c, stranger := newServer(), newCluster(t), newCluster(t)
	pods := s.AddRole(simaws.Role{Name: "pods", Pods: true})
	plain := s.AddRole(simaws.Role{Name: "plain"})
	s.AddPodAssociation(simaws.PodAssociation{Cluster: "prod", Namespace: "gha-runners", ServiceAccount: "runnerward", RoleARN: pods}, c.issuer)
	s.AddPodAssociation(simaws.PodAssociation{Cluster: "prod", Namespace: "plain", ServiceAccount: "runnerward", RoleARN: plain}, c.issuer)
	agent := s.PodIdentityAgent()
	with := func(name string, value any) map[string]any {
		changed := claims()
		changed["aud"] = "pods.eks.amazonaws.com"
		changed[name] = value
		return changed
	}
	in := func(namespace string) map[string]any {
		return with("kubernetes.io", map[string]any{
			"namespace": namespace, "pod": map[string]string{"name": "p"}, "serviceaccount": map[string]string{"name": "runnerward"},
		})
	}
	for name, tt := range map[string]struct {
		token  string
		status int
		says   string
	}{
		"good":                {c.token(t, with("x", 1)), 200, `"AccessKeyId":"ASIA`},
		"no token":            {"", 400, "InvalidParameterException"},
		"a token for STS":     {c.token(t, claims()), 400, "InvalidTokenException"},
		"an expired token":    {c.token(t, with("exp", time.Now().Add(-time.Minute).Unix())), 400, "ExpiredTokenException"},
		"a stranger's token":  {stranger.token(t, with("x", 1)), 400, "InvalidTokenException"},
		"no association":      {c.token(t, in("default")), 404, "ResourceNotFoundException"},
		"a role not for pods": {c.token(t, in("plain")), 400, "AccessDeniedException"},
	} {
		if status, body := ask(t, agent, tt.token); status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s: %d %s, want %d with %s", name, status, body, tt.status, tt.says)
		}
	}
	good := c.token(t, with("x", 1))
	for kind, want := range map[simaws.FaultKind]int{
		simaws.Throttle: 429, simaws.Unavailable: 503, simaws.Unauthorized: 400, simaws.Stale: 404,
	} {
		s.Inject(simaws.Fault{Action: "AssumeRoleForPodIdentity", Kind: kind})
		if status, body := ask(t, agent, good); status != want {
			t.Errorf("under %s: %d %s, want %d", kind, status, body, want)
		}
	}
}
