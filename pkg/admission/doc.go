// Package admission is the HTTPS API that the agent in a runner pod talks to:
// it claims the runner's JIT config, and its job-started hook asks whether the
// job may start. The witness on a host presents the host's identity there.
// Package wire documents the protocol.
//
// The package authenticates nobody: it hands tokens to the [Gate], which asks
// those who signed them. What it adds is that a question is well-formed,
// bounded in size, rate and time, asked by one caller at a time for each
// runner, and that neither a token nor a JIT config reaches a log or an error
// message. Whatever goes wrong on our side answers 503, "ask again": never a
// permission and never a refusal.
package admission
