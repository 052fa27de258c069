package config

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Option changes how a configuration is checked.
type Option func(*options)

type options struct{ offline bool }

// Offline leaves out every look at other files: for checking a configuration
// on another machine than the one it is for.
func Offline() Option { return func(o *options) { o.offline = true } }

// prefix starts the names of all our environment variables.
const prefix = "RUNNERWARD_"

// bound lists the keys that an environment variable may override. None is a
// secret: the environment of a process is easy to read.
var bound = map[string]string{
	prefix + "ADMISSION_LISTEN":        "admission.listen",
	prefix + "CLUSTER_KUBECONFIG_FILE": "cluster.kubeconfigFile",
	prefix + "GITHUB_PROXY":            "github.proxy",
	prefix + "LIMITS_MAX_RUNNERS":      "limits.maxRunners",
	prefix + "LOG_FORMAT":              "log.format",
	prefix + "LOG_LEVEL":               "log.level",
	prefix + "STATUS_LISTEN":           "status.listen",
}

// Load reads the file and the environment (in the form of os.Environ) and
// checks everything. The error is *[Problems], or that of reading the file.
func Load(path string, env []string, opts ...Option) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, env, opts...)
}

// Parse is [Load] of a file that was read already; name is what problems call it.
func Parse(name string, data []byte, env []string, opts ...Option) (*Config, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	problems := &Problems{}
	file := newStrict(name, problems)
	doc := file.document(data)
	overrides := environment(env, problems)
	if doc == nil {
		return nil, problems.err()
	}
	if len(problems.List) > 0 {
		rest, err := yaml.Marshal(doc)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		data = rest
	}
	c, err := decode(data, overrides)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	v := &validation{Config: c, file: file, overrides: overrides, offline: o.offline}
	v.all()
	if err := problems.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// decode merges defaults, file and environment. Both were checked before, so
// an error here means that two YAML decoders disagree about the file.
func decode(data []byte, overrides map[string]any) (*Config, error) {
	// A delimiter that no key contains: with "." viper would split keys.
	v := viper.NewWithOptions(viper.KeyDelimiter("::"))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	for key, value := range overrides {
		v.Set(strings.ReplaceAll(key, ".", "::"), value)
	}
	c := defaults()
	err := v.UnmarshalExact(&c, viper.DecodeHook(mapstructure.StringToTimeDurationHookFunc()),
		func(d *mapstructure.DecoderConfig) { d.TagName, d.WeaklyTypedInput = "yaml", false })
	if err != nil {
		return nil, err
	}
	if len(c.Cluster.RunnerCommand) == 0 {
		// The command of the stock image, ghcr.io/actions/actions-runner.
		c.Cluster.RunnerCommand = []string{"/home/runner/run.sh"}
	}
	return &c, nil
}

// links are the variables that Kubernetes sets in a pod for a Service that is
// called runnerward; they are not meant for us.
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var links = regexp.MustCompile(`\A` + prefix + `([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\z`)

// environment reads our variables, by key. The process environment is passed
// in rather than bound inside viper, which ignores what is misspelt or empty.
func environment(env []string, problems *Problems) map[string]any {
	out := map[string]any{}
	for _, entry := range env {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) || links.MatchString(name) {
			continue
		}
		key, known := bound[name]
		if !known {
			problems.add(Problem{File: "environment", Key: name, What: "unknown variable", Mend: variableMeant(name)})
			continue
		}
		if text == "" {
			problems.add(Problem{File: "environment", Key: name, What: "empty", Mend: "give it a value or unset it"})
			continue
		}
		if value, ok := typed(name, key, text, problems); ok {
			out[key] = value
		}
	}
	return out
}

func variableMeant(name string) string {
	names := slices.Sorted(maps.Keys(bound))
	if similar := nearest(name, names); similar != "" {
		return "did you mean " + similar + "?"
	}
	return "unset it; there are " + strings.Join(names, ", ")
}

// typed gives the text of a variable the type of its key, by the rules of the
// file.
func typed(name, key, text string, problems *Problems) (any, bool) {
	t := reflect.TypeFor[Config]()
	for part := range strings.SplitSeq(key, ".") {
		field, ok := fieldOf(t, part)
		if !ok {
			panic("no key " + key)
		}
		t = field.Type
	}
	if t.Kind() == reflect.String {
		return text, true
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if !newStrict("environment", problems).value(node, t, name) {
		return nil, false
	}
	value := reflect.New(t)
	if err := node.Decode(value.Interface()); err != nil {
		return nil, false
	}
	return value.Elem().Interface(), true
}
