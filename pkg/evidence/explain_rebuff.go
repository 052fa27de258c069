package evidence

import (
	"fmt"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// rebuffText says who was turned away and why, as far as the cluster vouched.
func rebuffText(e runner.Rebuffed) string {
	text := map[runner.RebuffCause]string{
		runner.RebuffRejected:      "somebody presented a token that the cluster does not vouch for (expired, forged, or of a pod that was gone)",
		runner.RebuffOtherAudience: "somebody presented a genuine token that was made for something else",
		runner.RebuffOtherAccount:  "somebody presented a genuine token of another account",
		runner.RebuffNoPod:         "somebody presented a genuine token of the runners' account that is bound to no pod on a node",
		runner.RebuffOtherPod:      "somebody presented a genuine token of another pod",
		runner.RebuffSecondPod:     "another pod of the runner's name presented its own token; it is not the bound one",
		runner.RebuffOtherNode:     "a pod of the runner's name presented its token and ran on another node than the claimed host",
		runner.RebuffNotBound:      "a pod of the runner's name asked to start a job without being bound",
		runner.RebuffReplay:        "the runner's own token was presented a second time, after its configuration had been handed out; nothing was handed out again",
		runner.RebuffRunnerOver:    "the runner's own pod asked for its configuration after the runner had ended",
	}[e.Cause]
	if text == "" {
		text = string(e.Cause)
	}
	c := e.Caller
	if c == nil {
		return text
	}
	var who []string
	if c.ServiceAccount != "" {
		who = append(who, fmt.Sprintf("account %s/%s", c.Namespace, c.ServiceAccount))
	}
	if c.PodUID != "" {
		who = append(who, "pod uid "+c.PodUID)
	}
	if c.NodeName != "" {
		who = append(who, fmt.Sprintf("node %s, uid %s", c.NodeName, c.NodeUID))
	}
	if who == nil {
		return text + "; it named neither account nor pod"
	}
	return text + "; the cluster names " + strings.Join(who, ", ")
}
