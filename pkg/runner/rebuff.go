package runner

import "slices"

// GateClaim is where a runner's configuration is handed out. The policy is not
// asked there: the job was decided about before.
const GateClaim Gate = "claim"

// RebuffCause says why somebody was turned away at a gate. The set is closed.
type RebuffCause string

// The causes of a rebuff. For all but the first the cluster vouched for the
// token: it is genuine, alive, and of the caller that the record names.
const (
	// RebuffRejected: the cluster does not vouch for the token at all. It is
	// forged or expired, or its pod or account is gone; the cluster tells these
	// apart in free text only.
	RebuffRejected RebuffCause = "token-rejected"
	// RebuffOtherAudience: it was made for something else than the record that
	// authorized this runner's job.
	RebuffOtherAudience RebuffCause = "other-audience"
	// RebuffOtherAccount: it is of another service account, or of a person.
	RebuffOtherAccount RebuffCause = "other-account"
	// RebuffNoPod: it is not bound to one pod on one node.
	RebuffNoPod RebuffCause = "no-pod"
	// RebuffOtherPod: it is of a pod that does not have the runner's name.
	RebuffOtherPod RebuffCause = "other-pod"
	// RebuffSecondPod: the pod has the runner's name, and another pod of this
	// name is bound.
	RebuffSecondPod RebuffCause = "second-pod"
	// RebuffOtherNode: the pod runs on another node than the claimed host. Of
	// [GateClaim] only.
	RebuffOtherNode RebuffCause = "other-node"
	// RebuffNotBound: the pod asked to start a job and is not bound. Of
	// [GateStart] only.
	RebuffNotBound RebuffCause = "not-bound"
	// RebuffReplay: the bound pod's configuration was handed out already. It may
	// have been lost on its way. Of [GateClaim] only.
	RebuffReplay RebuffCause = "replay"
	// RebuffRunnerOver: the runner had ended. Of [GateClaim] only.
	RebuffRunnerOver RebuffCause = "runner-over"
)

// RebuffCauses are all causes of a rebuff at this gate.
func RebuffCauses(g Gate) []RebuffCause {
	both := []RebuffCause{RebuffRejected, RebuffOtherAudience, RebuffOtherAccount, RebuffNoPod, RebuffOtherPod, RebuffSecondPod}
	switch g {
	case GateClaim:
		return append(both, RebuffOtherNode, RebuffReplay, RebuffRunnerOver)
	case GateStart:
		return append(both, RebuffNotBound)
	}
	return nil
}

// Caller is who presented a token according to the cluster that signed it. Of a
// token that is bound to no pod there is only an account, of a person's nothing.
type Caller struct {
	Namespace      string `json:"namespace,omitempty" pat:"name,opt"`
	ServiceAccount string `json:"serviceAccount,omitempty" pat:"dns,opt"`
	PodUID         string `json:"podUid,omitempty" pat:"word,opt"`
	NodeName       string `json:"nodeName,omitempty" pat:"dns,opt"`
	NodeUID        string `json:"nodeUid,omitempty" pat:"word,opt"`
}

// Caller is the part of the identity that a rebuff records.
func (id PodIdentity) Caller() Caller {
	return Caller{Namespace: id.Namespace, ServiceAccount: id.ServiceAccount, PodUID: id.PodUID, NodeName: id.NodeName, NodeUID: id.NodeUID}
}

// Recordable leaves out what does not have the shape of what it is, field by
// field: that somebody was turned away is recorded whoever it was.
func (c Caller) Recordable() Caller {
	for tag, fields := range map[string][]*string{
		"name": {&c.Namespace}, "dns": {&c.ServiceAccount, &c.NodeName}, "word": {&c.PodUID, &c.NodeUID},
	} {
		for _, field := range fields {
			if validateString(*field, "", tag) != nil {
				*field = ""
			}
		}
	}
	return c
}

// onNode says that the caller is a pod on a node.
func (c Caller) onNode() bool { return c.PodUID != "" && c.NodeName != "" && c.NodeUID != "" }

// Rebuffed says that somebody asked in a runner's name and was turned away. It
// never changes what happens to the runner. One record for each gate and cause
// is all that a runner's chain takes: who may ask must not be able to fill a log
// that nobody can shorten.
type Rebuffed struct {
	Runner Name        `json:"runner" pat:"name"`
	Gate   Gate        `json:"gate" pat:"word"`
	Cause  RebuffCause `json:"cause" pat:"word"`
	// Caller is nil exactly when the cluster does not vouch for the token: what
	// such a token says of itself is not recorded.
	Caller *Caller `json:"caller,omitempty"`
}

func (Rebuffed) Kind() Kind     { return KindRebuffed }
func (e Rebuffed) Chain() Chain { return RunnerChain(e.Runner) }

// RebuffedFor is the record of this gate and cause, nil if there is none.
func (r *Runner) RebuffedFor(g Gate, cause RebuffCause) *Of[Rebuffed] {
	i := slices.IndexFunc(r.Rebuffs, func(o Of[Rebuffed]) bool { return o.Event.Gate == g && o.Event.Cause == cause })
	if i < 0 {
		return nil
	}
	return &r.Rebuffs[i]
}

// checkRebuffed also compares the cause with what is on record: a log may not
// call the bound pod a stranger, nor a stranger the bound pod.
func checkRebuffed(v verdict, r *Runner, e Rebuffed) error {
	switch {
	case r == nil:
		return v.breaks(1, "unclaimed", "rebuffed without a claimed host")
	case !slices.Contains(RebuffCauses(e.Gate), e.Cause):
		return v.breaks(9, "rebuff", "%s at gate %s is not a cause of a rebuff", e.Cause, e.Gate)
	case (e.Caller == nil) != (e.Cause == RebuffRejected):
		return v.breaks(9, "rebuff", "a caller is named exactly when the cluster vouches for it")
	case r.RebuffedFor(e.Gate, e.Cause) != nil:
		return ErrRecorded
	case r.Sealed != nil:
		return v.breaks(4, "sealed", "rebuffed after the runner was sealed")
	case e.Caller == nil:
		return nil
	}
	return checkCaller(v, r, e.Cause, *e.Caller)
}

func checkCaller(v verdict, r *Runner, cause RebuffCause, c Caller) error {
	host := r.Claimed.Event.Host
	_, ended := r.Ended()
	bound := r.Bound != nil && r.Bound.Event.PodUID == c.PodUID
	switch cause {
	case RebuffOtherAudience, RebuffOtherAccount, RebuffNoPod:
		return nil
	}
	switch {
	case !c.onNode():
		return v.breaks(1, "rebuff", "%s is said of a pod, and none is named", cause)
	case cause == RebuffReplay && (r.Released == nil || !bound):
		return v.breaks(1, "rebuff", "a replay by pod %s, to which no configuration was handed out", c.PodUID)
	case (cause == RebuffOtherPod || cause == RebuffSecondPod) && bound:
		return v.breaks(1, "rebuff", "pod %s is the bound one, not another", c.PodUID)
	case cause == RebuffSecondPod && r.Bound == nil:
		return v.breaks(1, "rebuff", "a second pod, and no first one is bound")
	case cause == RebuffOtherNode && c.NodeName == host.NodeName && c.NodeUID == host.NodeUID:
		return v.breaks(1, "rebuff", "node %s is that of the claimed host", c.NodeName)
	case cause == RebuffRunnerOver && !ended:
		return v.breaks(1, "rebuff", "the runner is said to be over and is not")
	}
	return nil
}
