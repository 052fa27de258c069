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
		fmt.Fprintf(&b, "THE LOG DOES NOT VERIFY: %s. What follows rests on its first %s.\n", plural(x.Findings, "finding"), plural(int(x.Size), "record"))
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
