package evidence

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Report is what [Verify] found.
type Report struct {
	Origin string `json:"origin"`
	// Size is the number of records, RootHash the root over all of them in
	// base64; it is empty when records are missing.
	Size     uint64 `json:"size"`
	RootHash string `json:"rootHash,omitempty"`
	// Head is the newest checkpoint of the ledger that was valid.
	Head    string    `json:"head,omitempty"`
	FirstAt time.Time `json:"firstAt,omitzero"`
	LastAt  time.Time `json:"lastAt,omitzero"`
	Jobs    int       `json:"jobs"`
	Runners int       `json:"runners"`
	Hosts   int       `json:"hosts"`
	// Folded is the number of records in State. It is less than Size when the
	// fold stopped at a finding.
	Folded   uint64    `json:"folded"`
	Findings []Finding `json:"findings"`
	Notes    []Note    `json:"notes"`

	// Records are those that could be read, in order.
	Records []runner.Record `json:"-"`
	State   *runner.State   `json:"-"`
}

// OK says that nothing was found wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

func (r *Report) find(record int64, file string, err error) {
	p := asProblem(err)
	r.Findings = append(r.Findings, Finding{record, file, p.Invariant, p.Rule, p.Detail})
}

func (r *Report) note(file, detail string) { r.Notes = append(r.Notes, Note{file, detail}) }

// count fills in the totals.
func (r *Report) count() {
	r.Folded, r.Jobs, r.Runners = r.State.Size, len(r.State.Jobs), len(r.State.Runners)
	hosts := map[string]bool{}
	for _, one := range r.State.Runners {
		hosts[one.Claimed.Event.Host.InstanceID] = true
	}
	r.Hosts = len(hosts)
	if n := len(r.Records); n > 0 {
		r.FirstAt, r.LastAt = r.Records[0].At, r.Records[n-1].At
	}
}

// WriteText writes the report for a person: what was read, what is worth
// knowing, every finding on a line of its own with its place, what the broken
// invariants promise, and last the result.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("log", "%s", r.Origin)
	line("records", "%d", r.Size)
	if len(r.Records) > 0 {
		line("from", "%s", when(r.FirstAt))
		line("to", "%s", when(r.LastAt))
	}
	if r.RootHash != "" {
		line("root", "%s", r.RootHash)
	}
	line("holds", "%s, %s, %s", plural(r.Jobs, "job"), plural(r.Runners, "runner"), plural(r.Hosts, "host"))
	for _, n := range r.Notes {
		line("note", "%s", n)
	}
	broken := map[int]bool{}
	for _, f := range r.Findings {
		line("FINDING", "%s", f)
		broken[f.Invariant] = true
	}
	for _, invariant := range slices.Sorted(maps.Keys(broken)) {
		line("BROKEN", "invariant %d: %s", invariant, Meaning(invariant))
	}
	if r.OK() {
		line("result", "no findings: every record is signed, in its place and allowed by those before it")
	} else {
		line("result", "%s: THIS LEDGER DOES NOT VERIFY", plural(len(r.Findings), "finding"))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// plural is a number of things in words.
func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
