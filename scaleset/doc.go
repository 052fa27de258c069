// Package scaleset listens to the message queue of one GitHub Actions runner
// scale set and makes its just-in-time registrations. It is the adapter of the
// ports supervisor.Queue and supervisor.Registrar.
//
//	Open      group by name -> scale set, found or made -> compared with what was asked for
//	Run       session -> poll -> convert -> observe (durable) -> acquire -> acknowledge -> poll
//	Register  one just-in-time configuration for one runner name
//
// The wire is spoken by the official client, github.com/actions/scaleset. Its
// listener package is not used: that acknowledges a message before handing it
// on and never hands on JobAssigned, so a crash between the two would lose what
// the message said. Three habits of the client shape this package:
//
//   - one mutex is held over a whole long poll, so everything that touches the
//     session happens in the one goroutine of [ScaleSet.Run], and registrations
//     have clients of their own;
//   - it panics on several odd answers, so no call leaves this package unguarded,
//     and a client that panicked is thrown away, because it may have kept a lock;
//   - its errors carry URLs and response bodies, so none of them leaves this
//     package: see [Error].
package scaleset
