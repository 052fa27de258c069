package simkarpenter

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

//go:embed crds
var files embed.FS

// Definitions are Karpenter's own CustomResourceDefinitions as YAML, for an API
// server that is real.
func Definitions() ([][]byte, error) {
	entries, err := files.ReadDir("crds")
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, e := range entries {
		b, err := files.ReadFile(path.Join("crds", e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// definition is one custom resource.
type definition struct {
	gvk      schema.GroupVersionKind
	resource string
	schema   map[string]any // as it is written
	openapi  *openapi3.Schema
	// immutable and domains are what rules in CEL say.
	immutable bool
	domains   map[string][]string // restricted ones, with the keys that are allowed
}

func (d *definition) gr() schema.GroupResource {
	return schema.GroupResource{Group: d.gvk.Group, Resource: d.resource}
}

func definitions() ([]*definition, error) {
	texts, err := Definitions()
	if err != nil {
		return nil, err
	}
	var out []*definition
	for _, text := range texts {
		d, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("read a definition of Karpenter: %w", err)
		}
		out = append(out, d)
	}
	return out, nil
}

func parse(text []byte) (*definition, error) {
	var crd struct {
		Spec struct {
			Group string
			Names struct{ Kind, Plural string }
			// Both resources have one version.
			Versions []struct {
				Name   string
				Schema struct {
					OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, err
	}
	if n := len(crd.Spec.Versions); n != 1 {
		return nil, fmt.Errorf("%s has %d versions, want 1", crd.Spec.Names.Plural, n)
	}
	v := crd.Spec.Versions[0]
	d := &definition{
		gvk:      schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind},
		resource: crd.Spec.Names.Plural, schema: v.Schema.OpenAPIV3Schema,
	}
	raw, err := json.Marshal(d.schema)
	if err != nil {
		return nil, err
	}
	d.openapi = &openapi3.Schema{}
	if err := json.Unmarshal(raw, d.openapi); err != nil {
		return nil, err
	}
	spec := child(d.schema, "properties", "spec")
	d.immutable = slices.Contains(rulesOf(spec), "self == oldSelf")
	d.domains = map[string][]string{}
	for _, rule := range rulesOf(child(spec, "properties", "requirements", "items", "properties", "key")) {
		if m := domainRule.FindStringSubmatch(rule); m != nil {
			d.domains[m[2]] = strings.Split(strings.ReplaceAll(m[1], `"`, ""), ", ")
		}
	}
	if d.gvk.Kind == "NodeClaim" && (!d.immutable || len(d.domains) != 2) {
		return nil, errors.New("the rules of NodeClaims are others than they were")
	}
	return d, nil
}

var domainRule = regexp.MustCompile(`\Aself in \[(.*)\] \|\| !self\.find\("\^\(\[\^/\]\+\)"\)\.endsWith\("(.*)"\)\z`)

func child(s map[string]any, names ...string) map[string]any {
	for _, name := range names {
		s, _ = s[name].(map[string]any)
	}
	return s
}

func rulesOf(s map[string]any) []string {
	var out []string
	list, _ := s["x-kubernetes-validations"].([]any)
	for _, r := range list {
		rule, _ := child(map[string]any{"r": r}, "r")["rule"].(string)
		out = append(out, rule)
	}
	return out
}

// settle applies defaults and takes away what the schema does not know, whose
// paths it returns: strict callers are refused for them, others are not told.
// https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting
func settle(s map[string]any, value any, at string) (unknown []string) {
	switch v := value.(type) {
	case map[string]any:
		props := child(s, "properties")
		extra := child(s, "additionalProperties")
		for key, p := range props {
			of, _ := p.(map[string]any)
			if def, has := of["default"]; has && v[key] == nil {
				v[key] = clone(def)
			}
		}
		for key, c := range v {
			switch p, known := props[key].(map[string]any); {
			case known:
				unknown = append(unknown, settle(p, c, at+"."+key)...)
			case extra != nil || s["x-kubernetes-preserve-unknown-fields"] == true:
			default:
				unknown = append(unknown, at+"."+key)
				delete(v, key)
			}
		}
	case []any:
		items := child(s, "items")
		for i, c := range v {
			unknown = append(unknown, settle(items, c, at+"["+strconv.Itoa(i)+"]")...)
		}
	}
	return unknown
}

func clone(v any) any {
	raw, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		return v
	}
	return out
}

// check says what the definition has against the object's spec or status; old is
// nil for a new object.
func (d *definition) check(part string, obj, old map[string]any) error {
	var errs field.ErrorList
	value := clone(obj[part])
	if value == nil && part == "spec" {
		errs = append(errs, field.Required(field.NewPath(part), ""))
	} else if value != nil {
		if err := d.openapi.Properties[part].Value.VisitJSON(value, openapi3.MultiErrors()); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(part), "", strings.Join(strings.Fields(err.Error()), " ")))
		}
	}
	if part == "spec" && d.gvk.Kind == "NodeClaim" {
		errs = append(errs, d.nodeClaimRules(child(obj, part))...)
	}
	if part == "spec" && d.immutable && old != nil && !equality.Semantic.DeepEqual(clone(old[part]), value) {
		errs = append(errs, field.Invalid(field.NewPath(part), "", "spec is immutable"))
	}
	if len(errs) == 0 {
		return nil
	}
	name, _ := child(obj, "metadata")["name"].(string)
	return apierrors.NewInvalid(d.gvk.GroupKind(), name, errs)
}

// nodeClaimRules are the rules in CEL of crds/karpenter.sh_nodeclaims.yaml.
func (d *definition) nodeClaimRules(spec map[string]any) field.ErrorList {
	var errs field.ErrorList
	refuse := func(at, message string) {
		errs = append(errs, field.Invalid(field.NewPath("spec", at), "", message))
	}
	ref := child(spec, "nodeClassRef")
	for _, key := range []string{"group", "kind", "name"} {
		if ref != nil && ref[key] == "" {
			refuse("nodeClassRef", key+" may not be empty")
		}
	}
	list, _ := spec["requirements"].([]any)
	for _, item := range list {
		r, _ := item.(map[string]any)
		key, _ := r["key"].(string)
		op, _ := r["operator"].(string)
		values, _ := r["values"].([]any)
		domain, _, _ := strings.Cut(key, "/")
		for of, allowed := range d.domains {
			if strings.HasSuffix(domain, of) && !slices.Contains(allowed, key) {
				refuse("requirements", fmt.Sprintf("label domain %q is restricted", of))
			}
		}
		switch {
		case key == "kubernetes.io/hostname":
			refuse("requirements", `label "kubernetes.io/hostname" is restricted`)
		case op == "In" && len(values) == 0:
			refuse("requirements", "requirements with operator 'In' must have a value defined")
		case slices.Contains([]string{"Gt", "Lt", "Gte", "Lte"}, op) && !positive(values):
			refuse("requirements", "requirements operator 'Gt', 'Lt', 'Gte', or 'Lte' must have a single positive integer value")
		}
	}
	return errs
}

func positive(values []any) bool {
	if len(values) != 1 {
		return false
	}
	text, _ := values[0].(string)
	n, err := strconv.Atoi(text)
	return err == nil && n >= 0
}
