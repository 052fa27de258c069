package simgithub

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// page cuts one page out of a list and says in Link where the others are.
// https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
func page[T any](s *Server, r *http.Request, key string, items []T) answer {
	q := r.URL.Query()
	number := func(name string, fallback, most int) int {
		if n, err := strconv.Atoi(q.Get(name)); err == nil && n > 0 {
			return min(n, most)
		}
		return fallback
	}
	size, n := number("per_page", 30, 100), number("page", 1, 1<<20)
	last := max((len(items)+size-1)/size, 1)
	cut := []T{}
	if from := (n - 1) * size; from < len(items) {
		cut = items[from:min(from+size, len(items))]
	}
	a := ok(map[string]any{"total_count": len(items), key: cut})
	if last > 1 {
		a.header = map[string]string{"Link": s.links(r, q, n, last)}
	}
	return a
}

func (s *Server) links(r *http.Request, q url.Values, n, last int) string {
	link := func(to int, rel string) string {
		q.Set("page", strconv.Itoa(to))
		return fmt.Sprintf(`<%s%s?%s>; rel="%s"`, s.cfg.BaseURL, r.URL.EscapedPath(), q.Encode(), rel)
	}
	var out []string
	if n > 1 {
		out = append(out, link(min(n-1, last), "prev"))
	}
	if n < last {
		out = append(out, link(n+1, "next"), link(last, "last"))
	}
	if n > 1 {
		out = append(out, link(1, "first"))
	}
	return strings.Join(out, ", ")
}

// pageOf is page of a list that is no object.
func pageOf[T any](s *Server, r *http.Request, items []T) answer {
	a := page(s, r, "items", items)
	if doc, isMap := a.body.(map[string]any); isMap {
		a.body = doc["items"]
	}
	return a
}

// cursorPage cuts a page out of a list that is paged by opaque cursors: after and
// before are in Link, and there are no numbers of pages.
// https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
func (s *Server) cursorPage(r *http.Request, items []map[string]any, key string) answer {
	q := r.URL.Query()
	size := 30
	if n, err := strconv.Atoi(q.Get("per_page")); err == nil && n > 0 {
		size = min(n, 100)
	}
	cursor := func(item map[string]any) string {
		return base64.RawURLEncoding.EncodeToString(fmt.Append(nil, item[key]))
	}
	at := func(name string) int {
		return slices.IndexFunc(items, func(item map[string]any) bool { return cursor(item) == q.Get(name) })
	}
	from, to := 0, min(size, len(items))
	switch after, before := q.Get("after") != "", q.Get("before") != ""; {
	case after && at("after") < 0 || before && at("before") < 0:
		return restError(http.StatusUnprocessableEntity, "Invalid cursor")
	case after:
		from = at("after") + 1
		to = min(from+size, len(items))
	case before:
		to = at("before")
		from = max(to-size, 0)
	}
	a := ok(items[from:to])
	var rels []string
	link := func(name, to, rel string) {
		next := maps.Clone(q)
		next.Del("after")
		next.Del("before")
		next.Set(name, to)
		rels = append(rels, fmt.Sprintf(`<%s%s?%s>; rel="%s"`, s.cfg.BaseURL, r.URL.EscapedPath(), next.Encode(), rel))
	}
	if to < len(items) && to > from {
		link("after", cursor(items[to-1]), "next")
	}
	if from > 0 && from < len(items) {
		link("before", cursor(items[from]), "prev")
	}
	if len(rels) > 0 {
		a.header = map[string]string{"Link": strings.Join(rels, ", ")}
	}
	return a
}
