package runner

import "slices"

func checkTeardown(v verdict, r *Runner, e Teardown) error {
	if r == nil {
		return v.breaks(2, "unclaimed", "teardown without a claimed host")
	}
	_, ended := r.Ended()
	switch {
	case r.Teardown != nil:
		return ErrRecorded
	case !ended:
		return v.breaks(4, "not-ended", "teardown of a runner that has not ended")
	case e.InstanceID != r.Claimed.Event.Host.InstanceID:
		return v.breaks(4, "other-host", "teardown of %s, claimed was %s", e.InstanceID, r.Claimed.Event.Host.InstanceID)
	}
	for _, vol := range r.Claimed.Event.Host.Volumes {
		if !slices.Contains(e.Volumes, vol) {
			return v.breaks(4, "volume-forgotten", "volume %s was attached when the host was claimed and is not to be watched", vol)
		}
	}
	return nil
}

func checkOverdue(v verdict, r *Runner) error {
	if r == nil {
		return v.breaks(4, "not-ended", "overdue without a claimed host")
	}
	_, ended := r.Ended()
	switch {
	case !ended:
		return v.breaks(4, "not-ended", "overdue before the runner ended")
	case r.Overdue != nil || r.Terminated != nil:
		return ErrRecorded
	}
	return nil
}

func checkEnding(v verdict, r *Runner, e Ending) error {
	switch {
	case r == nil || r.Teardown == nil:
		return v.breaks(4, "no-intent", "ending without a teardown record")
	case r.Ending != nil || r.Terminated != nil:
		return ErrRecorded
	case e.InstanceID != r.Claimed.Event.Host.InstanceID:
		return v.breaks(4, "other-host", "ending is %s, claimed was %s", e.InstanceID, r.Claimed.Event.Host.InstanceID)
	case e.State != "shutting-down" && e.State != "terminated":
		return v.breaks(4, "not-observed", "state %s is not one that an instance ends from", e.State)
	}
	return nil
}

// unlisted is the last state of a host that the cloud has forgotten.
const unlisted = "unlisted"

// observedGone says that the states end in one that proves the host gone.
func observedGone(r *Runner, states []Transition) bool {
	if len(states) == 0 {
		return false
	}
	last := states[len(states)-1].State
	return last == finalState(r.Claimed.Event.Host.Provider) || last == unlisted && r.Ending != nil
}

// finalState is the state in which a host of this provider is over. Without a
// cloud ("none") there is no instance to end: the node stays cordoned for ever
// and the record says so.
func finalState(provider string) string {
	if provider == "none" {
		return "cordoned"
	}
	return "terminated"
}

func checkTerminated(v verdict, r *Runner, e Terminated) error {
	if r == nil || r.Teardown == nil {
		return v.breaks(4, "no-intent", "terminated without a teardown record")
	}
	if r.Terminated != nil {
		return ErrRecorded
	}
	host := r.Claimed.Event.Host
	switch {
	case e.InstanceID != host.InstanceID:
		return v.breaks(4, "other-host", "terminated is %s, claimed was %s", e.InstanceID, host.InstanceID)
	case !observedGone(r, e.States):
		return v.breaks(4, "not-observed", "instance %s was not observed %s", e.InstanceID, finalState(host.Provider))
	case !e.PodGone || !e.RegistrationGone || !e.NodeGone && host.Provider != "none":
		return v.breaks(4, "left-over", "pod gone %t, registration gone %t, node gone %t", e.PodGone, e.RegistrationGone, e.NodeGone)
	}
	for _, vol := range r.Teardown.Event.Volumes {
		if !slices.Contains(e.VolumesGone, vol) {
			return v.breaks(4, "volume-left", "volume %s was not observed gone", vol)
		}
	}
	return nil
}

func (s *State) checkSealed(v verdict, r *Runner, e Sealed) error {
	switch {
	case r == nil || r.Terminated == nil:
		return v.breaks(4, "sealed-alive", "sealed without a terminated host")
	case r.Sealed != nil:
		return ErrRecorded
	case !sameJSON(s.Seal(e.Runner), e):
		return v.breaks(4, "seal-content", "the sealed statement does not say what its events say")
	}
	return nil
}
