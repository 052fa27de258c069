package awslive

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Verdict is the answer to one question.
type Verdict string

// The verdicts. All but Yes and Skipped fail the run: what could not be learned
// is not proven.
const (
	Yes     Verdict = "yes"
	No      Verdict = "no"
	Unknown Verdict = "unknown"
	Skipped Verdict = "skipped"
)

// Rows of docs/unverified.md, by how they begin.
const (
	rowCalls      = "AWS calls, signatures, IRSA"
	rowPolicy     = "`configs/iam-policy.json` suffices"
	rowScaling    = "Auto Scaling's own words and orders"
	rowAttach     = "Attach times"
	rowParameters = "Public parameters of Bottlerocket"
	rowTrail      = "CloudTrail shows the request ids"
	rowTimes      = "Times of AWS"
	rowKMS        = "AWS KMS as the ledger's keys"
	rowLock       = "S3 Object Lock at Amazon"
	rowS3Policy   = "Policies of role and bucket"
	rowS3Time     = "Time and price of a ledger in S3"
)

// Rows are all rows that a run may answer.
var Rows = []string{rowCalls, rowPolicy, rowScaling, rowAttach, rowParameters, rowTrail, rowTimes, rowKMS, rowLock, rowS3Policy, rowS3Time}

// Answer is one question with its answer, and the row of docs/unverified.md that
// it serves.
type Answer struct {
	Row, Question string
	Verdict       Verdict
	Detail        string
}

// Measure is a time that was taken.
type Measure struct {
	Row, What string
	Took      time.Duration
}

// Leftover is something that the run made and that is still there.
type Leftover struct{ What, Remove string }

// Report is what a run found out. It prints as it goes, so that a run that is
// cut off has said what it did. It is not safe for concurrent use.
type Report struct {
	Answers  []Answer
	Measures []Measure
	Left     []Leftover
	say      func(format string, args ...any)
}

func (r *Report) answer(row, question string, v Verdict, format string, args ...any) {
	a := Answer{row, question, v, fmt.Sprintf(format, args...)}
	r.Answers = append(r.Answers, a)
	r.say("%-7s %s: %s [%s]", a.Verdict, a.Question, a.Detail, a.Row)
}

// learn answers yes, or unknown with the error that kept it from being learned.
func (r *Report) learn(row, question string, err error, format string, args ...any) bool {
	if err != nil {
		r.answer(row, question, Unknown, "%v", err)
		return false
	}
	r.answer(row, question, Yes, format, args...)
	return true
}

// holds answers yes or no.
func (r *Report) holds(row, question string, ok bool, format string, args ...any) {
	v := No
	if ok {
		v = Yes
	}
	r.answer(row, question, v, format, args...)
}

func (r *Report) measure(row, what string, took time.Duration) {
	r.Measures = append(r.Measures, Measure{row, what, took})
	r.say("took    %s: %s", what, took.Round(time.Millisecond))
}

func (r *Report) made(what, remove string, args ...any) {
	l := Leftover{what, fmt.Sprintf(remove, args...)}
	r.Left = append(r.Left, l)
	r.say("made    %s", l.What)
}

// clean says that nothing was answered with no, and nothing left unknown.
func (r *Report) clean() error {
	var open []string
	for _, a := range r.Answers {
		if a.Verdict == No || a.Verdict == Unknown {
			open = append(open, fmt.Sprintf("%s (%s)", a.Question, a.Verdict))
		}
	}
	if len(open) > 0 {
		return errors.New("not as assumed: " + strings.Join(open, "; "))
	}
	return nil
}

// close prints what goes into docs/unverified.md and what is to be removed.
func (r *Report) close() {
	if len(r.Measures) > 0 {
		var b strings.Builder
		b.WriteString("| Measured | Took | Row |\n|---|---|---|\n")
		for _, m := range r.Measures {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", m.What, m.Took.Round(time.Millisecond), m.Row)
		}
		r.say("for docs/unverified.md:\n%s", b.String())
	}
	if len(r.Left) == 0 {
		r.say("left behind: nothing")
	}
	for _, l := range r.Left {
		r.say("left behind: %s\n    remove: %s", l.What, l.Remove)
	}
}
