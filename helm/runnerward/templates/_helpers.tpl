{{- define "runnerward.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "runnerward.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "runnerward.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "runnerward.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "runnerward.selector" -}}
app.kubernetes.io/name: {{ include "runnerward.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: supervisor
{{- end -}}

{{- define "runnerward.labels" -}}
{{ include "runnerward.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: runnerward
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The labels that the daemon gives to runner pods. */}}
{{- define "runnerward.runnerSelector" -}}
app.kubernetes.io/part-of: runnerward
app.kubernetes.io/component: runner
{{- end -}}

{{- define "runnerward.witnessSelector" -}}
app.kubernetes.io/name: {{ include "runnerward.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: witness
{{- end -}}

{{- define "runnerward.witnessLabels" -}}
{{ include "runnerward.witnessSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: runnerward
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "runnerward.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "runnerward.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Cluster-scoped names hold the namespace: two releases may share a name. */}}
{{- define "runnerward.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "runnerward.fullname" .) -}}
{{- end -}}

{{- define "runnerward.claim" -}}
{{- default (printf "%s-ledger" (include "runnerward.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "runnerward.claimSpec" -}}
accessModes: [ReadWriteOnce]
{{- with .Values.persistence.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.persistence.size }}
{{- end -}}

{{/* Whether the daemons elect who leads: several always do. */}}
{{- define "runnerward.elects" -}}
{{- if or (gt (int .Values.replicas) 1) (dig "supervisor" "leaderElection" "enabled" false .Values.config) -}}
yes
{{- end -}}
{{- end -}}

{{/* The daemon's configuration file. */}}
{{- define "runnerward.config" -}}
{{- $elects := dict "supervisor" (dict "leaderElection" (dict "enabled" true)) -}}
{{- toYaml (ternary (mustMergeOverwrite (deepCopy .Values.config) $elects) .Values.config (eq (include "runnerward.elects" .) "yes")) -}}
{{- end -}}

{{- define "runnerward.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The configuration says what the chart makes and mounts, or nothing is rendered. */}}
{{- define "runnerward.agreement" -}}
{{- $c := .Values.config -}}
{{- $full := include "runnerward.fullname" . -}}
{{- $secrets := "/run/secrets/runnerward" -}}
{{- $want := list
  (list "cluster.namespace" (dig "cluster" "namespace" "" $c) .Release.Namespace)
  (list "cluster.serviceAccount" (dig "cluster" "serviceAccount" "" $c) .Values.runnerServiceAccount.name)
  (list "cluster.admissionURL" (dig "cluster" "admissionURL" "" $c) (printf "https://%s-admission.%s.svc:%v" $full .Release.Namespace .Values.ports.admission))
  (list "cluster.kubeconfigFile" (dig "cluster" "kubeconfigFile" "" $c) "")
  (list "pool.name" (dig "pool" "name" "" $c) .Values.scaleSet.name)
  (list "admission.listen" (dig "admission" "listen" ":8443" $c) (printf ":%v" .Values.ports.admission))
  (list "admission.certFile" (dig "admission" "certFile" "" $c) (printf "%s/admission/tls.crt" $secrets))
  (list "admission.keyFile" (dig "admission" "keyFile" "" $c) (printf "%s/admission/tls.key" $secrets))
  (list "status.listen" (dig "status" "listen" ":9443" $c) (printf ":%v" .Values.ports.status))
  (list "status.certFile" (dig "status" "certFile" "" $c) (printf "%s/status/tls.crt" $secrets))
  (list "status.keyFile" (dig "status" "keyFile" "" $c) (printf "%s/status/tls.key" $secrets)) -}}
{{- if include "runnerward.elects" . -}}
{{- $want = append $want (list "supervisor.leaderElection.leaseName" (dig "supervisor" "leaderElection" "leaseName" "runnerward" $c) $full) -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- $mend := printf "replicas is %v, and" .Values.replicas -}}
{{- with .Values.persistence.existingClaim -}}
{{- fail (printf "%s persistence.existingClaim %q can be mounted by one of them: leave it empty, each gets a claim of its own" $mend .) -}}
{{- end -}}
{{- if not (dig "ledger" "s3" "bucket" "" $c) -}}
{{- fail (printf "%s config.ledger.dir is on a volume of each: they would write ledgers of their own. Give config.ledger.s3 and an empty config.ledger.dir, or keep one replica" $mend) -}}
{{- end -}}
{{- range $key := list "keysDir" "kms.previousKeysDir" -}}
{{- $dir := ternary (dig "ledger" "keysDir" "" $c) (dig "ledger" "kms" "previousKeysDir" "" $c) (eq $key "keysDir") -}}
{{- if $dir -}}
{{- fail (printf "%s config.ledger.%s is on a volume of each: they would not have the same keys. Sign with config.ledger.kms (docs/keys.md), or keep one replica" $mend $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.admissionCA -}}
{{- $want = append $want (list "cluster.admissionCAConfigMap" (dig "cluster" "admissionCAConfigMap" "" $c) (printf "%s-admission-ca" $full)) -}}
{{- end -}}
{{- if .Values.hostWitness.enabled -}}
{{- $want = concat $want (list
  (list "hosts.identity.namespace" (dig "hosts" "identity" "namespace" "runnerward-witness" $c) .Values.hostWitness.namespace)
  (list "hosts.identity.serviceAccount" (dig "hosts" "identity" "serviceAccount" "runnerward-witness" $c) .Values.hostWitness.serviceAccount)
  (list "hosts.identity.certificatesFile" (dig "hosts" "identity" "certificatesFile" "" $c) "/run/runnerward/aws/certificates.pem")) -}}
{{- if eq .Values.hostWitness.namespace .Release.Namespace -}}
{{- fail "hostWitness.namespace is that of runner pods, and theirs must not allow hostNetwork: give the witness one of its own" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.hostWitness.from) -}}
{{- fail "hostWitness.from is empty, and a network policy closes the admission API: list the addresses of the pool's nodes" -}}
{{- end -}}
{{- end -}}
{{- range $want -}}
{{- if ne (index . 1) (index . 2) -}}
{{- fail (printf "config.%s is %q, and the chart needs %q" (index . 0) (index . 1) (index . 2)) -}}
{{- end -}}
{{- end -}}
{{- $kept := list "keysDir" "rootFile" -}}
{{- if not (dig "ledger" "s3" "bucket" "" $c) -}}
{{- $kept = append $kept "dir" -}}
{{- end -}}
{{- range $key := $kept -}}
{{- $path := dig "ledger" $key "" $c -}}
{{- $inKMS := and (eq $key "keysDir") (eq $path "") (ne "" (dig "ledger" "kms" "recordKey" "" $c)) -}}
{{- if not (or $inKMS (hasPrefix "/var/lib/runnerward/" $path)) -}}
{{- fail (printf "config.ledger.%s is %q, and only /var/lib/runnerward/ is kept and writable" $key $path) -}}
{{- end -}}
{{- end -}}
{{- $spool := dig "ledger" "spoolDir" "" $c -}}
{{- if and $spool (not (hasPrefix "/var/lib/runnerward/" $spool)) -}}
{{- fail (printf "config.ledger.spoolDir is %q, and what waits there must be on /var/lib/runnerward/, which is kept" $spool) -}}
{{- end -}}
{{- end -}}
