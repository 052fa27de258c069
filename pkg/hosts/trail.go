package hosts

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/runnerward/runnerward/pkg/runner"
)

// trail collects the requests that one call makes, retries included: each has a
// request id of its own in CloudTrail, and credentials may be renewed between
// two of them.
type trail struct {
	call     string
	mu       sync.Mutex
	requests []runner.Request
}

type trailKey struct{}

// follow makes the requests under this context leave their trail.
func follow(ctx context.Context, call string) (context.Context, *trail) {
	t := &trail{call: call}
	return context.WithValue(ctx, trailKey{}, t), t
}

func (t *trail) made() []runner.Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests
}

// leaveTrail is run once for every attempt, after it was signed.
func leaveTrail(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("runnerward.Trail",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			t, followed := ctx.Value(trailKey{}).(*trail)
			if !followed {
				return next.HandleDeserialize(ctx, in)
			}
			q := runner.Request{Call: t.call, At: time.Now().UTC().Round(0), AccessKeyID: signedBy(in.Request)}
			out, meta, err := next.HandleDeserialize(ctx, in)
			q.RequestID, _ = awsmiddleware.GetRequestIDMetadata(meta)
			if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
				q.RequestID = e.ServiceRequestID()
			}
			if e, ok := errors.AsType[smithy.APIError](err); ok {
				q.Code = e.ErrorCode()
			} else if err != nil {
				q.Code = "NoAnswer"
			}
			t.mu.Lock()
			defer t.mu.Unlock()
			t.requests = append(t.requests, q)
			return out, meta, err
		}), middleware.Before)
}

var credentialScope = regexp.MustCompile(`Credential=([A-Z0-9]{1,128})/`)

// signedBy is the id of the key in the request's own signature, empty if it has
// none.
func signedBy(request any) string {
	r, ok := request.(*smithyhttp.Request)
	if !ok {
		return ""
	}
	m := credentialScope.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return ""
	}
	return m[1]
}

// sessions remember which session an access key is of. A key never changes
// its session.
type sessions struct {
	mu   sync.Mutex
	arns map[string]string
	// next is not before when STS is asked again after a failure.
	next time.Time
}

const (
	// sessionTimeout bounds what a termination may wait for STS: who we are is
	// known to CloudTrail anyway, by the key.
	sessionTimeout = 3 * time.Second
	// sessionRetry is the pause after STS did not answer.
	sessionRetry = 5 * time.Minute
	maxSessions  = 64
)

var sessionARN = regexp.MustCompile(`\Aarn:aws(-[a-z]+)*:(sts|iam)::[0-9]{12}:[A-Za-z0-9/_+=,.@:-]{1,400}\z`)

func (s *sessions) of(key string) (arn string, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	arn, known = s.arns[key]
	return arn, known
}

func (s *sessions) mayAsk(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !now.Before(s.next)
}

func (s *sessions) learned(key, arn string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "" || !sessionARN.MatchString(arn) {
		s.next = now.Add(sessionRetry)
		return
	}
	if len(s.arns) >= maxSessions {
		s.arns = map[string]string{}
	}
	s.arns[key] = arn
}

// identify asks STS who we are, unless that is known of this key. An empty key
// means whichever signs now. It never fails: what is not learned stays unknown.
func (m *machines) identify(ctx context.Context, key string) {
	if _, known := m.sessions.of(key); known || !m.sessions.mayAsk(time.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	ctx, t := follow(ctx, "sts:GetCallerIdentity")
	out, err := m.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	signed, arn := "", ""
	if made := t.made(); err == nil && len(made) > 0 {
		signed, arn = made[len(made)-1].AccessKeyID, strings.TrimSpace(aws.ToString(out.Arn))
	}
	m.sessions.learned(signed, arn, time.Now())
}

// named adds the sessions that are known to the requests.
func (m *machines) named(ctx context.Context, requests []runner.Request) []runner.Request {
	for i, q := range requests {
		m.identify(ctx, q.AccessKeyID)
		requests[i].Session, _ = m.sessions.of(q.AccessKeyID)
	}
	return requests
}
