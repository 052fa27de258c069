package simgithub_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// undescribed are the places of properties that GitHub answers with and its
// description does not have, each with where it is known from. Everything else
// that the simulator answers has a name in the description: what clients read
// must not be an invention of ours.
var undescribed = []string{
	"/status",                                               // of errors; docs: troubleshooting the REST API
	"/can_admins_bypass", "/environments/can_admins_bypass", // google/go-github repos_environments.go
	"/external_identity_nameid", // google/go-github orgs_audit_log.go
	// octokit/webhooks, recorded delivery of deployment_review requested: teams
	// review as well, and the description has accounts only.
	"/reviewers/reviewer/slug", "/reviewers/reviewer/privacy", "/reviewers/reviewer/permission", "/reviewers/reviewer/parent",
	"/reviewers/reviewer/notification_setting", "/reviewers/reviewer/members_url", "/reviewers/reviewer/repositories_url",
	"/reviewers/reviewer/description",
	"/reviewers/reviewer/user_view_type", // of accounts; simple-user in the same description
}

// checkNames reports properties that the description has no name for. OpenAPI
// itself allows any: https://spec.openapis.org/oas/v3.0.3#schema-object
func (d *description) checkNames(schema *openapi3.SchemaRef, text []byte) error {
	if schema == nil || len(text) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	var extra []string
	strangers([]*openapi3.Schema{schema.Value}, v, "", &extra)
	extra = slices.DeleteFunc(extra, func(name string) bool { return slices.Contains(undescribed, name) })
	if len(extra) > 0 {
		return fmt.Errorf("the description does not have %s", strings.Join(extra, ", "))
	}
	return nil
}

// strangers walks a value and collects the places of properties that none of the
// schemas names.
func strangers(schemas []*openapi3.Schema, v any, at string, out *[]string) {
	all := flat(schemas)
	switch v := v.(type) {
	case []any:
		var items []*openapi3.Schema
		for _, s := range all {
			if s.Items != nil {
				items = append(items, s.Items.Value)
			}
		}
		for _, e := range v {
			strangers(items, e, at, out)
		}
	case map[string]any:
		if !slices.ContainsFunc(all, closed) {
			return // an object of which nothing is said
		}
		for name, e := range v {
			var of []*openapi3.Schema
			for _, s := range all {
				if p := s.Properties[name]; p != nil {
					of = append(of, p.Value)
				} else if p := s.AdditionalProperties.Schema; p != nil {
					of = append(of, p.Value)
				}
			}
			if len(of) > 0 {
				strangers(of, e, at+"/"+name, out)
			} else if place := at + "/" + name; !slices.Contains(*out, place) && !slices.ContainsFunc(all, open) {
				*out = append(*out, place)
			}
		}
	}
}

// closed says that the schema names its properties; open, that it says in so many
// words that there may be others.
func closed(s *openapi3.Schema) bool { return len(s.Properties) > 0 }

func open(s *openapi3.Schema) bool {
	return s.AdditionalProperties.Has != nil && *s.AdditionalProperties.Has
}

// flat adds what the schemas are made of.
func flat(schemas []*openapi3.Schema) (out []*openapi3.Schema) {
	for _, s := range schemas {
		out = append(out, s)
		for _, list := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf} {
			for _, part := range list {
				out = append(out, flat([]*openapi3.Schema{part.Value})...)
			}
		}
	}
	return out
}

// TestNamesThatGitHubDoesNotHaveAreReported keeps the check itself honest.
func TestNamesThatGitHubDoesNotHaveAreReported(t *testing.T) {
	d, err := readDescription()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"message":"m","documentation_url":"d"}`:               "",
		`{"message":"m","documentation_url":"d","mood":"good"}`: "/mood",
	} {
		err := d.checkNames(d.doc.Components.Schemas["basic-error"], []byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("checkNames(%s) = %v, want %q", text, err, want)
		}
	}
}
