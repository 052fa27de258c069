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
