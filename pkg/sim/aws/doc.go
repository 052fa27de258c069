// Package simaws is an honest pretend AWS: the parts of Amazon EC2 and Amazon
// EC2 Auto Scaling that the end of a host depends on, and of STS, IAM, KMS,
// Systems Manager and EKS those that a daemon in a cluster asks, as an
// [http.Handler]. The real SDKs talk to it. It keeps state, checks signatures
// and refuses what the services refuse; each rule of behaviour names its source.
//
// It knows no goroutine of its own: what happens by itself (boot, shutdown,
// refill, aging out) is computed from timestamps whenever a request comes or
// [Server.Advance] is called, so it runs in a testing/synctest bubble.
//
// All services share one address. Each is spoken in its own protocol (EC2
// query, query, AWS JSON 1.1, REST JSON), and in test/awsmodel every answer is
// held to AWS's own models, every request of the SDK's snapshots to what is
// understood. Those prove shapes; semantics are only as good as their sources.
//
// Assumed, since no source says so: that credentials of EKS Pod Identity live
// for six hours, the wording of messages without a source beside them, and
// which of two errors comes first when a request deserves both.
//
// Left out: policies (a permission is there for all or, after [Server.Deny],
// for none), session policies and tags, other partitions than aws, keys of KMS
// that do not sign, grants, parameters of other types than String, and what
// node groups do by themselves.
package simaws
