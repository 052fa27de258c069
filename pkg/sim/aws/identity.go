package simaws

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// userName is the IAM user whose key the account was made with.
	userName = "operator"
	// audienceSTS and audiencePods are for whom EKS has tokens made.
	audienceSTS  = "sts.amazonaws.com"
	audiencePods = "pods.eks.amazonaws.com"
)

// account is what there is besides instances and groups.
type account struct {
	issuers      map[string]Issuer // by URL
	roles        []*role
	sessions     map[string]session // by access key
	associations []PodAssociation
	podTokens    map[string]Issuer // the issuers of clusters, by URL
	keys         []*key
	aliases      map[string]*key // by name, without alias/
	parameters   map[string]parameter
	nodegroups   []Nodegroup
	denied       map[string]bool // permissions, such as kms:Sign
}

func newAccount() account {
	return account{
		issuers: map[string]Issuer{}, sessions: map[string]session{}, podTokens: map[string]Issuer{},
		aliases: map[string]*key{}, parameters: map[string]parameter{}, denied: map[string]bool{},
	}
}

// Issuer is an OpenID Connect provider: for STS one that is registered with
// IAM, for EKS Pod Identity the cluster's own.
type Issuer struct {
	URL string // with https://
	// Audiences are the client ids that are registered; sts.amazonaws.com if
	// there are none.
	Audiences []string
	// Keys are what its JWKS document holds.
	Keys jose.JSONWebKeySet
}

// AddIssuer registers a provider, as CreateOpenIDConnectProvider does. One
// with the same URL is replaced.
func (s *Server) AddIssuer(i Issuer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(i.Audiences) == 0 {
		i.Audiences = []string{audienceSTS}
	}
	s.issuers[i.URL] = i
}

// Deny takes a permission away from everybody, such as "kms:Sign" or
// "ec2:TerminateInstances", or gives it back.
func (s *Server) Deny(permission string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[permission] = on
}

// denial is the answer to a caller without the permission. "No permissions are
// required" for GetCallerIdentity: "if an administrator attaches a policy ...
// that explicitly denies access ..., you can still perform this operation".
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
func (s *Server) denial(c call) *apiError {
	permission := c.service + ":" + c.action
	if !s.denied[permission] || permission == "sts:GetCallerIdentity" {
		return nil
	}
	refusal := Fault{Kind: Unauthorized}.refusal(c.service)
	if c.service != serviceEC2 && c.caller.arn != "" {
		refusal.message = "User: " + c.caller.arn + " is not authorized to perform: " + permission
	}
	return refusal
}

// claims are those of a token that was verified.
type claims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct {
			Name string `json:"name"`
		} `json:"pod"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
	issuer Issuer
}

// registered is the audience of the token that its issuer is registered for.
func (c claims) registered() string {
	i := slices.IndexFunc(c.Audience, func(a string) bool { return slices.Contains(c.issuer.Audiences, a) })
	return c.Audience[i]
}

// verify checks a token as STS does, in the words that its clients report:
// github.com/aws-actions/configure-aws-credentials#280 (no provider),
// github.com/awslabs/amazon-eks-irsa-cfn#18 (audience) and
// github.com/awslabs/aws-orbit-workbench#771 (expiry). All but expiry is
// InvalidIdentityToken: "the web identity token that was passed could not be
// validated by Amazon Web Services".
func verify(token string, issuers map[string]Issuer, now time.Time) (claims, *apiError) {
	// "The token must be signed ... using either RSA keys (RS256, RS384, or
	// RS512) or ECDSA keys (ES256, ES384, or ES512)."
	parsed, err := jwt.ParseSigned(strings.TrimSpace(token), []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512,
	})
	var got claims
	if err != nil || parsed.UnsafeClaimsWithoutVerification(&got) != nil {
		return claims{}, invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	known := false
	if got.issuer, known = issuers[got.Issuer]; !known {
		return claims{}, invalidToken("No OpenIDConnect provider found in your account for " + got.Issuer)
	}
	if parsed.Claims(got.issuer.Keys, &got) != nil {
		return claims{}, invalidToken("Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements")
	}
	switch {
	case got.Expiry == nil || got.IssuedAt == nil || got.Subject == "" || len(got.Audience) == 0:
		return claims{}, invalidToken("Missing a required claim")
	case !now.Before(got.Expiry.Time()):
		return claims{}, &apiError{http.StatusBadRequest, "ExpiredTokenException", fmt.Sprintf(
			"Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), got.Expiry.Time().Unix())}
	case got.IssuedAt.Time().After(now.Add(maxSkew)), got.NotBefore != nil && got.NotBefore.Time().After(now.Add(maxSkew)):
		return claims{}, invalidToken("The token is not valid yet")
	case !slices.ContainsFunc(got.Audience, func(a string) bool { return slices.Contains(got.issuer.Audiences, a) }):
		return claims{}, invalidToken("Incorrect token audience")
	}
	return got, nil
}

func invalidToken(message string) *apiError {
	return &apiError{http.StatusBadRequest, "InvalidIdentityToken", message}
}
