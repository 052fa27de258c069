// Package status is the HTTPS endpoint that people and probes look at: is the
// daemon alive and ready, what is it doing, can we deploy now, and the two
// levers of on-call, freeze and unfreeze.
//
// It shows what [Source] says and decides nothing itself. Reading needs no
// client certificate; freezing needs a verified one whose name is listed in
// [Options.Admins].
package status
