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
	serviceEC2         = "ec2"
	serviceAutoScaling = "autoscaling"

	algorithm = "AWS4-HMAC-SHA256"
	amzDate   = "20060102T150405Z"
	// maxSkew: "the request must reach AWS within five minutes of the time
	// stamp in the request".
	maxSkew = 5 * time.Minute
)

// authentication is for which service a request was signed, and what is wrong
// with it.
type authentication struct {
	service string
	err     *apiError
}

// credential is the parsed Authorization header.
type credential struct {
	key, date, region, service string
	headers                    []string
	signature                  string
}

func (s *Server) authenticate(r *http.Request, body []byte, now time.Time) authentication {
	c, ok := parseAuthorization(r.Header.Get("Authorization"))
	if !ok {
		return authentication{serviceEC2, &apiError{http.StatusForbidden, "MissingAuthenticationToken",
			"Request is missing Authentication Token"}}
	}
	service := c.service
	if service != serviceAutoScaling {
		service = serviceEC2
	}
	return authentication{service, s.checkSignature(r, body, c, now)}
}

func (s *Server) checkSignature(r *http.Request, body []byte, c credential, now time.Time) *apiError {
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	switch {
	case c.service != serviceEC2 && c.service != serviceAutoScaling:
		return refuseSignature(c.service, "Credential should be scoped to correct service.")
	case c.region != s.cfg.Region:
		return refuseSignature(c.service, "Credential should be scoped to a valid region.")
	case err != nil || !strings.HasPrefix(r.Header.Get("X-Amz-Date"), c.date):
		return refuseSignature(c.service, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	case at.Sub(now).Abs() > maxSkew:
		return &apiError{http.StatusBadRequest, "RequestExpired", "Request has expired."}
	case c.key != s.cfg.AccessKeyID && c.service == serviceAutoScaling:
		return &apiError{http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid."}
	case !slices.Contains(c.headers, "host") || !slices.Contains(c.headers, "x-amz-date"):
		return refuseSignature(c.service, "'Host' and 'X-Amz-Date' must be signed")
	}
	want := signature(r, body, c, s.cfg.SecretAccessKey)
	if c.key != s.cfg.AccessKeyID || !hmac.Equal([]byte(want), []byte(c.signature)) {
		return refuseSignature(c.service, "The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

// refuseSignature: EC2 says AuthFailure for every credential that it cannot
// validate, the other services say SignatureDoesNotMatch.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
func refuseSignature(service, message string) *apiError {
	if service == serviceAutoScaling {
		return &apiError{http.StatusForbidden, "SignatureDoesNotMatch", message}
	}
	return &apiError{http.StatusUnauthorized, "AuthFailure", "AWS was not able to validate the provided access credentials"}
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
	b.WriteString(r.Method + "\n" + cmp.Or(r.URL.EscapedPath(), "/") + "\n" + canonicalQuery(r.URL.Query()) + "\n")
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
