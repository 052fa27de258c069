package policy_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/runner"
)

func TestAnArchiveDecidesAsItsBundleDoes(t *testing.T) {
	first, err := policy.Load(defaultFiles(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := runner.DigestOf(first.Archive()); got != first.Digest() {
		t.Errorf("digest of the archive = %s, want the bundle's, %s", got, first.Digest())
	}
	again, err := policy.Open(first.Archive())
	if err != nil || again.Digest() != first.Digest() {
		t.Fatalf("Open(Archive) = %v, want the same bundle", err)
	}
	q := runner.Question{Schema: runner.QuestionSchema}
	want, err := first.Evaluate(t.Context(), q, q.Now)
	if err != nil || len(want) == 0 {
		t.Fatalf("reasons against an empty question = %q, %v, want some", want, err)
	}
	if got, err := again.Evaluate(t.Context(), q, q.Now); err != nil || !slices.Equal(got, want) {
		t.Errorf("reasons by the archive = %q, %v, want %q", got, err, want)
	}
}

func TestOtherBytesAreNoArchive(t *testing.T) {
	good, err := policy.Load(bundle("a.rego", allowAll, "b/data.json", `{"x":1}`))
	if err != nil {
		t.Fatal(err)
	}
	whole := good.Archive()
	first := []byte("6:a.rego71:" + allowAll)
	if !bytes.HasPrefix(whole, first) {
		t.Fatalf("archive = %.60q, want it to begin with %q", whole, first)
	}
	second := whole[len(first):]
	for name, b := range map[string][]byte{
		"nothing":                    nil,
		"cut off":                    whole[:len(whole)-1],
		"without a length":           []byte("a.rego"),
		"a length that is no plain":  append([]byte("+"), whole...),
		"a length with zeros":        append([]byte("0"), whole...),
		"only data":                  second,
		"a file twice":               slices.Concat(first, first),
		"in another order":           slices.Concat(second, first),
		"a file that does not count": []byte("5:READM0:" + string(first)),
		"a policy that is none":      []byte("6:a.rego4:what"),
	} {
		if _, err := policy.Open(b); err == nil {
			t.Errorf("Open(%s) = nil, want a refusal", name)
		}
	}
}
