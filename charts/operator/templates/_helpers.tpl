{{/* The name of the operator's objects. */}}
{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $base := .Release.Name -}}
{{- if not (contains "chatflow" $base) }}{{ $base = printf "%s-chatflow" $base }}{{ end -}}
{{- printf "%s-operator" ($base | trunc 45 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: chatflow-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: chatflow
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "operator.fullname" .) -}}
{{- else -}}
{{- required "operator.serviceAccount.name names the ServiceAccount to use when operator.serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "operator.peeringName" -}}
{{- .Values.peering.name | default (include "operator.fullname" .) -}}
{{- end -}}

{{/* The name of the webhook's Service, certificate and configuration. */}}
{{- define "operator.webhookName" -}}
{{- include "operator.fullname" . }}-webhook
{{- end -}}

{{- define "operator.webhookHost" -}}
{{- include "operator.webhookName" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Rules for the ServiceAccount, wherever flows are. */}}
{{- define "operator.flowRules" -}}
{{- $all := "[get, list, watch, create, patch, delete]" -}}
- apiGroups: [chatflow.dev]
  resources: [chatflows]
  verbs: [get, list, watch]
- apiGroups: [chatflow.dev]
  resources: [chatflows/status]
  verbs: [get, patch]
# For owner references that block the owner's deletion, where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [chatflow.dev]
  resources: [chatflows/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps, persistentvolumeclaims, secrets, serviceaccounts, services]
  verbs: {{ $all }}
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: {{ $all }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: {{ $all }}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: {{ $all }}
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: {{ $all }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: {{ $all }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: {{ $all }}
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices, servingruntimes]
  verbs: {{ $all }}
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: {{ $all }}
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: {{ $all }}
# What a failed build said last.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Rules for the peering; a dictionary of root and the peerings' plural. */}}
{{- define "operator.peeringRules" -}}
- apiGroups: [kopf.dev]
  resources: [{{ .plural }}]
  verbs: [list, watch]
- apiGroups: [kopf.dev]
  resources: [{{ .plural }}]
  resourceNames: [{{ include "operator.peeringName" .root }}]
  verbs: [get, patch]
{{- end -}}
