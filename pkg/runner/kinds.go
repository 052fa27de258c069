package runner

func (Opened) Kind() Kind     { return KindOpened }
func (Heartbeat) Kind() Kind  { return KindHeartbeat }
func (Gap) Kind() Kind        { return KindGap }
func (Frozen) Kind() Kind     { return KindFrozen }
func (Unfrozen) Kind() Kind   { return KindUnfrozen }
func (Offered) Kind() Kind    { return KindOffered }
func (Authorized) Kind() Kind { return KindAuthorized }
func (Denied) Kind() Kind     { return KindDenied }
func (Reported) Kind() Kind   { return KindReported }
func (Concluded) Kind() Kind  { return KindConcluded }
func (Claimed) Kind() Kind    { return KindClaimed }
func (Bound) Kind() Kind      { return KindBound }
func (Released) Kind() Kind   { return KindReleased }
func (Started) Kind() Kind    { return KindStarted }
func (Refused) Kind() Kind    { return KindRefused }
func (Retired) Kind() Kind    { return KindRetired }
func (Completed) Kind() Kind  { return KindCompleted }
func (Cancelled) Kind() Kind  { return KindCancelled }
func (Teardown) Kind() Kind   { return KindTeardown }
func (Overdue) Kind() Kind    { return KindOverdue }
func (Ending) Kind() Kind     { return KindEnding }
func (Terminated) Kind() Kind { return KindTerminated }
func (Sealed) Kind() Kind     { return KindSealed }

func (Opened) Chain() Chain       { return LogChain }
func (Heartbeat) Chain() Chain    { return LogChain }
func (Gap) Chain() Chain          { return LogChain }
func (Frozen) Chain() Chain       { return LogChain }
func (Unfrozen) Chain() Chain     { return LogChain }
func (e Offered) Chain() Chain    { return JobChain(e.Job) }
func (e Authorized) Chain() Chain { return JobChain(e.Job) }
func (e Denied) Chain() Chain     { return JobChain(e.Job) }
func (e Reported) Chain() Chain   { return JobChain(e.Job) }
func (e Concluded) Chain() Chain  { return JobChain(e.Job) }
func (e Claimed) Chain() Chain    { return RunnerChain(e.Runner) }
func (e Bound) Chain() Chain      { return RunnerChain(e.Runner) }
func (e Released) Chain() Chain   { return RunnerChain(e.Runner) }
func (e Started) Chain() Chain    { return RunnerChain(e.Runner) }
func (e Refused) Chain() Chain    { return RunnerChain(e.Runner) }
func (e Retired) Chain() Chain    { return RunnerChain(e.Runner) }
func (e Completed) Chain() Chain  { return RunnerChain(e.Runner) }
func (e Teardown) Chain() Chain   { return RunnerChain(e.Runner) }
func (e Overdue) Chain() Chain    { return RunnerChain(e.Runner) }
func (e Ending) Chain() Chain     { return RunnerChain(e.Runner) }
func (e Terminated) Chain() Chain { return RunnerChain(e.Runner) }
func (e Sealed) Chain() Chain     { return RunnerChain(e.Runner) }

// Chain is the runner's when the run had reached one, else the job's.
func (e Cancelled) Chain() Chain {
	if e.Runner != "" {
		return RunnerChain(e.Runner)
	}
	return JobChain(e.Job)
}
