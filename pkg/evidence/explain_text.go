package evidence

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"
)

// WriteText writes the explanation for a person: plain text, aligned, with the
// number of the record behind every fact.
func (x *Explanation) WriteText(w io.Writer) error {
	var b bytes.Buffer
	if x.Verified {
		fmt.Fprintf(&b, "The log was verified: %d records, no findings.\n", x.Size)
	} else {
		fmt.Fprintf(&b, "THE LOG HAS %d FINDINGS. What follows rests on its first %d records.\n", x.Findings, x.Size)
	}
	if len(x.Stories) > 1 {
		fmt.Fprintf(&b, "%q means %d jobs.\n", x.Query, len(x.Stories))
	}
	for _, s := range x.Stories {
		s.write(&b)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (s Story) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n%s\n", s.Title)
	if s.URL != "" {
		fmt.Fprintf(b, "%s\n", s.URL)
	}
	fmt.Fprintf(b, "Outcome: %s.\n", s.Outcome)
	for _, r := range s.Reasons {
		fmt.Fprintf(b, "  because %s: %s\n", r.Code, r.Words)
	}
	width, digits := 0, 1
	for _, a := range s.Answers {
		for _, f := range a.Facts {
			width = max(width, utf8.RuneCountInString(f.Name))
			digits = max(digits, len(fmt.Sprint(f.Record)))
		}
	}
	for _, a := range s.Answers {
		fmt.Fprintf(b, "\n%s\n", a.Question)
		for _, f := range a.Facts {
			fmt.Fprintf(b, "  %-*s  %s\n", width+digits+3, fmt.Sprintf("#%-*d  %s", digits, f.Record, f.Name), f.Value)
		}
	}
}

// WriteText writes the report for a person.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "log       %s\nrecords   %d\n", r.Origin, r.Size)
	if r.RootHash != "" {
		fmt.Fprintf(&b, "root      %s\n", r.RootHash)
	}
	if r.Size > 0 {
		fmt.Fprintf(&b, "from      %s\nto        %s\n", when(r.FirstAt), when(r.LastAt))
	}
	fmt.Fprintf(&b, "jobs      %d\nrunners   %d\nhosts     %d\n", r.Jobs, r.Runners, r.Hosts)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note      %s\n", n)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "FINDING   %s\n", f)
	}
	if r.OK() {
		fmt.Fprintf(&b, "result    no findings\n")
	} else {
		fmt.Fprintf(&b, "result    %d FINDINGS\n", len(r.Findings))
	}
	_, err := w.Write(b.Bytes())
	return err
}
