// Package arch holds tests of the code itself: who may import whom, where a
// clock may be read, and how the tree is kept.
package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/runnerward/runnerward"

// core packages decide; they must be testable without a world.
var core = []string{module + "/pkg/runner", module + "/pkg/evidence"}

// coreMay is what the core may import beside itself: pure parts of the
// standard library, and the Merkle tree and signed notes of the Go team.
var coreMay = []string{
	"bytes", "cmp", "context", "encoding/base64", "encoding/binary", "encoding/hex", "encoding/json", "encoding/pem",
	"errors", "fmt", "io", "io/fs", "maps", "math", "net/url", "path", "reflect", "regexp", "slices", "sort", "strconv",
	"strings", "text/tabwriter", "time", "unicode", "unicode/utf8",
	"crypto", "crypto/ecdsa", "crypto/ed25519", "crypto/elliptic", "crypto/rand", "crypto/sha256", "crypto/subtle", "crypto/x509",
	"golang.org/x/mod/sumdb/note", "golang.org/x/mod/sumdb/tlog",
}

// adapters implement ports and never import each other.
var adapters = []string{
	module + "/scaleset", module + "/pkg/github", module + "/pkg/cluster", module + "/pkg/hosts",
	module + "/pkg/ledger", module + "/pkg/policy", module + "/pkg/identitydoc", module + "/pkg/admission", module + "/pkg/status",
	module + "/pkg/lease", s3store,
}

// s3store is a store of pkg/ledger, and the one adapter that knows another.
const s3store = module + "/pkg/ledger/s3store"

type pkg struct {
	ImportPath, Dir, Doc, Name string
	Imports, Deps              []string
	GoFiles                    []string
}

func list(t *testing.T, args ...string) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,Name,Imports,Deps,GoFiles"}, args...)...)
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]pkg{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs[p.ImportPath] = p
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestArchitecture(t *testing.T) {
	pkgs := list(t, "./...")
	for _, path := range slices.Concat(core, adapters) {
		if _, ok := pkgs[path]; !ok {
			t.Errorf("%s is named here and does not exist", path)
		}
	}
	t.Run("the core imports only what is pure", func(t *testing.T) {
		for _, path := range core {
			for _, imp := range pkgs[path].Imports {
				if !slices.Contains(coreMay, imp) && !slices.Contains(core, imp) {
					t.Errorf("%s imports %s: the core may not", path, imp)
				}
			}
		}
	})
	t.Run("the core reads no clock", func(t *testing.T) {
		for _, path := range core {
			for _, file := range pkgs[path].GoFiles {
				for _, use := range clockUses(t, filepath.Join(pkgs[path].Dir, file)) {
					t.Errorf("%s: %s: the core may not read a clock; times come in as arguments", path, use)
				}
			}
		}
	})
	t.Run("adapters do not import each other", func(t *testing.T) {
		for _, path := range adapters {
			for _, imp := range pkgs[path].Imports {
				if slices.Contains(adapters, imp) && (path != s3store || imp != module+"/pkg/ledger") {
					t.Errorf("%s imports %s: adapters meet only in cmd", path, imp)
				}
			}
		}
	})
	t.Run("the ledger itself knows no cloud", func(t *testing.T) {
		for _, dep := range pkgs[module+"/pkg/ledger"].Deps {
			if strings.HasPrefix(dep, "github.com/aws/") {
				t.Errorf("pkg/ledger reaches %s", dep)
			}
		}
	})
	t.Run("production binaries cannot reach the simulators", func(t *testing.T) {
		for _, path := range []string{module + "/cmd/runnerward", module + "/cmd/runnerward-agent"} {
			p, ok := pkgs[path]
			if !ok {
				t.Errorf("%s does not exist", path)
			}
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, module+"/pkg/sim") {
					t.Errorf("%s reaches %s", path, dep)
				}
			}
		}
	})
	t.Run("the agent stays small", func(t *testing.T) {
		for _, dep := range pkgs[module+"/cmd/runnerward-agent"].Deps {
			for _, heavy := range []string{"k8s.io/", "github.com/aws/", "github.com/open-policy-agent/"} {
				if strings.HasPrefix(dep, heavy) {
					t.Errorf("the agent reaches %s", dep)
				}
			}
		}
	})
	t.Run("the supervisor calls ports, not adapters", func(t *testing.T) {
		for _, imp := range pkgs[module+"/pkg/supervisor"].Imports {
			if slices.Contains(adapters, imp) {
				t.Errorf("pkg/supervisor imports %s", imp)
			}
		}
	})
	t.Run("every package says what it is for", func(t *testing.T) {
		for path, p := range pkgs {
			if p.Doc == "" && len(p.GoFiles) > 0 {
				t.Errorf("%s has no package comment", path)
			}
		}
	})
}

var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

func clockUses(t *testing.T, file string) (uses []string) {
	t.Helper()
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
			uses = append(uses, fmt.Sprintf("%s uses time.%s", fset.Position(sel.Pos()), sel.Sel.Name))
		}
		return true
	})
	return uses
}

// TestTree keeps files short enough to be read and tests from sleeping.
func TestTree(t *testing.T) {
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		if lines := strings.Count(string(src), "\n"); lines > 420 && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s has %d lines: split it", rel, lines)
		}
		// What the daemon writes is kept for as long as the law says.
		if shorter := "Keep" + "Until"; strings.Contains(string(src), shorter) && !strings.HasPrefix(rel, "pkg/ledger/s3store/") && !strings.HasPrefix(rel, "test/awslive/") {
			t.Errorf("%s sets %s, which is for the live suite alone", rel, shorter)
		}
		if strings.HasSuffix(path, "_test.go") && strings.Contains(string(src), "time."+"Sleep(") {
			t.Errorf("%s sleeps: use testing/synctest, a channel or a bounded poll", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
