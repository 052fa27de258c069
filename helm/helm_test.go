// Package helm holds the chart's tests. They read the chart as text and data
// and need no helm binary; where one is on the PATH, the chart is rendered and
// every document is decoded strictly as the API server would.
package helm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/runnerward/runnerward/pkg/config"
)

const chart = "runnerward"

type object = map[string]any

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{chart}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decode refuses unknown fields of v and a second document.
func decode(t *testing.T, name string, b []byte, v any) {
	t.Helper()
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Fatalf("%s: after the first document: %v, want nothing", name, err)
	}
}

func values(t *testing.T) object {
	t.Helper()
	var v object
	decode(t, "values.yaml", read(t, "values.yaml"), &v)
	return v
}

func schema(t *testing.T) object {
	t.Helper()
	var v object
	if err := json.Unmarshal(read(t, "values.schema.json"), &v); err != nil {
		t.Fatalf("values.schema.json: %v", err)
	}
	return v
}

func TestChartIsWellFormed(t *testing.T) {
	var c struct {
		APIVersion  string   `yaml:"apiVersion"`
		Name        string   `yaml:"name"`
		Description string   `yaml:"description"`
		Type        string   `yaml:"type"`
		Version     string   `yaml:"version"`
		AppVersion  string   `yaml:"appVersion"`
		KubeVersion string   `yaml:"kubeVersion"`
		Home        string   `yaml:"home"`
		Sources     []string `yaml:"sources"`
		Keywords    []string `yaml:"keywords"`
	}
	decode(t, "Chart.yaml", read(t, "Chart.yaml"), &c)
	semver := regexp.MustCompile(`^\d+\.\d+\.\d+$`)
	if c.APIVersion != "v2" || c.Name != chart || c.Type != "application" || !semver.MatchString(c.Version) || c.AppVersion == "" {
		t.Errorf("Chart.yaml = %+v, want an application chart v2 called %s with versions", c, chart)
	}
}

// closed walks the values and the schema together: each must know the keys of
// the other, and an object whose keys are ours must refuse all others.
func closed(t *testing.T, path string, value any, rule object) {
	t.Helper()
	properties, ours := rule["properties"].(object)
	v, isObject := value.(object)
	if !isObject {
		return
	}
	if !ours {
		if rule["type"] != "object" {
			t.Errorf("values%s is an object, the schema says %v", path, rule["type"])
		}
		return
	}
	if path == ".podSecurityContext" {
		return // Kubernetes' own fields; only the one that matters is pinned
	}
	if rule["additionalProperties"] != false {
		t.Errorf("schema%s lets unknown keys through", path)
	}
	for _, key := range slices.Sorted(maps.Keys(v)) {
		next, ok := properties[key].(object)
		if !ok {
			t.Errorf("values%s.%s is not in the schema", path, key)
			continue
		}
		closed(t, path+"."+key, v[key], next)
	}
}

func TestSchemaIsStrictAndKnowsEveryValue(t *testing.T) {
	closed(t, "", values(t), schema(t))
}

var reference = regexp.MustCompile(`\.Values\.([A-Za-z0-9_.]*[A-Za-z0-9_])`)

// references are the values that templates use, with the file of each.
func references(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("templates: %d files, %v", len(files), err)
	}
	all := map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range reference.FindAllStringSubmatch(string(b), -1) {
			all[m[1]] = filepath.Base(file)
		}
	}
	return all
}

func TestTemplatesUseOnlyValuesThatExist(t *testing.T) {
	used := references(t)
	for path, file := range used {
		var value any = values(t)
		var rule any = schema(t)
		for key := range strings.SplitSeq(path, ".") {
			v, _ := value.(object)
			r, _ := rule.(object)
			properties, _ := r["properties"].(object)
			var inValues, inSchema bool
			if value, inValues = v[key]; !inValues {
				t.Errorf("%s uses .Values.%s, which values.yaml lacks", file, path)
			}
			if rule, inSchema = properties[key]; !inSchema {
				t.Errorf("%s uses .Values.%s, which the schema lacks", file, path)
			}
		}
	}
	for key := range values(t) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(used)), func(p string) bool { return p == key || strings.HasPrefix(p, key+".") }) {
			t.Errorf("values.yaml has %s, which no template uses", key)
		}
	}
}

var action = regexp.MustCompile(`\{\{-?[^}]*\}\}`)

// plain is a template as YAML: lines that are only an action go, other actions
// become a word.
func plain(b []byte) []byte {
	var out [][]byte
	for line := range bytes.Lines(b) {
		if rest := action.ReplaceAll(line, nil); len(bytes.TrimSpace(rest)) == 0 && len(bytes.TrimSpace(line)) > 0 {
			continue
		}
		out = append(out, action.ReplaceAll(line, []byte("x")))
	}
	return bytes.Join(out, nil)
}

// TestPermissions is the whole list: a verb more is a decision to be made here.
func TestPermissions(t *testing.T) {
	want := []string{
		"ClusterRole authentication.k8s.io/tokenreviews [create]",
		"ClusterRole core/nodes [get list watch update delete]",
		"ClusterRole karpenter.k8s.aws/ec2nodeclasses [get]",             // with hosts.driver karpenter only
		"ClusterRole karpenter.sh/nodeclaims [list create patch delete]", // with hosts.driver karpenter only
		"Role coordination.k8s.io/leases [create]",
		"Role coordination.k8s.io/leases [get update] of one name",
		"Role core/pods [get list watch create delete]",
		"Role events.k8s.io/events [create update]",
		"Role in default events.k8s.io/events [create update]",
	}
	var got []string
	dec := yaml.NewDecoder(bytes.NewReader(plain(read(t, "templates", "rbac.yaml"))))
	for {
		var doc struct {
			Kind     string
			Metadata struct{ Namespace string }
			Rules    []struct {
				APIGroups       []string `yaml:"apiGroups"`
				Resources       []string
				Verbs           []string
				ResourceNames   []string `yaml:"resourceNames"`
				NonResourceURLs []string `yaml:"nonResourceURLs"`
			}
			Subjects []struct{ Kind, Name, Namespace string }
		}
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kind := doc.Kind
		if doc.Metadata.Namespace == "default" {
			kind += " in default"
		}
		for _, r := range doc.Rules {
			for _, group := range r.APIGroups {
				if group == "" {
					group = "core"
				}
				for _, resource := range r.Resources {
					rule := kind + " " + group + "/" + resource + " [" + strings.Join(r.Verbs, " ") + "]"
					if len(r.ResourceNames) == 1 {
						rule += " of one name"
					}
					got = append(got, rule)
				}
			}
			got = append(got, r.NonResourceURLs...)
		}
		if strings.HasSuffix(doc.Kind, "Binding") && len(doc.Subjects) != 1 {
			t.Errorf("%s binds %d subjects, want the daemon alone", doc.Kind, len(doc.Subjects))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("permissions =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNoSecretIsAValue(t *testing.T) {
	for _, dir := range []string{"values.yaml", "templates/configmap.yaml", "templates/deployment.yaml"} {
		if b := read(t, dir); bytes.Contains(b, []byte("PRIVATE KEY")) || bytes.Contains(b, []byte("kind: Secret\n")) || bytes.Contains(b, []byte("stringData")) {
			t.Errorf("%s holds or makes a secret", dir)
		}
	}
}

// mounted turns the example's files into those that the chart mounts.
var mounted = strings.NewReplacer(
	"/etc/runnerward/github-app.pem", "/run/secrets/runnerward/github/private-key.pem",
	"/etc/runnerward/status/clients.crt", "/run/secrets/runnerward/status/ca.crt",
	"/etc/runnerward/", "/run/secrets/runnerward/",
)

// TestConfigurationOfTheValuesIsTheExample is the daemon's own verdict on what
// the chart would give it, without a helm binary.
func TestConfigurationOfTheValuesIsTheExample(t *testing.T) {
	raw, err := yaml.Marshal(values(t)["config"])
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Parse("values.yaml", raw, nil, config.Offline())
	if err != nil {
		t.Fatalf("the configuration in values.yaml is refused: %v", err)
	}
	example, err := os.ReadFile("../configs/runnerward.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := config.Parse("example", []byte(mounted.Replace(string(example))), nil, config.Offline())
	if err != nil {
		t.Fatal(err)
	}
	gotText, errGot := got.Effective()
	wantText, errWant := want.Effective()
	if err := errors.Join(errGot, errWant); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(gotText, wantText) {
		t.Errorf("values.yaml says\n%s\nconfigs/runnerward.example.yaml says\n%s", gotText, wantText)
	}
}

// TestPermissionsAreWhatTheCodeCalls reads the calls out of the adapter.
func TestPermissionsAreWhatTheCodeCalls(t *testing.T) {
	files, err := filepath.Glob("../pkg/cluster/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("pkg/cluster: %d files, %v", len(files), err)
	}
	direct := regexp.MustCompile(`\.(Pods|Nodes|Events|TokenReviews)\([^()]*\)\.(\w+)\(`)
	alias := regexp.MustCompile(`(\w+) := c\.client\.\w+\(\)\.(Pods|Nodes|Events|TokenReviews)\([^()]*\)\n`)
	calls := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range direct.FindAllStringSubmatch(string(src), -1) {
			calls[strings.ToLower(m[1]+" "+m[2])] = true
		}
		for _, a := range alias.FindAllStringSubmatch(string(src), -1) {
			for _, m := range regexp.MustCompile(`\b`+a[1]+`\.(\w+)\(`).FindAllStringSubmatch(string(src), -1) {
				calls[strings.ToLower(a[2]+" "+m[1])] = true
			}
		}
	}
	for _, call := range nodeClaimCalls(t) {
		calls[call] = true
	}
	want := []string{
		"ec2nodeclasses get", "events create", "events update", "nodeclaims create", "nodeclaims delete", "nodeclaims list", "nodeclaims patch",
		"nodes delete", "nodes get", "nodes list", "nodes update", "nodes watch",
		"pods create", "pods delete", "pods get", "pods list", "pods watch", "tokenreviews create",
	}
	if got := slices.Sorted(maps.Keys(calls)); !slices.Equal(got, want) {
		t.Errorf("pkg/cluster and the Karpenter driver call %q, the roles allow %q", got, want)
	}
}

// nodeClaimCalls are those of the Karpenter driver. What it may do is asked for
// by every account, which the API server allows by itself (system:basic-user).
func nodeClaimCalls(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../pkg/hosts/*.go")
	if err != nil {
		t.Fatal(err)
	}
	resources := map[string]string{"nodeClaims": "nodeclaims", "nodeClasses": "ec2nodeclasses", "coreNodes": "nodes", "reviews": ""}
	direct := regexp.MustCompile(`k\.api\.Resource\((\w+)\)\.(\w+)\(`)
	var calls []string
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := direct.FindAllStringSubmatch(string(src), -1)
		if a := regexp.MustCompile(`api := k\.api\.Resource\((\w+)\)\n`).FindStringSubmatch(string(src)); a != nil {
			for _, m := range regexp.MustCompile(`\bapi\.(\w+)\(`).FindAllStringSubmatch(string(src), -1) {
				if m[1] != "Resource" {
					found = append(found, []string{"", a[1], m[1]})
				}
			}
		}
		for _, m := range found {
			resource, known := resources[m[1]]
			if !known {
				t.Errorf("%s calls for %s, which nobody has weighed", file, m[1])
			}
			if resource != "" {
				calls = append(calls, resource+" "+strings.ToLower(m[2]))
			}
		}
	}
	return calls
}
