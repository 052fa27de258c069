package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds the file.
const maxFileBytes = 1 << 20

// place is where a key stands in the file.
type place struct{ line, col int }

// strict compares a YAML document with the type of the configuration before
// anything decodes it: decoders stop at the first mistake, and let others pass
// (a number without a unit is a duration in nanoseconds to them, a float an
// integer, a second document nothing at all).
type strict struct {
	file     string
	problems *Problems
	// places are of keys, by path; validation names them.
	places map[string]place
	// bad are the paths whose values are not known because of a problem:
	// validation has nothing to say about them.
	bad []string
}

func newStrict(file string, problems *Problems) *strict {
	return &strict{file: file, problems: problems, places: map[string]place{}}
}

// doubtful says that a problem was reported for this key, for a part of it or
// for what it is a part of.
func (s *strict) doubtful(key string) bool {
	return slices.ContainsFunc(s.bad, func(bad string) bool { return within(key, bad) || within(bad, key) })
}

func within(path, section string) bool {
	rest, ok := strings.CutPrefix(path, section)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (s *strict) report(n *yaml.Node, key, what, mend string) {
	s.problems.add(Problem{s.file, n.Line, n.Column, key, what, mend})
	s.bad = append(s.bad, key)
}

// document checks the whole file and returns what of it can be decoded, so
// that the rest is judged too: nil when there is nothing.
func (s *strict) document(data []byte) *yaml.Node {
	if len(data) > maxFileBytes {
		s.problems.add(Problem{File: s.file, What: fmt.Sprintf("%d bytes, at most %d", len(data), maxFileBytes), Mend: "this is not a configuration file"})
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			s.problems.add(Problem{File: s.file, What: "the file is empty", Mend: "start from configs/runnerward.example.yaml"})
			return nil
		}
		s.syntax(err)
		return nil
	}
	usable := s.value(doc.Content[0], reflect.TypeFor[Config](), "")
	switch err := dec.Decode(&more); {
	case err == nil:
		s.problems.add(Problem{s.file, more.Line, more.Column, "", "a second YAML document, which would be ignored", "remove it with the --- before it"})
	case !errors.Is(err, io.EOF):
		s.syntax(err)
	}
	if !usable {
		return nil
	}
	return &doc
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func (s *strict) syntax(err error) {
	m := yamlLine.FindStringSubmatch(err.Error())
	p := Problem{File: s.file, What: "not YAML: " + yamlLine.ReplaceAllString(err.Error(), ""), Mend: "mind indentation and quotes"}
	if m != nil && m[1] != "" {
		p.Line, _ = strconv.Atoi(m[1]) // the pattern admits digits only
		p.Col = 1
	}
	s.problems.add(p)
}

var durationType = reflect.TypeFor[time.Duration]()

// value says whether what is left of the node can be decoded.
func (s *strict) value(n *yaml.Node, t reflect.Type, path string) bool {
	before := len(s.problems.List)
	if path != "" {
		if _, known := s.places[path]; !known {
			s.places[path] = place{n.Line, n.Column}
		}
	}
	switch {
	case n.Kind == yaml.AliasNode:
		s.report(n, path, "an alias", "write the value out")
	case n.ShortTag() == "!!null":
		s.report(n, path, "no value, which would hide the default", "give it a value or remove the key")
	case t == durationType:
		s.duration(n, path)
	case t.Kind() == reflect.Struct:
		return s.section(n, t, path)
	case t.Kind() == reflect.Slice:
		s.list(n, t, path)
	case t.Kind() == reflect.Bool:
		s.truth(n, path)
	case t.Kind() == reflect.String:
		s.text(n, path)
	default:
		s.integer(n, t, path)
	}
	return len(s.problems.List) == before
}

func (s *strict) duration(n *yaml.Node, path string) {
	switch tag := n.ShortTag(); {
	case n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float"):
		s.report(n, path, fmt.Sprintf("%s is a duration without a unit", n.Value), fmt.Sprintf("write %ss, %sm or %sh", n.Value, n.Value, n.Value))
	case n.Kind != yaml.ScalarNode || tag != "!!str":
		s.report(n, path, found(n)+" where a duration is wanted", "write one like 90s, 5m or 1h30m")
	default:
		if _, err := time.ParseDuration(n.Value); err != nil {
			s.report(n, path, fmt.Sprintf("%q is not a duration", n.Value), "write one like 90s, 5m or 1h30m")
		}
	}
}

func (s *strict) text(n *yaml.Node, path string) {
	switch {
	case n.Kind != yaml.ScalarNode:
		s.report(n, path, found(n)+" where a text is wanted", "write one value")
	case n.ShortTag() != "!!str":
		s.report(n, path, found(n)+" where a text is wanted", fmt.Sprintf("put it in quotes: %q", n.Value))
	}
}

func (s *strict) integer(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		s.report(n, path, found(n)+" where a whole number is wanted", "write digits only, without quotes")
		return
	}
	if err := n.Decode(reflect.New(t).Interface()); err != nil {
		s.report(n, path, n.Value+" is too large", "write a smaller number")
	}
}

// truth takes true and false only: YAML 1.1 readers take yes and on as well,
// and others take them for text.
func (s *strict) truth(n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		s.report(n, path, found(n)+" where true or false is wanted", "write true or false, without quotes")
	}
}

func (s *strict) list(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.SequenceNode {
		s.report(n, path, found(n)+" where a list is wanted", "write one entry a line, each after a dash")
		return
	}
	for i, item := range n.Content {
		s.value(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
	}
}

// section drops from the node what cannot be decoded.
func (s *strict) section(n *yaml.Node, t reflect.Type, path string) bool {
	if n.Kind != yaml.MappingNode {
		s.report(n, path, found(n)+" where a section is wanted", "it has the keys "+strings.Join(keysOf(t), ", "))
		return false
	}
	var usable []*yaml.Node
	seen := map[string]bool{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		full := join(path, key.Value)
		field, known := fieldOf(t, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode || !known:
			s.unknown(key, t, path)
			continue
		case seen[key.Value]:
			s.report(key, full, "given twice", "keep one of them")
			continue
		}
		seen[key.Value] = true
		s.places[full] = place{key.Line, key.Column}
		if s.value(value, field.Type, full) {
			usable = append(usable, key, value)
		}
	}
	n.Content = usable
	return true
}

// unknown says what was probably meant: a key of another section, or the most
// similar one of this.
func (s *strict) unknown(key *yaml.Node, t reflect.Type, path string) {
	homes := sections(reflect.TypeFor[Config](), "")[key.Value]
	mend := "remove it; the keys here are " + strings.Join(keysOf(t), ", ")
	switch similar := nearest(key.Value, keysOf(t)); {
	case len(homes) > 0:
		what := "does not belong here"
		s.report(key, join(path, key.Value), what, "it belongs under "+strings.Join(homes, " or "))
		return
	case similar != "":
		mend = "did you mean " + similar + "?"
		s.bad = append(s.bad, join(path, similar))
	}
	s.report(key, join(path, key.Value), "unknown key", mend)
}

// sections lists, for each key of the configuration, where it belongs.
func sections(t reflect.Type, path string) map[string][]string {
	out := map[string][]string{}
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("yaml")
		home := path
		if home == "" {
			home = "the top of the file"
		}
		out[name] = append(out[name], home)
		inner, suffix := t.Field(i).Type, ""
		if inner.Kind() == reflect.Slice {
			inner, suffix = inner.Elem(), "[]"
		}
		if inner.Kind() != reflect.Struct {
			continue
		}
		for key, homes := range sections(inner, join(path, name)+suffix) {
			out[key] = append(out[key], homes...)
		}
	}
	for _, homes := range out {
		slices.Sort(homes)
	}
	return out
}

func fieldOf(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == key {
			return t.Field(i), true
		}
	}
	return reflect.StructField{}, false
}

func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("yaml")
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// found names what stands there in words.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int":
		return "the number " + n.Value
	case "!!float":
		return "the fraction " + n.Value
	case "!!bool":
		return "the truth value " + n.Value
	case "!!timestamp":
		return "the date " + n.Value
	}
	return fmt.Sprintf("the text %.40q", n.Value)
}
