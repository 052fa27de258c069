package evidence

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Problem is one thing that is wrong, without its place.
type Problem struct {
	// Invariant is the number of the broken invariant, Rule a stable code.
	Invariant int
	Rule      string
	Detail    string
}

func (p *Problem) Error() string {
	return fmt.Sprintf("invariant %d (%s): %s", p.Invariant, p.Rule, p.Detail)
}

func problem(invariant int, rule, format string, args ...any) *Problem {
	return &Problem{invariant, rule, fmt.Sprintf(format, args...)}
}

// Meaning says what an invariant promises, for a reader who has only its
// number; it is empty for a number that is none.
func Meaning(invariant int) string {
	return map[int]string{
		1:  "a runner is registered only for a job that was authorized before, and handed only to its own pod",
		2:  "a host serves one runner, ever",
		3:  "a job that starts was authorized, and is the only one on its runner",
		4:  "a runner is sealed only after its host, volumes, node and registration were seen to be gone",
		5:  "what is recorded once is not recorded again",
		6:  "one daemon at a time writes",
		7:  "the log is whole: every byte is signed, nothing is missing, moved or rolled back, no silence is unexplained",
		8:  "without a sound clock, log and facts nothing new begins",
		9:  "no secret and no free text is in the log",
		10: "every decision can be replayed from what the log holds",
	}[invariant]
}

// asProblem is the problem that an error reports.
func asProblem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if v, ok := errors.AsType[*runner.Violation](err); ok {
		return &Problem{v.Invariant, v.Rule, fmt.Sprintf("%s: %s", v.Chain, v.Detail)}
	}
	if errors.Is(err, runner.ErrRecorded) {
		return problem(5, "recorded-twice", "the log already holds what this record says")
	}
	return problem(7, "unreadable", "%v", err)
}

// Finding is something wrong with a ledger, and where.
type Finding struct {
	// Record is the index of the record, or -1 when the finding is not about one.
	Record    int64  `json:"record"`
	File      string `json:"file,omitempty"`
	Invariant int    `json:"invariant"`
	Rule      string `json:"rule"`
	Detail    string `json:"detail"`
}

func (f Finding) String() string {
	where := cmp.Or(f.File, "ledger")
	if f.Record >= 0 {
		where = fmt.Sprintf("record %d, %s", f.Record, where)
	}
	return fmt.Sprintf("%s: invariant %d (%s): %s", where, f.Invariant, f.Rule, f.Detail)
}

// Note is something that an auditor may want to know and that is not wrong.
type Note struct {
	File   string `json:"file,omitempty"`
	Detail string `json:"detail"`
}

func (n Note) String() string {
	if n.File == "" {
		return n.Detail
	}
	return n.File + ": " + n.Detail
}
