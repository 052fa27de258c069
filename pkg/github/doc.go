// Package github asks GitHub's REST API for the facts that the policy needs
// and verifies the identity tokens of jobs. It is the adapter of the ports
// supervisor.GitHub and supervisor.Identity.
//
// Requests go through go-github. Where its types cannot tell "absent" from
// "no", drop a field or refuse a whole answer for one unknown value
// (environments, approvals, runner groups, workflow runs), the answer is
// decoded here instead.
//
// An answer that is missing, odd or contradicts another is an error: it stays
// unknown and nothing is concluded from it. Errors carry what was asked and
// the HTTP status, never a body, a header or a token: see [Error].
package github
