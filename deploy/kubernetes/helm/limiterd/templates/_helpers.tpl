{{- define "limiterd.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "limiterd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "limiterd.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "limiterd.selector" . }}
{{- end }}

{{/* The LimiterConfig file. */}}
{{- define "limiterd.config" -}}
{{- .Values.config | default (.Files.Get (printf "files/%s/limiterd.yaml" .Values.profile)) -}}
{{- end }}

{{/* Policy files by name: what the pods themselves need, and the user's or else the profile's examples. */}}
{{- define "limiterd.policies" -}}
{{- $files := dict -}}
{{- range $path, $bytes := .Files.Glob (printf "files/%s/fixed/*" .Values.profile) -}}
{{- $_ := set $files (base $path) (toString $bytes) -}}
{{- end -}}
{{- if not .Values.policies -}}
{{- range $path, $bytes := .Files.Glob (printf "files/%s/policy/*" .Values.profile) -}}
{{- $_ := set $files (base $path) (toString $bytes) -}}
{{- end -}}
{{- end -}}
{{- merge (dict) .Values.policies $files | toYaml -}}
{{- end }}

{{/* What the pods of both profiles have in common. */}}
{{- define "limiterd.metadata" -}}
labels:
  {{- include "limiterd.selector" . | nindent 2 }}
  {{- with .Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: limiterd
  # The daemon's own settings take effect at a start; policies are read again while it runs.
  limiterd.io/config: {{ include "limiterd.config" . | sha256sum | trunc 16 | quote }}
  {{- with .Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "limiterd.pod" -}}
serviceAccountName: {{ include "limiterd.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "limiterd.container" -}}
name: limiterd
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
{{- if ne .Values.image.pullPolicy "IfNotPresent" }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}
{{- end }}

{{/* Never by `subPath`, which is not updated. */}}
{{- define "limiterd.policyVolume" -}}
name: policy
projected:
  sources:
    - configMap:
        name: {{ include "limiterd.name" . }}-config
    - configMap:
        name: {{ include "limiterd.name" . }}-policy
    # Certificates, beside the policies that name them: `limiterd.io/certificate-file: tls.crt`.
    - secret:
        name: {{ .Values.tlsSecret }}
        optional: true
    # Policy files that are secret, such as a `Secret` with the URL of the store.
    - secret:
        name: {{ .Values.policySecret }}
        optional: true
{{- end }}
