package runner

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// unstartable says that this reason of a pod is one that its specification or
// its images have, not its host: the next host would most likely see the same.
// pkg/kubelet/images/types.go and pkg/kubelet/kuberuntime of Kubernetes 1.37.
func unstartable(podReason string) bool {
	switch podReason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
		"RegistryUnavailable", "SignatureValidationFailed", "CreateContainerConfigError", "CreateContainerError":
		return true
	}
	return false
}

// Hopeless says that a pod which waits for this reason never starts: the kubelet
// cannot even ask for an image of this name, and a pod's name for it stays.
func Hopeless(podReason string) bool { return podReason == "InvalidImageName" }

// maxHold bounds how long hosts are held back from pods that do not start.
const maxHold = time.Hour

// hold is a row of hosts on which no pod started, for reasons that the next host
// will most likely have too.
type hold struct {
	hosts  int
	last   time.Time // when the newest of them was given up
	reason string
}

// held counts back from the newest runner. A pod that presented itself ends the
// row, and so does a daemon that opened the log anew: whoever mends the
// configuration restarts it. Runners that are still on their way, and those that
// ended for other reasons, tell nothing of the image.
func (s *State) held() (h hold) {
	runners := make([]*Runner, 0, len(s.Runners))
	for _, r := range s.Runners {
		if s.Opened == nil || r.Claimed.Index > s.Opened.Index {
			runners = append(runners, r)
		}
	}
	slices.SortFunc(runners, func(a, b *Runner) int { return cmp.Compare(b.Claimed.Index, a.Claimed.Index) })
	for _, r := range runners {
		if r.Bound != nil {
			break
		}
		if r.Retired == nil || !unstartable(r.Retired.Event.PodReason) {
			continue
		}
		if h.hosts == 0 {
			h.reason = r.Retired.Event.PodReason
		}
		if r.Retired.At.After(h.last) {
			h.last = r.Retired.At
		}
		h.hosts++
	}
	return h
}

// wait is how long no further host is taken after the newest, 0 while the row is
// short enough to be chance. It doubles with every host: a registry that is away
// comes back by itself, and a wrong image costs one host an hour in the end.
func (h hold) wait(lim Limits) time.Duration {
	if h.hosts < lim.MaxAttempts {
		return 0
	}
	return min(lim.BindBy<<min(h.hosts-lim.MaxAttempts, 10), maxHold)
}

// HeldBack says why no host is taken for anybody now, empty if that is not so.
func (s *State) HeldBack(now time.Time, lim Limits) string {
	h := s.held()
	until := h.last.Add(h.wait(lim))
	if h.hosts < lim.MaxAttempts || !now.Before(until) {
		return ""
	}
	return fmt.Sprintf("the runners' pods do not start (%s on the last %d hosts): mend the images and restart, else the next host is tried at %s",
		h.reason, h.hosts, until.UTC().Format(time.RFC3339))
}

// allowed is how many of the hosts that are missing may be taken. After a row of
// hosts on which no pod started, one at a time shows whether that has changed.
func (p *planner) allowed(missing int) int {
	h := p.held()
	switch {
	case missing <= 0 || h.hosts < p.lim.MaxAttempts:
		return missing
	case !p.due(h.last, h.wait(p.lim)):
		return 0
	}
	for _, r := range p.Runners {
		if r.idle() && r.Bound == nil {
			return 0
		}
	}
	return 1
}
