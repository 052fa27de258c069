package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// writeStatus answers on-call's question first, and then shows what speaks for
// the answer. A table without rows is left out.
func writeStatus(out io.Writer, v supervisor.View) error {
	var b bytes.Buffer
	answer := "No."
	switch {
	case v.CanDeploy:
		answer = "Yes."
	case v.StandingBy:
		answer = "Only the leader knows."
	}
	fmt.Fprintln(&b, "Can we deploy now?", answer)
	for _, why := range v.Why {
		fmt.Fprintln(&b, "  -", why)
	}
	if v.Frozen != nil {
		fmt.Fprintf(&b, "Frozen by %s for %s: %s\n", v.Frozen.By, age(v, v.Frozen.Since), v.Frozen.Reason)
	}
	for _, c := range v.Checks {
		if !c.OK {
			fmt.Fprintf(&b, "Failing: %s: %s\n", c.Name, c.Detail)
		}
	}
	for _, w := range v.Warnings {
		fmt.Fprintln(&b, "Worth a look:", w)
	}
	if v.StandingBy { // it has nothing else to tell
		_, err := out.Write(b.Bytes())
		return err
	}
	if v.Leader != "" {
		fmt.Fprintf(&b, "%s leads.\n", v.Leader)
	}
	fmt.Fprintf(&b, "Room for %d of %d runners. The ledger holds %d records", v.Capacity, v.Max, v.Ledger.Size)
	if !v.Ledger.LastAt.IsZero() {
		fmt.Fprintf(&b, ", the newest %s old", age(v, v.Ledger.LastAt))
	}
	fmt.Fprintln(&b, ".")
	if v.Ledger.LastError != "" {
		fmt.Fprintln(&b, "The ledger fails:", v.Ledger.LastError)
	}
	table(&b, []string{"JOB", "REPOSITORY", "RUN", "PHASE", "FOR", "RUNNER", "SAYS"}, jobRows(v))
	table(&b, []string{"RUNNER", "HOST", "PHASE", "FOR", "JOB", "SAYS"}, runnerRows(v))
	table(&b, []string{"ASKED ABOUT", "RUN", "ENVIRONMENT", "FOR", "RULING", "SAYS"}, askRows(v))
	table(&b, []string{"STRAY", "ID", "NAME", "NODE", "FOR"}, strayRows(v))
	table(&b, []string{"WAITING HOST", "INSTANCE", "VETTED", "FAILS"}, hostRows(v))
	_, err := out.Write(b.Bytes())
	return err
}

func jobRows(v supervisor.View) [][]string {
	var rows [][]string
	for _, j := range v.Jobs {
		rows = append(rows, []string{string(j.ID), j.Repository, fmt.Sprint(j.RunID), string(j.Phase), age(v, j.Since),
			string(j.Runner), sentence(string(j.Result), strings.Join(j.Reasons, ", "), j.Problem)})
	}
	return rows
}

func runnerRows(v supervisor.View) [][]string {
	var rows [][]string
	for _, r := range v.Runners {
		var overdue, pending string
		if r.Overdue {
			overdue = "OVERDUE"
		}
		if len(r.Pending) > 0 {
			pending = "not yet gone: " + list(r.Pending, func(s runner.Stage) string { return string(s) })
		}
		rows = append(rows, []string{string(r.Name), r.Instance, string(r.Phase), age(v, r.Since), string(r.Job),
			sentence(overdue, r.Outcome, pending, r.Pod, r.Problem)})
	}
	return rows
}

func askRows(v supervisor.View) [][]string {
	var rows [][]string
	for _, a := range v.Asks {
		rows = append(rows, []string{a.Repository, fmt.Sprint(a.RunID), a.Environment, age(v, a.Since), a.Ruling, a.Problem})
	}
	return rows
}

func strayRows(v supervisor.View) [][]string {
	var rows [][]string
	for _, s := range v.Strays {
		rows = append(rows, []string{string(s.What), s.ID, s.Name, s.Node, age(v, s.Since)})
	}
	return rows
}

func hostRows(v supervisor.View) [][]string {
	var rows [][]string
	for _, h := range v.Hosts {
		vetted := "no"
		if h.Vetted {
			vetted = "yes"
		}
		fails := list(h.Failing, func(c runner.Check) string { return fmt.Sprintf("%s: %s", c.Name, c.Verdict) })
		rows = append(rows, []string{h.Node, h.Instance, vetted, fails})
	}
	return rows
}

// table writes rows in columns; an empty cell is a dash, so that columns can
// be told apart and cut.
func table(b *bytes.Buffer, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = cmp.Or(row[i], "-")
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a buffer takes everything
}

func age(v supervisor.View, t time.Time) string { return v.Now.Sub(t).Round(time.Second).String() }

// sentence joins what is not empty.
func sentence(parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, "; ")
}

func list[T any](items []T, text func(T) string) string {
	var out []string
	for _, item := range items {
		out = append(out, text(item))
	}
	return strings.Join(out, ", ")
}
