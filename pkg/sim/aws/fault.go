package simaws

import "net/http"

// FaultKind is a way in which a call goes wrong.
type FaultKind string

// The fault menu.
const (
	// Throttle answers RequestLimitExceeded (EC2), Throttling (the other query
	// services) or ThrottlingException (the JSON services):
	// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
	Throttle FaultKind = "throttle"
	// Unavailable answers with status 503, Systems Manager with 500.
	Unavailable FaultKind = "unavailable"
	// InProgress answers ScalingActivityInProgress, a fault that
	// TerminateInstanceInAutoScalingGroup documents.
	InProgress FaultKind = "in-progress"
	// Unauthorized answers UnauthorizedOperation (EC2) or AccessDenied.
	Unauthorized FaultKind = "unauthorized"
	// Hang never answers; the caller has to give up.
	Hang FaultKind = "hang"
	// Stuck lets the terminated instance stay in shutting-down for hours: "if
	// your instance remains in the shutting-down state for several hours,
	// Amazon EC2 treats it as a stuck instance and forcibly terminates it",
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/TroubleshootingInstancesShuttingDown.html
	Stuck FaultKind = "stuck"
	// Ignored accepts a termination that then never happens.
	Ignored FaultKind = "ignored"
	// Stale answers a description as if nothing had been found, the worst case
	// of eventual consistency; where there is nothing to find, it does nothing.
	Stale FaultKind = "stale"
)

// Fault spoils the next Count calls (one if zero) of an action, of any action
// if Action is empty. After applies the call first and then reports the fault:
// the answer is lost, the effect is not.
type Fault struct {
	Action string
	Count  int
	Kind   FaultKind
	After  bool
}

// Inject queues a fault. Faults of one action are used up in order.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Count = max(f.Count, 1)
	s.faults = append(s.faults, f)
}

// ClearFaults removes the faults that are not used up.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFault is the fault that hits this call; its Kind is empty if none does.
func (s *Server) takeFault(action string) Fault {
	for i := range s.faults {
		f := s.faults[i]
		if f.Action != "" && f.Action != action {
			continue
		}
		s.faults[i].Count--
		if s.faults[i].Count == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return f
	}
	return Fault{}
}

// refusal is the answer of a fault that refuses, nil for the others.
func (f Fault) refusal(service string) *apiError {
	if speaks(service) == jsonRPC || speaks(service) == restJSON {
		return f.jsonRefusal(service)
	}
	scaling := speaks(service) == query
	switch {
	case f.Kind == Throttle && scaling:
		return &apiError{http.StatusBadRequest, "Throttling", "Rate exceeded"}
	case f.Kind == Throttle:
		return &apiError{http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded."}
	case f.Kind == Unavailable && scaling:
		return &apiError{http.StatusServiceUnavailable, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."}
	case f.Kind == Unavailable:
		return &apiError{http.StatusServiceUnavailable, "Unavailable", "The server is overloaded and can't handle the request."}
	case f.Kind == InProgress:
		return &apiError{http.StatusBadRequest, "ScalingActivityInProgress",
			"The operation can't be performed because there are scaling activities in progress."}
	case f.Kind == Unauthorized && scaling:
		return &apiError{http.StatusForbidden, "AccessDenied", "User is not authorized to perform this operation"}
	case f.Kind == Unauthorized:
		return &apiError{http.StatusForbidden, "UnauthorizedOperation", "You are not authorized to perform this operation."}
	}
	return nil
}
