// Package runner is the pure core: the life of a job, a runner and a host as
// events, the state that is a fold over them, and the work that is outstanding.
//
// It reads no clock, disk, network or logger and starts no goroutine. Times
// arrive inside events and arguments. The same fold is used by the daemon to
// decide what to do next and by the auditor's verifier to decide whether what
// was done was allowed, so the two cannot disagree.
//
// Words: a host is one EC2 instance that joined the cluster as one node and
// serves at most one runner in its life. A runner is one just-in-time
// registration, one pod, one host and at most one job. Any idle runner of the
// scale set may take any assigned job, so a runner is never "for" a job until
// it has started one.
package runner
