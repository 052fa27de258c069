package status

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

//go:embed page.css
var pageStyle string

//go:embed page.html.tmpl
var pageText string

// contentSecurityPolicy allows our one style sheet, by its hash, and nothing else.
func contentSecurityPolicy() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// newPage parses the page. The text is part of the program: it always parses.
func newPage(explain func(code string) string) *template.Template {
	if explain == nil {
		explain = func(string) string { return "" }
	}
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"age":     age,
		"clock":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"rfc":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"since":   func(now, at time.Time) moment { return moment{at, age(now, at)} },
		"gone":    gone,
		"max":     func(a, b int) int { return max(a, b) },
		"skew":    func(d time.Duration) string { return d.Round(time.Second).String() },
		"https":   func(url string) bool { return strings.HasPrefix(url, "https://") },
		"explain": explain,
	}).Parse(pageText))
}

// moment is a time and how long ago it was.
type moment struct {
	At  time.Time
	Age string
}

// page is what the template shows: the View, and what a reader wants first.
type page struct {
	supervisor.View
	Scope    string // which scale set
	Style    template.CSS
	Refresh  bool
	FIPS     supervisor.FIPS
	Version  string
	Answer   string // "Yes", "No" or "Not now"
	Headline string
	Tone     string
	Open     int // runners whose host is not yet gone
	Overdue  int
	Jobs     []supervisor.JobView
	Denied   []supervisor.JobView
	Limits   []limit
}

// statusz shows the View: as it is to programs, as a page to people.
func (s *Server) statusz(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if f := query.Get("format"); f != "" && f != "json" && f != "html" {
		s.text(w, http.StatusBadRequest, "format is json or html\n")
		return
	}
	view := s.opts.Source.View()
	w.Header().Set("Vary", "Accept")
	if wantsJSON(r) {
		s.json(w, http.StatusOK, view)
		return
	}
	p := s.page(view)
	p.Refresh = query.Get("refresh") != "off"
	var b bytes.Buffer
	if err := s.pages.Execute(&b, p); err != nil {
		s.opts.Logger.Error("status page not rendered", zap.Error(err))
		s.text(w, http.StatusInternalServerError, "the page could not be rendered; ask for /statusz?format=json\n")
		return
	}
	s.body(w, http.StatusOK, "text/html; charset=utf-8", b.Bytes())
}

func (s *Server) page(view supervisor.View) page {
	p := page{View: view, Style: template.CSS(pageStyle), FIPS: s.opts.FIPS, Version: s.opts.Version, Scope: s.scope(), Limits: limits(view)}
	p.Answer, p.Tone = verdict(view)
	p.Headline = headline(p.Answer, view)
	for _, j := range view.Jobs {
		if len(j.Reasons) > 0 || j.Phase == runner.KindDenied || j.Phase == runner.KindRefused {
			p.Denied = append(p.Denied, j)
		} else {
			p.Jobs = append(p.Jobs, j)
		}
	}
	for _, r := range view.Runners {
		if gone(r) {
			continue
		}
		p.Open++
		if r.Overdue {
			p.Overdue++
		}
	}
	return p
}

// gone says that the runner's host was observed gone, late or not.
func gone(r supervisor.RunnerView) bool {
	return r.Phase == runner.KindTerminated || r.Phase == runner.KindSealed
}

func (s *Server) scope() string {
	return strings.Trim(s.opts.Labels.Namespace+"/"+s.opts.Labels.Name, "/")
}

// verdict is the answer to "can we deploy now?". "No" is something that is
// broken; "Not now" is what passes, such as a freeze or hosts that are all in use.
func verdict(view supervisor.View) (word, tone string) {
	switch {
	case view.CanDeploy:
		return "Yes", "ok"
	case ready(view.Checks):
		return "Not now", "wait"
	default:
		return "No", "bad"
	}
}

func headline(answer string, view supervisor.View) string {
	switch {
	case view.CanDeploy:
		return answer + "."
	case len(view.Why) == 0 && view.Frozen != nil:
		return answer + ", because admission is frozen."
	case len(view.Why) == 0:
		return answer + ", because the daemon is not ready: see the checks."
	}
	because := strings.TrimSuffix(view.Why[0], ".")
	if more := len(view.Why) - 1; more > 0 {
		return fmt.Sprintf("%s, because %s, and %d more.", answer, because, more)
	}
	return answer + ", because " + because + "."
}

// age is how long before now a time is, in the words of somebody who is tired:
// two units at most.
func age(now, at time.Time) string {
	if at.IsZero() {
		return "unknown"
	}
	d := max(0, now.Sub(at)).Truncate(time.Second)
	hours, minutes, seconds := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case hours >= 48:
		return fmt.Sprintf("%d d %d h", hours/24, hours%24)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds)
	}
	return fmt.Sprintf("%d s", seconds)
}
