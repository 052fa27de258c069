package main

import (
	"fmt"
	"slices"
	"strings"
)

// document is the part of an OpenAPI 3.0 description that is looked at.
type document struct {
	OpenAPI    string                               `json:"openapi"`
	Info       map[string]any                       `json:"info"`
	Paths      map[string]map[string]map[string]any `json:"paths"`
	Webhooks   map[string]map[string]map[string]any `json:"x-webhooks"`
	Components map[string]map[string]any            `json:"components"`
}

// extract keeps these operations, the payload schemas of these webhooks, and
// every component that they reach.
func extract(doc document, operations, webhooks []string) (map[string]any, error) {
	c := cutter{from: doc.Components, kept: map[string]map[string]any{}}
	paths := map[string]map[string]any{}
	for _, name := range operations {
		method, path, _ := strings.Cut(name, " ")
		op, found := doc.Paths[path][strings.ToLower(method)]
		if !found {
			return nil, fmt.Errorf("the description has no operation %s", name)
		}
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		// What the simulator answers is checked, not what it is asked.
		paths[path][strings.ToLower(method)] = map[string]any{
			"operationId": op["operationId"], "responses": c.responses(op["responses"]),
		}
	}
	for _, name := range webhooks {
		ref, err := payload(doc, name)
		if err != nil {
			return nil, err
		}
		c.follow(ref)
	}
	if len(c.dangling) > 0 {
		return nil, fmt.Errorf("the description refers to what it does not have: %v", c.dangling)
	}
	return map[string]any{
		"openapi": doc.OpenAPI, "paths": paths, "components": c.kept,
		"info": map[string]any{"title": doc.Info["title"], "version": doc.Info["version"], "license": doc.Info["license"]},
	}, nil
}

// payload is the reference to the schema of a webhook's body.
func payload(doc document, name string) (string, error) {
	at := any(doc.Webhooks[name]["post"])
	for _, key := range []string{"requestBody", "content", "application/json", "schema", "$ref"} {
		m, _ := at.(map[string]any)
		at = m[key]
	}
	ref, isText := at.(string)
	if !isText {
		return "", fmt.Errorf("the description has no payload for the webhook %s", name)
	}
	return ref, nil
}

// cutter copies parts of a description and, with them, what they refer to.
type cutter struct {
	from, kept map[string]map[string]any
	dangling   []string
}

// prose are the keys that say nothing about what is valid. default is among
// them: a validator does not fill in answers.
var prose = []string{"description", "summary", "example", "examples", "externalDocs", "default", "title"}

// schema copies without prose. Names of properties are not keywords: one may
// well be called description.
func (c *cutter) schema(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = c.schema(e)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for key, e := range v {
			switch {
			case slices.Contains(prose, key) || strings.HasPrefix(key, "x-"):
			case key == "properties":
				out[key] = c.named(e)
			case key == "enum" || key == "required" || key == "pattern":
				out[key] = e
			case key == "$ref":
				out[key] = e
				c.follow(fmt.Sprint(e))
			default:
				out[key] = c.schema(e)
			}
		}
		return out
	}
	return v
}

func (c *cutter) named(v any) any {
	m, isMap := v.(map[string]any)
	if !isMap {
		return v
	}
	out := map[string]any{}
	for name, e := range m {
		out[name] = c.schema(e)
	}
	return out
}

// responses keeps statuses and the schemas of their bodies. OpenAPI demands a
// description of each.
func (c *cutter) responses(v any) map[string]any {
	out := map[string]any{}
	m, _ := v.(map[string]any)
	for status, r := range m {
		out[status] = c.response(r)
	}
	return out
}

// response leaves out headers: GitHub's are all optional.
func (c *cutter) response(v any) any {
	m, isMap := v.(map[string]any)
	if !isMap {
		return v
	}
	if ref, isRef := m["$ref"].(string); isRef {
		c.follow(ref)
		return map[string]any{"$ref": ref}
	}
	out := map[string]any{"description": ""}
	if content, has := m["content"]; has {
		out["content"] = c.schema(content)
	}
	return out
}

// follow keeps a component, once.
func (c *cutter) follow(ref string) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(ref, "#/components/"), "/")
	if _, done := c.kept[kind][name]; done {
		return
	}
	component, found := c.from[kind][name]
	if !found {
		c.dangling = append(c.dangling, ref)
		return
	}
	if c.kept[kind] == nil {
		c.kept[kind] = map[string]any{}
	}
	c.kept[kind][name] = nil // a schema may reach itself
	if kind == "responses" {
		c.kept[kind][name] = c.response(component)
		return
	}
	c.kept[kind][name] = c.schema(component)
}
