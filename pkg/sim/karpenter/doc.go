// Package simkarpenter is a stand-in for Karpenter in tests: its custom resources
// as an API server keeps them, and a controller that turns NodeClaims into
// machines, as Karpenter's own does.
//
// The API validates objects with the schemas of Karpenter's own definitions,
// which are copied in crds/, keeps status apart, honours finalizers and
// preconditions, and refuses what an API server refuses. Of the rules in CEL those
// of NodeClaims are carried out, those of EC2NodeClasses are not: a real API
// server checks both in test/kube/api.
//
// The controller follows the source of sigs.k8s.io/karpenter v1.15.0 ("core") and
// github.com/aws/karpenter-provider-aws v1.15.1 ("aws"); every rule cites its
// file. It looks at everything once in a while instead of watching, speaks only
// through clients, and so works with a real API server as well. There is no
// NodePool: what only those have (provisioning, consolidation, drift, budgets) does
// not touch a NodeClaim without one, and is not here.
package simkarpenter
