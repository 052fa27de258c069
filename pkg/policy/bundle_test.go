package policy_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var _ supervisor.Policy = (*policy.Bundle)(nil)

const allowAll = `package runnerward.admission

violations := set()

decision := "allow"
`

// bundle is a file system of alternating names and contents.
func bundle(parts ...string) fstest.MapFS {
	out := fstest.MapFS{}
	for pair := range slices.Chunk(parts, 2) {
		out[pair[0]] = &fstest.MapFile{Data: []byte(pair[1])}
	}
	return out
}

// sources are the Rego files of the default policy, without their tests.
func sources(t *testing.T) map[string]string {
	t.Helper()
	fsys, out := defaultFiles(t), map[string]string{}
	names, err := fs.Glob(fsys, "*.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.rego") {
			out[name] = string(b)
		}
	}
	return out
}

func TestABundleThatDoesNotCompileSaysWhere(t *testing.T) {
	const pkg = "package runnerward.admission\n\n"
	for name, c := range map[string]struct {
		files fs.FS
		want  []string
	}{
		"no policy at all":     {bundle("README.md", "x"), []string{"no .rego file"}},
		"only tests":           {bundle("a_test.rego", allowAll), []string{"no .rego file"}},
		"a syntax error":       {bundle("a.rego", pkg+"decision := \n"), []string{"a.rego:4: unexpected eof"}},
		"old Rego":             {bundle("a.rego", pkg+"deny[x] { x := 1 }\n"), []string{"a.rego:3:"}},
		"two files, two slips": {bundle("a.rego", pkg+"x if nope\n", "b.rego", pkg+"\ny if nada\n"), []string{"a.rego:3:", "nope", "b.rego:4:", "nada"}},
		"an unused variable":   {bundle("a.rego", pkg+"x if { y := 1 }\n"), []string{"a.rego:3: assigned var y unused"}},
		"data that is a list":  {bundle("a.rego", allowAll, "data.json", "[1]"), []string{"data.json:", "want one JSON object"}},
		"data in two pieces":   {bundle("a.rego", allowAll, "data.json", "{} {}"), []string{"data.json:", "more than one"}},
		"data over the rules":  {bundle("a.rego", allowAll, "runnerward/admission/data.json", `{"decision":"allow"}`), []string{"root of the rules"}},
		"data twice":           {bundle("a.rego", allowAll, "data.json", `{"x":{"y":1}}`, "x/data.json", `{"y":2}`), []string{"x/data.json:", `"y" is defined twice`}},
		"a huge file":          {bundle("a.rego", strings.Repeat("#", 1<<20+1)), []string{"a.rego:", "at most"}},
	} {
		_, err := policy.Load(c.files)
		if err == nil {
			t.Errorf("%s: Load = nil, want an error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: Load = %q, want it to say %q", name, err, want)
			}
		}
	}
}

func TestForbiddenBuiltinsDoNotCompile(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "https://example.com"})`, `net.lookup_ip_addr("example.com")`,
		`opa.runtime()`, `rand.intn("x", 5)`, `uuid.rfc4122("x")`,
	} {
		name, _, _ := strings.Cut(call, "(")
		_, err := policy.Load(bundle("a.rego", allowAll+"\nx := "+call+"\n"))
		if err == nil || !strings.Contains(err.Error(), "a.rego:7: undefined function "+name) {
			t.Errorf("Load(%s) = %v, want an undefined function at a.rego:7", name, err)
		}
	}
	for _, b := range policy.Capabilities().Builtins {
		if b.IsNondeterministic() && b.Name != "time.now_ns" {
			t.Errorf("builtin %s is allowed although its answer depends on more than the question", b.Name)
		}
	}
}

func TestAnythingButAWellFormedVerdictIsAnError(t *testing.T) {
	const pkg = "package runnerward.admission\n\n"
	for name, c := range map[string]struct{ source, want string }{
		"a misnamed package":          {strings.Replace(allowAll, "admission", "admision", 1), "undefined"},
		"no decision":                 {pkg + "violations := set()", "undefined"},
		"no violations":               {pkg + `decision := "allow"`, "undefined"},
		"an undefined decision":       {pkg + "violations := set()\n\n" + `decision := "allow" if input.nothing`, "undefined"},
		"a map for a set":             {pkg + `violations["x"] := true` + "\n\n" + `decision := "deny"`, "want a set"},
		"an empty map":                {pkg + "violations := {}\n\n" + `decision := "allow"`, "want a set"},
		"a boolean":                   {pkg + "violations := false\n\n" + `decision := "allow"`, "want a set"},
		"free text":                   {pkg + `violations := {"Ms Doe is late"}` + "\n\n" + `decision := "deny"`, "shape"},
		"a number among codes":        {pkg + "violations := {1}\n\n" + `decision := "deny"`, "shape"},
		"allowed against reasons":     {pkg + `violations := {"x"}` + "\n\n" + `decision := "allow"`, "decision is allow with 1"},
		"denied without a reason":     {pkg + "violations := set()\n\n" + `decision := "deny"`, "decision is deny with 0"},
		"a decision that is true":     {pkg + "violations := set()\n\ndecision := true", "decision is true"},
		"a builtin that fails":        {pkg + "violations := set() if time.parse_rfc3339_ns(input.pool.group) > 0\n\n" + `decision := "allow"`, "evaluate policy"},
		"two values for one decision": {allowAll + "\n" + `decision := "deny" if input.gate`, "evaluate policy"},
	} {
		b, err := policy.Load(bundle("a.rego", c.source+"\n"))
		if err != nil {
			t.Errorf("%s: Load = %v, want nil", name, err)
			continue
		}
		got, err := b.Evaluate(t.Context(), good(runner.GateAdmission), now)
		if got != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Evaluate = %v, %v, want an error that says %q", name, got, err, c.want)
		}
	}
}

func TestAWellFormedVerdictOfAnyBundleIsAccepted(t *testing.T) {
	b, err := policy.Load(bundle("a.rego", `package runnerward.admission

violations := [code | some code in data.site.codes]

decision := "deny"
`, "site/data.json", `{"codes": ["z-last", "a.first", "z-last"]}`))
	if err != nil {
		t.Fatalf("Load = %v, want nil", err)
	}
	got, err := b.Evaluate(t.Context(), good(runner.GateAdmission), now)
	if want := []string{"a.first", "z-last"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Evaluate = %v, %v, want %v", got, err, want)
	}
}

func TestAnEvaluationThatIsCancelledIsAnError(t *testing.T) {
	b, err := policy.Load(bundle("a.rego", allowAll+`
slow if {
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	a + b < 0
}

decision := "deny" if slow
`))
	if err != nil {
		t.Fatalf("Load = %v, want nil", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := b.Evaluate(ctx, good(runner.GateAdmission), now); err == nil {
		t.Errorf("Evaluate(cancelled) = %v, nil, want an error", got)
	}
}

func TestTheDigestNamesExactlyWhatCounts(t *testing.T) {
	digest := func(parts ...string) runner.Digest {
		t.Helper()
		b, err := policy.Load(bundle(parts...))
		if err != nil {
			t.Fatalf("Load(%v) = %v, want nil", parts, err)
		}
		return b.Digest()
	}
	base := digest("a.rego", allowAll)
	for name, got := range map[string]runner.Digest{
		"a test":                digest("a.rego", allowAll, "a_test.rego", "package nonsense"),
		"a readme":              digest("a.rego", allowAll, "README.md", "x"),
		"a mounted ConfigMap":   digest("a.rego", allowAll, "..2026_03_04/a.rego", allowAll),
		"an editor's left-over": digest("a.rego", allowAll, ".a.rego", "package ]"),
	} {
		if got != base {
			t.Errorf("digest with %s = %s, want %s", name, got, base)
		}
	}
	for name, got := range map[string]runner.Digest{
		"another path":    digest("b.rego", allowAll),
		"another content": digest("a.rego", allowAll+"\n"),
		"data":            digest("a.rego", allowAll, "data.json", "{}"),
	} {
		if got == base {
			t.Errorf("digest with %s is unchanged", name)
		}
	}
}

func TestReplayGivesTheRecordedDecision(t *testing.T) {
	fsys, b := defaultFiles(t), defaultBundle(t)
	input := encode(t, good(runner.GateStart))
	want := runner.Decision{Policy: b.Digest(), Input: runner.DigestOf(input), EvaluatedAt: now, Reasons: []string{}}
	for range 3 {
		got, err := policy.Replay(t.Context(), fsys, input, now)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Replay = %+v, %v, want %+v", got, err, want)
		}
	}
	later, err := policy.Replay(t.Context(), fsys, input, now.Add(2*time.Hour))
	stale := []string{"authorization-stale", "clock-differs", "facts-stale", "token-expired", "token-stale"}
	if err != nil || !slices.Equal(later.Reasons, stale) {
		t.Errorf("Replay two hours later = %v, %v, want %v", later.Reasons, err, stale)
	}
	other, err := policy.Replay(t.Context(), bundle("a.rego", allowAll), []byte("{}"), now)
	if err != nil || other.Policy == want.Policy || other.Input == want.Input {
		t.Errorf("Replay of another bundle and input = %+v, %v, want other digests", other, err)
	}
	if _, err := policy.Replay(t.Context(), bundle(), input, now); err == nil {
		t.Errorf("Replay(empty bundle) = nil, want an error")
	}
}

func TestTheRegoTestsOfTheDefaultPolicyPass(t *testing.T) {
	fsys, modules, names := defaultFiles(t), map[string]*ast.Module{}, []string{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".rego" {
			return err
		}
		source, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		modules[name], err = ast.ParseModuleWithOpts(name, string(source), ast.ParserOptions{RegoVersion: ast.RegoV1})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	results, err := tester.NewRunner().SetModules(modules).RaiseBuiltinErrors(true).Run(t.Context(), modules)
	if err != nil {
		t.Fatal(err)
	}
	for r := range results {
		names = append(names, r.Name)
		if !r.Pass() {
			t.Errorf("%s: %s failed: %v", r.Location, r.Name, r.Error)
		}
	}
	if len(names) < 5 {
		t.Errorf("ran the Rego tests %v, want at least 5", names)
	}
}

func TestTheDefaultPolicyIsFormatted(t *testing.T) {
	for name, source := range sources(t) {
		want, err := format.SourceWithOpts(name, []byte(source), format.Opts{RegoVersion: ast.RegoV1})
		if err != nil || string(want) != source {
			t.Errorf("%s is not as opa fmt writes it, %v; want\n%s", name, err, want)
		}
	}
}

// FuzzOnlyTheGoodQuestionIsAllowed grafts any JSON into any place of a good
// question. Only what leaves the parts that the policy needs as they were may
// still be allowed.
func FuzzOnlyTheGoodQuestionIsAllowed(f *testing.F) {
	b := defaultBundle(f)
	f.Add(uint(0), `{"id":"101"}`)
	f.Add(uint(3), `"zzz"`)
	f.Add(uint(17), `[["approved"]]`)
	f.Add(uint(40), `1e400`)
	f.Add(uint(77), `"2026-03-04T15:16:17Z"`)
	f.Add(uint(91), `null`)
	all := paths(document(f, good(runner.GateStart)), "")
	slices.Sort(all)
	f.Fuzz(func(t *testing.T, place uint, graft string) {
		var value any
		if json.Unmarshal([]byte(graft), &value) != nil {
			t.Skip()
		}
		where := all[place%uint(len(all))]
		doc := document(t, good(runner.GateStart))
		change(t, doc, where, value)
		got, err := b.EvaluateJSON(t.Context(), encode(t, doc), now)
		if err != nil || len(got) > 0 || equalGood(t, doc, runner.GateStart) {
			return
		}
		if !slices.Contains(unused, where) && !harmless(where, value) {
			t.Errorf("%s = %s: evaluate = allowed, want denied", where, graft)
		}
	})
}

// harmless are changes of a needed part that a good question may have too:
// another valid time, another limit, another person, a longer list.
func harmless(where string, value any) bool {
	last := where[strings.LastIndexByte(where, '.')+1:]
	open := []string{"fetchedAt", "seenAt", "issuedAt", "expiresAt", "authorizedAt", "checkRunId", "login", "id", "ref"}
	switch value.(type) {
	case float64:
		return strings.HasSuffix(last, "Seconds")
	case string:
		return slices.Contains(open, last) || strings.Contains(where, "labels.")
	case map[string]any, []any:
		// A whole object or list may be replaced by another good one.
		return len(encoded(value)) > len(`["self-hosted"]`)
	}
	return false
}

func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

func BenchmarkEvaluate(b *testing.B) {
	bundle := defaultBundle(b)
	q := good(runner.GateStart)
	for b.Loop() {
		if got, err := bundle.Evaluate(b.Context(), q, now); err != nil || len(got) > 0 {
			b.Fatalf("Evaluate(good) = %v, %v, want allowed", got, err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	fsys := defaultFiles(b)
	for b.Loop() {
		if _, err := policy.Load(fsys); err != nil {
			b.Fatal(err)
		}
	}
}
