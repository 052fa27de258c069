package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// narrator tells the story in plain words, with the time since it began.
type narrator struct {
	mu    sync.Mutex
	out   io.Writer
	began time.Time
}

func newNarrator(out io.Writer) *narrator { return &narrator{out: out, began: time.Now()} }

func (n *narrator) line(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.out, "%6.1fs  %s\n", time.Since(n.began).Seconds(), fmt.Sprintf(format, args...))
}

// act begins a part of the story.
func (n *narrator) act(number int, title string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.out, "\n%d. %s\n", number, title)
}

// does is what somebody in the world does.
func (n *narrator) does(format string, args ...any) { n.line("▸ "+format, args...) }

// held is something that was checked.
func (n *narrator) held(format string, args ...any) { n.line("✓ "+format, args...) }

// meaning says each kind of record in plain words.
var meaning = map[string]string{
	"opened":     "the daemon begins to write",
	"heartbeat":  "the daemon was there and had nothing to say",
	"gap":        "the daemon was away",
	"rotated":    "a key hands over to the next",
	"spooled":    "records waited on the daemon's disk while the log was away",
	"closed":     "the year of the log ends",
	"continued":  "the log goes on in a new year",
	"offered":    "GitHub's queue offers the job",
	"reviewed":   "GitHub tells who decided about the deployment",
	"asked":      "GitHub asks about the deployment",
	"ruled":      "the policy rules on it",
	"answered":   "GitHub is told the ruling",
	"stray":      "something bears our marks that no record explains",
	"swept":      "it is gone",
	"authorized": "the policy allows it, by facts asked of GitHub",
	"denied":     "the policy denies it",
	"claimed":    "a vetted host is taken for it, for ever",
	"bound":      "the cluster vouches for the pod on that host",
	"released":   "a runner registration is made and handed over",
	"started":    "GitHub vouches for the job, the policy allows it again: it starts",
	"refused":    "what arrived may not run: it stays blocked and is killed",
	"retired":    "this runner gets no job any more",
	"reported":   "GitHub reports which runner has the job",
	"concluded":  "GitHub reports how the job ended",
	"completed":  "its pod has ended and its registration is gone",
	"cancelled":  "GitHub is asked to cancel the run",
	"teardown":   "the host is to end, with these volumes",
	"overdue":    "the host should be gone by now",
	"ending":     "EC2 shows the host on its way out",
	"terminated": "EC2 shows the host terminated, volumes and node gone",
	"sealed":     "the job-to-host statement is signed",
	"rebuffed":   "somebody asked in its name and was turned away",
	"frozen":     "admission is frozen",
	"unfrozen":   "admission is open again",
}

// record tells of a record that is durable in the ledger.
func (n *narrator) record(index uint64, kind, chain string) {
	what, who, _ := strings.Cut(chain, "/")
	if what == "log" {
		who = "the log"
	} else if len(who) > 8 {
		who = what + " …" + who[len(who)-6:]
	}
	n.line("  #%-3d %-10s %-15s %s", index, kind, who, meaning[kind])
}

// job tells what a job's log shows to its developer.
func (n *narrator) job(runner, line string) {
	if line != "" {
		n.line("  | job log on …%s: %s", runner[max(0, len(runner)-6):], line)
	}
}
