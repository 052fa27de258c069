// Package lease lets one of several daemons act while the others stand by, by a
// Lease of the cluster (coordination.k8s.io/v1) and client-go's election.
//
// It is a courtesy, not a lock. A process that is stopped for longer than the
// lease lasts, or a machine that is cut off, goes on for a moment beside the
// one that took over, and nothing here can prevent that. What keeps two daemons
// from both writing is the log, whose next place only one of them can create.
package lease
