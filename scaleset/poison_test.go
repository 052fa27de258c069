package scaleset

import (
	"strings"
	"testing"

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
