// Package node tests the daemon and the agent with real kubelets and a real
// container runtime: "make test-node". A host is a set of namespaces in which a
// kubelet and a container runtime run; it has an address, an operating system
// and a boot id of its own, and ends all at once.
package node
