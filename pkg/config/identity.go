package config

// identity is about the witness of hosts.
func (v *validation) identity() {
	id := v.Hosts.Identity
	v.shaped("hosts.identity.namespace", id.Namespace, isDNSLabel)
	v.shaped("hosts.identity.serviceAccount", id.ServiceAccount, isDNSName)
	if id.CertificatesFile == "" {
		if id.Required {
			v.report("hosts.identity.required", "no documents are taken, so no host could serve a job", "give hosts.identity.certificatesFile or set it to false")
		}
		return
	}
	v.readable("hosts.identity.certificatesFile", id.CertificatesFile, required)
	if v.Hosts.Driver == driverNone {
		v.report("hosts.identity.certificatesFile", `the driver "none" knows no instances to compare documents with`, "leave it out")
	}
	if id.Namespace == v.Cluster.Namespace {
		v.report("hosts.identity.namespace", "the namespace of runner pods", "give the witness one of its own: it needs hostNetwork, which runner pods must not have")
	}
}
