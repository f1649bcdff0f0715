{{- define "resadapt.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "resadapt.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "resadapt.labels" -}}
{{ include "resadapt.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "resadapt.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end }}

{{/* The site file, which listens on all addresses of its pod. */}}
{{- define "resadapt.site" -}}
{{- $listens := dict "api" (dict "host" "0.0.0.0" "port" 8080) "metrics" (dict "host" "0.0.0.0" "port" 9108) -}}
{{ mergeOverwrite (deepCopy .Values.site) $listens | toYaml }}
{{- end }}

{{- define "resadapt.siteMap" -}}
{{- .Values.existingSite | default (include "resadapt.name" .) -}}
{{- end }}

{{- define "resadapt.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "resadapt.security" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{- define "resadapt.env" -}}
{{- range .Values.secrets.env }}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}
{{- end }}

{{- define "resadapt.mounts" -}}
- {name: site, mountPath: /etc/resadapt, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- range .Values.secrets.files }}
- {name: {{ printf "secret-%s" .name }}, mountPath: {{ printf "/run/secrets/%s" .name }}, subPath: {{ .key }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "resadapt.volumes" -}}
- name: site
  configMap: {name: {{ include "resadapt.siteMap" . }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- range .Values.secrets.files }}
- name: {{ printf "secret-%s" .name }}
  secret: {secretName: {{ .secret }}, defaultMode: 288}
{{- end }}
{{- end }}

{{- define "resadapt.state" -}}
- name: state
{{- if .Values.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ .Values.persistence.existingClaim | default (include "resadapt.name" .) }}}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}

{{/* The first key of the API: made in the store before the service starts, if it is not there yet. */}}
{{- define "resadapt.adminKey" -}}
- name: admin-key
  image: {{ include "resadapt.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [key, create, admin, --role, admin, --given, /run/admin-key/key, -c, /etc/resadapt/site.yaml]
  securityContext: {{- include "resadapt.security" . | nindent 4 }}
  env: {{- include "resadapt.env" . | nindent 4 }}
  resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 512Mi}}
  volumeMounts:
    {{- include "resadapt.mounts" . | nindent 4 }}
    - {name: state, mountPath: /var/lib/resadapt}
    - {name: admin-key, mountPath: /run/admin-key, readOnly: true}
{{- end }}

{{- define "resadapt.adminKeyVolume" -}}
- name: admin-key
  secret: {secretName: {{ .Values.adminKey.secret }}, items: [{key: {{ .Values.adminKey.key }}, path: key}], defaultMode: 288}
{{- end }}

{{/* The container that offers API and page; arguments behind the site are in `more`. */}}
{{- define "resadapt.container" -}}
- name: resadapt
  image: {{ include "resadapt.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ concat (list "serve" "-c" "/etc/resadapt/site.yaml") .more | toJson }}
  securityContext: {{- include "resadapt.security" .root | nindent 4 }}
  env: {{- include "resadapt.env" .root | nindent 4 }}
  ports:
    - {name: api, containerPort: 8080}
    - {name: metrics, containerPort: 9108}
  # By the port of the metrics, which has no limit on connections; only the API knows when the start is over.
  startupProbe:
    httpGet: {path: /health/startup, port: api, scheme: {{ if dig "api" "cert_file" "" .root.Values.site }}HTTPS{{ else }}HTTP{{ end }}}
    periodSeconds: 5
    failureThreshold: 120
  livenessProbe:
    httpGet: {path: /health/live, port: metrics}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    httpGet: {path: /health/ready, port: metrics}
    periodSeconds: 5
    timeoutSeconds: 5
  resources: {{- .resources | toYaml | nindent 4 }}
  volumeMounts:
    {{- include "resadapt.mounts" .root | nindent 4 }}
    - {name: state, mountPath: /var/lib/resadapt}
    {{- with .mounts }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}

{{- define "resadapt.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - {name: {{ . }}}
{{- end }}
{{- end }}
{{- with .Values.gpu.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "resadapt.resources" -}}
{{- $more := dict -}}
{{- if .Values.gpu.count -}}
{{- $more = dict "limits" (dict .Values.gpu.resource .Values.gpu.count) -}}
{{- end -}}
{{ mergeOverwrite (deepCopy .Values.resources) $more | toYaml }}
{{- end }}

{{- define "resadapt.isPostgresql" -}}
{{- if hasPrefix "postgres" (.Values.site.store | default "") }}yes{{ end -}}
{{- end }}
