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

{{- define "runnerward.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}
