package agent

import (
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// FuzzAnswers: whatever comes for an answer, nothing panics, an answer that is
// let through is one that was agreed, and no error repeats what may be a secret.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, "\xff", `{"verdict":"allowed","reasons":[],"record":"sha256:` + strings.Repeat("a", 64) + `"}`,
		`{"verdict":"refused","reasons":["x"]}`, `{"jitConfig":"aGVsbG8=","bound":"sha256:` + strings.Repeat("b", 64) + `"}`,
		`{"error":"no","final":true}`, `{"error":"later","final":false}`,
		"e30.eyJpYXQiOjEsImV4cCI6MzAxfQ.c2ln", "e30.eyJpYXQiOjk5OTk5OTk5OTk5OTk5OTk5OTksImV4cCI6LTF9.", "a.b.c", "..",
	} {
		f.Add(200, []byte(seed))
		f.Add(409, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var claim wire.ClaimAnswer
		if err := decode(body, &claim); err == nil && (claim.JITConfig == "" || wire.CheckDigest(claim.Bound) != nil) {
			t.Errorf("%q was taken for %+v", body, claim)
		} else if err != nil && len(body) > 16 && strings.Contains(err.Error(), string(body)) {
			t.Errorf("the error repeats the answer: %v", err)
		}
		var start wire.StartAnswer
		if err := decode(body, &start); err == nil && start.Check() != nil {
			t.Errorf("%q was taken for %+v", body, start)
		}
		if err := refusalOf(status, body); err == nil {
			t.Errorf("status %d with %q is no refusal", status, body)
		}
		if d := lifetime(string(body)); d < 0 || d.Hours() > 1 {
			t.Errorf("lifetime(%q) = %s", body, d)
		}
	})
}
