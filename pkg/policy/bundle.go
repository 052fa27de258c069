// Package policy asks an embedded Open Policy Agent whether a job may run.
//
// A decision is a function of three things and nothing else: the bundle (named
// by its digest), the input (the JSON of a [runner.Question]) and the time of
// evaluation. Builtins that look at anything else do not compile, so that a
// decision replays years later.
//
// Whatever is not a well-formed verdict is an error, and callers refuse on an
// error: an undefined decision, a misnamed package and a timed-out query must
// never read as "no reasons against".
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/runnerward/runnerward/pkg/runner"
)

// query is what a bundle must define. The two parts are asked at once: when
// either is undefined the query has no result.
const query = `{"decision": data.runnerward.admission.decision, "violations": data.runnerward.admission.violations}`

// maxFileBytes bounds one file of a bundle.
const maxFileBytes = 1 << 20

// Bundle is a compiled policy. It is immutable and safe for concurrent use.
type Bundle struct {
	archive []byte
	query   rego.PreparedEvalQuery
}

// Digest names the bundle: it is that of its archive.
func (b *Bundle) Digest() runner.Digest { return runner.DigestOf(b.archive) }

// Archive is the bundle in one piece, for [Open]. It must not be changed.
func (b *Bundle) Archive() []byte { return b.archive }

// Load compiles the policy in fsys: every .rego file except tests
// (*_test.rego), and every data.json, whose content becomes data at the path
// of its folder, as in OPA's own bundles
// (https://www.openpolicyagent.org/docs/management-bundles). Entries whose
// name starts with a dot are skipped: a mounted ConfigMap keeps its real files
// in such a folder and shows them again as links.
//
// Errors name file and line; all of them are returned, joined.
func Load(fsys fs.FS) (*Bundle, error) {
	files, err := read(fsys)
	if err != nil {
		return nil, fmt.Errorf("read policy bundle: %w", err)
	}
	return build(files)
}

func build(files []file) (*Bundle, error) {
	compiler, err := compile(files)
	if err != nil {
		return nil, fmt.Errorf("compile policy bundle: %w", err)
	}
	data, err := documents(files)
	if err != nil {
		return nil, fmt.Errorf("read policy data: %w", err)
	}
	prepared, err := rego.New(
		rego.Query(query),
		rego.Compiler(compiler),
		rego.Capabilities(capabilities()),
		rego.SetRegoVersion(ast.RegoV1),
		rego.Store(inmem.NewFromObject(data)),
		rego.StrictBuiltinErrors(true),
	).PrepareForEval(noDeadline())
	if err != nil {
		return nil, fmt.Errorf("prepare policy: %w", err)
	}
	return &Bundle{archive(files), prepared}, nil
}

// file is a file of a bundle, with its slash-separated path.
type file struct {
	path    string
	content []byte
}

func (f file) isRego() bool { return strings.HasSuffix(f.path, ".rego") }

// read lists the files that count, sorted by path.
func read(fsys fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || !counts(name):
			return nil
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if len(content) > maxFileBytes {
			return fmt.Errorf("%s: %d bytes, at most %d", name, len(content), maxFileBytes)
		}
		files = append(files, file{name, content})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(files, file.isRego) {
		return nil, errors.New("no .rego file")
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

func counts(name string) bool {
	if strings.HasSuffix(name, ".rego") {
		return !strings.HasSuffix(name, "_test.rego")
	}
	return path.Base(name) == "data.json"
}

func compile(files []file) (*ast.Compiler, error) {
	modules := map[string]*ast.Module{}
	var problems []error
	for _, f := range files {
		if !f.isRego() {
			continue
		}
		module, err := ast.ParseModuleWithOpts(f.path, string(f.content), ast.ParserOptions{
			RegoVersion: ast.RegoV1, Capabilities: capabilities(),
		})
		if err != nil {
			problems = append(problems, located(err))
			continue
		}
		modules[f.path] = module
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	compiler := ast.NewCompiler().WithStrict(true).WithCapabilities(capabilities())
	if compiler.Compile(modules); compiler.Failed() {
		return nil, located(compiler.Errors)
	}
	return compiler, nil
}

// located turns OPA's errors into one "file:line: what" each.
func located(err error) error {
	all, ok := errors.AsType[ast.Errors](err)
	if !ok {
		return err
	}
	var out []error
	for _, e := range all {
		if e.Location == nil {
			out = append(out, errors.New(e.Message))
			continue
		}
		out = append(out, fmt.Errorf("%s:%d: %s", e.Location.File, e.Location.Row, e.Message))
	}
	return errors.Join(out...)
}

// capabilities are OPA's builtins without those whose answer depends on more
// than the question: the network, randomness, the environment. The clock is
// the exception, because the evaluation sets it.
func capabilities() *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	caps.AllowNet = []string{}
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		return b.IsNondeterministic() && b.Name != ast.NowNanos.Name
	})
	return caps
}

// ownRoot holds the rules. Data under the root of a package would be merged
// into what the rules define.
const ownRoot = "runnerward"

func documents(files []file) (map[string]any, error) {
	root := map[string]any{}
	for _, f := range files {
		if f.isRego() {
			continue
		}
		doc, err := decode(f.content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if err := place(root, path.Dir(f.path), doc); err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if _, taken := root[ownRoot]; taken {
		return nil, fmt.Errorf("data may not define %q, the root of the rules", ownRoot)
	}
	return root, nil
}

func place(root map[string]any, dir string, doc any) error {
	object, ok := doc.(map[string]any)
	if !ok {
		return errors.New("want one JSON object")
	}
	at := root
	if dir != "." {
		for part := range strings.SplitSeq(dir, "/") {
			next, ok := at[part].(map[string]any)
			if !ok && at[part] != nil {
				return fmt.Errorf("%q is defined twice", part)
			}
			if next == nil {
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
	}
	for key, value := range object {
		if _, taken := at[key]; taken {
			return fmt.Errorf("%q is defined twice", key)
		}
		at[key] = value
	}
	return nil
}

// decode reads exactly one JSON value and keeps its numbers exact.
func decode(b []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}
