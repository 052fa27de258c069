package simaws

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// versionSTS is the only version of the API that is spoken.
const versionSTS = "2011-06-15"

const assumeWithToken = "AssumeRoleWithWebIdentity"

// The durations that AssumeRoleWithWebIdentity knows: "a value from 900
// seconds (15 minutes) up to the maximum session duration setting for the
// role", and by default its sessions "last for one hour".
const (
	minSession     = 15 * time.Minute
	defaultSession = time.Hour
)

var (
	sessionNameShape = regexp.MustCompile(`\A[\w+=,.@-]{2,64}\z`)
	roleARNShape     = regexp.MustCompile(`\Aarn:aws:iam::(\d{12}):role/([\w+=,.@/-]+)\z`)
)

// sts runs one action of STS:
// https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html
func (s *Server) sts(c call, kind FaultKind, now time.Time) (any, error) {
	switch version := c.form.Get("Version"); {
	case c.action == "":
		return nil, &apiError{http.StatusBadRequest, "MissingAction", "The request is missing an action or a required parameter."}
	case c.action == "GetCallerIdentity" && version == versionSTS:
		return answerOf(c, callerIdentityResult{Arn: c.caller.arn, UserID: c.caller.userID, Account: s.cfg.AccountID}), nil
	case c.action == assumeWithToken && version == versionSTS:
		return s.assumeWithToken(c, kind, now)
	default:
		return nil, &apiError{http.StatusBadRequest, "InvalidAction", "Could not find operation " + c.action + " for version " + version}
	}
}

type callerIdentityResult struct {
	XMLName xml.Name `xml:"GetCallerIdentityResult"`
	Arn     string   `xml:"Arn"`
	UserID  string   `xml:"UserId"`
	Account string   `xml:"Account"`
}

type assumedResult struct {
	XMLName     xml.Name `xml:"AssumeRoleWithWebIdentityResult"`
	Subject     string   `xml:"SubjectFromWebIdentityToken"`
	Audience    string   `xml:"Audience"`
	RoleID      string   `xml:"AssumedRoleUser>AssumedRoleId"`
	RoleArn     string   `xml:"AssumedRoleUser>Arn"`
	AccessKeyID string   `xml:"Credentials>AccessKeyId"`
	Secret      string   `xml:"Credentials>SecretAccessKey"`
	Token       string   `xml:"Credentials>SessionToken"`
	Expiration  string   `xml:"Credentials>Expiration"`
	Provider    string   `xml:"Provider"`
}

// answerOf is an answer of STS or IAM.
func answerOf(c call, result any) response {
	return response{
		XMLName: xml.Name{Space: namespace(c.service), Local: c.action + "Response"}, Result: result, RequestID: c.id,
	}
}

// assumeWithToken exchanges a token of a registered issuer for the credentials
// of a session:
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
func (s *Server) assumeWithToken(c call, kind FaultKind, now time.Time) (any, error) {
	duration, err := s.assumeParameters(c)
	if err != nil {
		return nil, err
	}
	claims, refused := verify(c.form.Get("WebIdentityToken"), s.issuers, now)
	if refused != nil {
		return nil, refused
	}
	audience := claims.registered()
	r := s.roleByARN(c.form.Get("RoleArn"))
	// "Changes ... might not be immediately visible": a role that was made a
	// moment ago is refused like one that does not exist.
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventually-consistent
	if kind == Stale || r == nil || !r.trusts(claims.issuer.URL, claims.Subject, audience) {
		return nil, &apiError{http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"}
	}
	if duration > r.MaxSession {
		return nil, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	key, made := s.newSession(r, c.form.Get("RoleSessionName"), now.Add(duration))
	return answerOf(c, assumedResult{
		Subject: claims.Subject, Audience: audience, RoleID: made.who.userID, RoleArn: made.who.arn,
		AccessKeyID: key, Secret: made.secret, Token: made.token, Expiration: made.expires.UTC().Format(time.RFC3339),
		Provider: s.providerARN(claims.issuer.URL),
	}), nil
}

// assumeParameters checks the request's own constraints.
func (s *Server) assumeParameters(c call) (time.Duration, error) {
	for _, key := range []string{"RoleArn", "RoleSessionName", "WebIdentityToken"} {
		if err := required(c.form, key); err != nil {
			return 0, err
		}
	}
	name, arn := c.form.Get("RoleSessionName"), c.form.Get("RoleArn")
	switch {
	case !sessionNameShape.MatchString(name):
		return 0, validation("1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", name)
	case !roleARNShape.MatchString(arn):
		return 0, validation("%s is invalid", arn)
	}
	duration := defaultSession
	if text := c.form.Get("DurationSeconds"); text != "" {
		n, err := strconv.Atoi(text)
		duration = time.Duration(n) * time.Second
		if err != nil || duration < minSession || duration > 12*time.Hour {
			return 0, validation("1 validation error detected: Value '%s' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200", text)
		}
	}
	return duration, nil
}

// session is a set of temporary credentials, or with a zero expiry the key
// that the account was made with.
type session struct {
	secret, token string
	expires       time.Time
	who           principal
}

// principal is who signed a request.
type principal struct{ arn, userID string }

// newSession issues credentials: "the ASIA prefix identifies temporary
// access keys", and the user id of a session is "role-id:role-session-name".
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#principaltable
func (s *Server) newSession(r *role, name string, expires time.Time) (key string, made session) {
	key = "ASIA" + s.upper(16)
	made = session{
		secret: s.hex(40), token: "IQoJb3JpZ2luX2Vj" + s.hex(240), expires: expires,
		who: principal{
			arn:    fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", s.cfg.AccountID, r.Name, name),
			userID: r.id + ":" + name,
		},
	}
	s.sessions[key] = made
	return key, made
}

// credentialsOf are what requests signed with this key are checked against.
func (s *Server) credentialsOf(key string) (session, bool) {
	if key == s.cfg.AccessKeyID {
		return session{secret: s.cfg.SecretAccessKey, who: principal{
			arn:    "arn:aws:iam::" + s.cfg.AccountID + ":user/" + userName,
			userID: "AIDACKCEVSQ6C2EXAMPLE",
		}}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.sessions[key]
	return found, ok
}

// upper is n random characters of an identifier.
func (s *Server) upper(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[s.rng.IntN(len(letters))]
	}
	return string(b)
}

// maxSession is the role's own limit.
func (r Role) maxSession() time.Duration { return cmp.Or(r.MaxSession, defaultSession) }
