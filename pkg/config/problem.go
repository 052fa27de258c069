package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Problem is one thing that is wrong.
type Problem struct {
	// File is the file's name, or "environment". Line and Col count from 1;
	// they are 0 for what has no place.
	File      string
	Line, Col int
	// Key is the path of the key, such as pool.workflows[0].ref.
	Key  string
	What string
	// Mend says how to put it right.
	Mend string
}

// String is "file:line:col: key: what (mend)".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.What)
	if p.Mend != "" {
		b.WriteString(" (" + p.Mend + ")")
	}
	return b.String()
}

// Problems is the error of a configuration that is refused: everything that is
// wrong with it, in the order of the file, and then what is missing.
type Problems struct{ List []Problem }

// Error is one problem a line.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, problem := range p.List {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

func (p *Problems) add(problem Problem) { p.List = append(p.List, problem) }

// err is nil when there is no problem.
func (p *Problems) err() error {
	if len(p.List) == 0 {
		return nil
	}
	slices.SortStableFunc(p.List, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.order(), b.order()), cmp.Compare(a.Col, b.Col))
	})
	return p
}

// order puts what is wrong at a place before what is missing altogether: a
// misspelt key explains the missing one.
func (p Problem) order() int {
	if p.Line == 0 {
		return math.MaxInt
	}
	return p.Line
}

// nearest is the candidate with the fewest edits from word, empty when none is
// near enough to have been meant.
func nearest(word string, candidates []string) string {
	best, edits := "", 1+len(word)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d <= edits && (best == "" || d < edits) {
			best, edits = c, d
		}
	}
	return best
}

// distance is the number of single-byte insertions, deletions and
// substitutions between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// Warnings are what is allowed and yet most likely a mistake, for a person to
// look at before the daemon is started.
func (c *Config) Warnings() []string {
	var out []string
	if c.Supervisor.LeaderElection.Enabled && (c.Ledger.Dir != "" || c.Ledger.KeysDir != "") {
		out = append(out, "supervisor.leaderElection: the ledger or its keys are in folders (ledger.dir, ledger.keysDir). "+
			"A daemon on another machine has folders of its own, would begin a log of its own when it leads, and would know of no runner of ours "+
			"(give ledger.s3 and ledger.kms, or let all daemons run on this machine and from these folders)")
	}
	return out
}
