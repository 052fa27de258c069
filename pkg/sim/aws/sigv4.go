package simaws

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4 as the service checks it:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const (
	algorithm = "AWS4-HMAC-SHA256"
	amzDate   = "20060102T150405Z"
	// maxSkew: "the request must reach AWS within five minutes of the time
	// stamp in the request".
	maxSkew = 5 * time.Minute
)

// credential is the parsed Authorization header.
type credential struct {
	key, date, region, service string
	headers                    []string
	signature                  string
}

// authenticate says who signed a request for this service.
func (s *Server) authenticate(r *http.Request, body []byte, service string, now time.Time) (principal, *apiError) {
	c, ok := parseAuthorization(r.Header.Get("Authorization"))
	if !ok {
		return principal{}, refuseCredentials(service, missingToken, "Request is missing Authentication Token")
	}
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	switch {
	case c.service != service:
		return principal{}, refuseCredentials(service, wrongSignature, "Credential should be scoped to correct service: '"+service+"'.")
	case c.region != s.signingRegion(service):
		return principal{}, refuseCredentials(service, wrongSignature, "Credential should be scoped to a valid region.")
	case err != nil || !strings.HasPrefix(r.Header.Get("X-Amz-Date"), c.date):
		return principal{}, refuseCredentials(service, wrongSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	case at.Sub(now).Abs() > maxSkew:
		return principal{}, refuseCredentials(service, tooOld, "Signature expired or not yet current: "+r.Header.Get("X-Amz-Date")+" is more than 5 min. from "+now.UTC().Format(amzDate))
	}
	known, found := s.credentialsOf(c.key)
	token := r.Header.Get("X-Amz-Security-Token")
	switch {
	case !found || !hmac.Equal([]byte(known.token), []byte(token)):
		return principal{}, refuseCredentials(service, unknownKey, "The security token included in the request is invalid.")
	case !slices.Contains(c.headers, "host") || !slices.Contains(c.headers, "x-amz-date"):
		return principal{}, refuseCredentials(service, wrongSignature, "'Host' and 'X-Amz-Date' must be signed")
	case unsignedHeader(r, c.headers) != "":
		return principal{}, refuseCredentials(service, wrongSignature, "'"+unsignedHeader(r, c.headers)+"' must be signed")
	case !hmac.Equal([]byte(signature(r, body, c, known.secret)), []byte(c.signature)):
		return principal{}, refuseCredentials(service, wrongSignature, "The request signature we calculated does not match the signature you provided.")
	case !known.expires.IsZero() && !now.Before(known.expires):
		return principal{}, refuseCredentials(service, expired, "The security token included in the request is expired")
	}
	return known.who, nil
}

// unsignedHeader is a header that should be signed and is not: "you must include
// ... any x-amz-* headers in the request". Tokens and targets are such headers.
func unsignedHeader(r *http.Request, signed []string) string {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && !slices.Contains(signed, strings.ToLower(name)) {
			return name
		}
	}
	return ""
}

// signingRegion: "IAM is a global service", signed for us-east-1 in the aws
// partition: https://docs.aws.amazon.com/general/latest/gr/iam-service.html
func (s *Server) signingRegion(service string) string {
	if service == serviceIAM {
		return "us-east-1"
	}
	return s.cfg.Region
}

// flaw is what is wrong with a request's credentials.
type flaw int

const (
	missingToken flaw = iota
	unknownKey
	wrongSignature
	tooOld
	expired
)

// refuseCredentials is the service's word for the flaw.
//
// EC2 says AuthFailure for every credential that it cannot validate, and
// RequestExpired also for credentials that have expired:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
//
// The words of the others are on their pages of common errors, such as
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html and
// https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html. STS,
// IAM and Auto Scaling answer ExpiredToken (github.com/aws/aws-cli#7870,
// github.com/cfn-sphere/cfn-sphere#55) where the JSON services answer
// ExpiredTokenException (github.com/getsops/sops#621).
func refuseCredentials(service string, what flaw, message string) *apiError {
	switch speaks(service) {
	case ec2Query:
		return map[flaw]*apiError{
			missingToken: {http.StatusForbidden, "MissingAuthenticationToken", message},
			tooOld:       {http.StatusBadRequest, "RequestExpired", "Request has expired."},
			expired:      {http.StatusBadRequest, "RequestExpired", "Request has expired."},
			unknownKey:   {http.StatusUnauthorized, "AuthFailure", "AWS was not able to validate the provided access credentials"},
			wrongSignature: {
				http.StatusUnauthorized, "AuthFailure", "AWS was not able to validate the provided access credentials",
			},
		}[what]
	case query:
		code := map[flaw]string{
			missingToken: "MissingAuthenticationToken", unknownKey: "InvalidClientTokenId",
			wrongSignature: "SignatureDoesNotMatch", tooOld: "RequestExpired", expired: "ExpiredToken",
		}[what]
		if what == tooOld {
			return &apiError{http.StatusBadRequest, code, "Request has expired."}
		}
		return &apiError{http.StatusForbidden, code, message}
	}
	status := http.StatusBadRequest
	if speaks(service) == restJSON {
		status = http.StatusForbidden
	}
	return &apiError{status, map[flaw]string{
		missingToken: "MissingAuthenticationTokenException", unknownKey: "UnrecognizedClientException",
		wrongSignature: "InvalidSignatureException", tooOld: "InvalidSignatureException", expired: "ExpiredTokenException",
	}[what], message}
}

func parseAuthorization(header string) (credential, bool) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return credential{}, false
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[k] = v
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return credential{}, false
	}
	return credential{
		key: scope[0], date: scope[1], region: scope[2], service: scope[3],
		headers:   strings.Split(fields["SignedHeaders"], ";"),
		signature: fields["Signature"],
	}, true
}

// signature is what the request's signature must be under this secret.
func signature(r *http.Request, body []byte, c credential, secret string) string {
	scope := strings.Join([]string{c.date, c.region, c.service, "aws4_request"}, "/")
	canonical := hexSum([]byte(canonicalRequest(r, body, c.headers)))
	toSign := strings.Join([]string{algorithm, r.Header.Get("X-Amz-Date"), scope, canonical}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{c.date, c.region, c.service, "aws4_request"} {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, toSign))
}

func canonicalRequest(r *http.Request, body []byte, signed []string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalPath(r.URL.EscapedPath()) + "\n" + canonicalQuery(r.URL.Query()) + "\n")
	for _, name := range signed {
		b.WriteString(name + ":" + canonicalHeader(r, name, len(body)) + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + hexSum(body))
	return b.String()
}

func canonicalHeader(r *http.Request, name string, length int) string {
	switch {
	case name == "host":
		return r.Host
	case name == "content-length":
		return strconv.Itoa(length)
	}
	var values []string
	for _, v := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(values, ",")
}

// canonicalPath encodes the path once more than the request does: "each path
// segment must be URI-encoded twice (except for Amazon S3 which only gets
// URI-encoded once)".
func canonicalPath(escaped string) string {
	segments := strings.Split(cmp.Or(escaped, "/"), "/")
	for i, segment := range segments {
		segments[i] = strings.ReplaceAll(url.QueryEscape(segment), "+", "%20")
	}
	return strings.Join(segments, "/")
}

func canonicalQuery(q url.Values) string {
	// Encode sorts by key; the only difference to RFC 3986 is the space.
	return strings.ReplaceAll(q.Encode(), "+", "%20")
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
