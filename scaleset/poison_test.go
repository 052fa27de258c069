package scaleset

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// FuzzSalvage: whatever the queue says, nothing panics, and what is made of it
// has the shape of the log.
func FuzzSalvage(f *testing.F) {
	const item = `{\"messageType\":\"JobStarted\",\"jobId\":\"23b2785d-8345-5b9e-b726-a0e97794469f\",\"repositoryName\":\"app\",\"ownerName\":\"acme\",` +
		`\"workflowRunId\":7,\"requestLabels\":[\"x\"],\"queueTime\":\"2026-01-02T03:04:05Z\",\"runnerId\":11,\"runnerName\":\"r-1\"}`
	for _, seed := range []string{
		`{"messageId":1,"messageType":"RunnerScaleSetJobMessages","body":"[` + item + `]","statistics":{"totalAssignedJobs":1}}`,
		`{"messageId":1,"messageType":"RunnerScaleSetJobMessages","body":"[` + strings.Replace(item, "7", `\"x\"`, 1) + `]","statistics":null}`,
		`{"messageId":1,"messageType":"Other","body":""}`, `{"messageId":"1"}`, `null`, ``, "\xef\xbb\xbf{\"messageId\":3,\"body\":7}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		msg, _, err := salvage(body)
		if err != nil {
			return
		}
		if msg.MessageID <= 0 {
			t.Fatalf("salvage(%q) = message %d", body, msg.MessageID)
		}
		m, _ := convert(msg)
		for _, e := range m.Events {
			if err := runner.Validate(e); err != nil {
				t.Errorf("convert(%q): %+v: %v", body, e, err)
			}
		}
	})
}

// FuzzAnswer: whatever status, headers and error text come, what is kept of them
// is bounded, and what an error says of them is chosen by us.
func FuzzAnswer(f *testing.F) {
	f.Add(429, "7", "core", "5000", "4999", "1767323045", "Fri, 02 Jan 2026 03:04:05 GMT", `failed(status="429 Too Many Requests"): x`)
	f.Add(403, "", "actions_runner_registration", "-1", "0", "-9", "yesterday", `failed(status="409`)
	f.Add(200, "99999999999999999999", strings.Repeat("a", 99), "x", "", "1e9", "", "RunnerScaleSetSessionConflictException")
	f.Add(403, "-3", "a b\n", "9223372036854775808", "1", "9223372036854775807", "Mon", "")
	f.Fuzz(func(t *testing.T, status int, retryAfter, resource, limit, remaining, reset, date, text string) {
		tap := newTap(Config{})
		for range 3 {
			tap.note(&http.Response{StatusCode: status, Header: http.Header{
				"Retry-After": {retryAfter}, "X-Ratelimit-Resource": {resource}, "X-Ratelimit-Limit": {limit},
				"X-Ratelimit-Remaining": {remaining}, "X-Ratelimit-Reset": {reset}, "Date": {date},
			}})
		}
		if d := tap.patience(); d > time.Hour {
			t.Errorf("Retry-After %q makes us wait %s", retryAfter, d)
		}
		_, rates := tap.seen()
		if len(rates) > 1 {
			t.Errorf("%d limits from one name: %+v", len(rates), rates)
		}
		for _, r := range rates {
			if len(r.Resource) > 40 || strings.ContainsAny(r.Resource, " \n\"<") {
				t.Errorf("the limit is called %q", r.Resource)
			}
		}
		err := classify("poll", errors.New(text))
		if len(text) > 24 && strings.Contains(err.Error(), text) {
			t.Errorf("the error repeats the answer: %v", err)
		}
	})
}
