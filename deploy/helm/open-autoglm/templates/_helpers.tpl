{{/* Prefix of all names: `open-autoglm` for a release of that name. */}}
{{- define "autoglm.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What a Service or a Deployment selects by. The name is fixed: the operator's NetworkPolicies let
     in pods of that name. */}}
{{- define "autoglm.selector" -}}
app.kubernetes.io/name: open-autoglm
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "autoglm.labels" -}}
{{ include "autoglm.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: open-autoglm
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object. Arguments: root, component, and optionally suffix, namespace, labels,
     annotations. */}}
{{- define "autoglm.metadata" -}}
name: {{ include "autoglm.fullname" .root }}-{{ .component }}{{ with .suffix }}-{{ . }}{{ end }}
{{- if ne (.namespace | default "") "-" }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "autoglm.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A reference to an image. Arguments: root, image. */}}
{{- define "autoglm.image" -}}
{{- $name := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Where clients inside the cluster reach the gateway; shown as status.url. */}}
{{- define "autoglm.gatewayUrl" -}}
{{- $scheme := empty (include "autoglm.tlsSecret" .) | ternary "http" "https" -}}
{{- $inside := printf "%s://%s-gateway.$(POD_NAMESPACE):8000" $scheme (include "autoglm.fullname" .) -}}
{{- $outside := "" -}}
{{- with .Values.gateway.ingress.rest -}}
{{- if and .enabled .hosts (not (hasPrefix "*" (first .hosts))) -}}
{{- $outside = printf "%s://%s" (empty .tls.secretName | ternary "http" "https") (first .hosts) -}}
{{- end -}}
{{- end -}}
{{- .Values.gateway.url | default $outside | default $inside -}}
{{- end -}}

{{/* Name of the Secret with the gateway's certificate; empty where it serves without TLS. */}}
{{- define "autoglm.tlsSecret" -}}
{{- $made := .Values.gateway.tls.certificate.enabled | ternary (printf "%s-gateway-tls" (include "autoglm.fullname" .)) "" -}}
{{- .Values.gateway.tls.secretName | default $made -}}
{{- end -}}

{{/* What listens on every address. */}}
{{- define "autoglm.anyAddress" -}}
{{- eq .Values.ipFamily "IPv6" | ternary "[::]" "0.0.0.0" -}}
{{- end -}}

{{/* What the operator gives to the pods of every model, as JSON; empty without any. */}}
{{- define "autoglm.modelDefaults" -}}
{{- $models := .Values.models -}}
{{- $found := dict -}}
{{- with $models.imagePullSecrets | default .Values.imagePullSecrets }}{{ $_ := set $found "imagePullSecrets" . }}{{ end -}}
{{- with $models.tolerations }}{{ $_ := set $found "tolerations" . }}{{ end -}}
{{- with $models.priorityClassName | default .Values.priorityClassName }}{{ $_ := set $found "priorityClassName" . }}{{ end -}}
{{- if or $models.proxy.httpsProxy $models.proxy.httpProxy }}{{ $_ := set $found "proxy" $models.proxy }}{{ end -}}
{{- if $models.caBundle.configMapName }}{{ $_ := set $found "caBundle" $models.caBundle }}{{ end -}}
{{- if $models.hubToken.secretName }}{{ $_ := set $found "hubToken" $models.hubToken }}{{ end -}}
{{- with $models.serviceAccount.annotations }}{{ $_ := set $found "serviceAccountAnnotations" . }}{{ end -}}
{{- with $found }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* Not empty where tokens are to be taken. */}}
{{- define "autoglm.hasTokens" -}}
{{- $jwt := .Values.gateway.authentication.jwt -}}
{{- if or $jwt.jwks $jwt.secretName $jwt.issuer }}true{{ end -}}
{{- end -}}

{{/* Not empty where the endpoint picker has its certificate from a Secret. */}}
{{- define "autoglm.hasPickerFiles" -}}
{{- with .Values.gateway.endpointPicker }}{{ if and .enabled .secretName (not .plaintext) }}true{{ end }}{{ end -}}
{{- end -}}

{{/* Name of the Secret with the key of tenants' prefix caches; empty where there are no tenants. */}}
{{- define "autoglm.prefixCacheSecret" -}}
{{- if or .Values.gateway.authentication.apiKeys.secretName (include "autoglm.hasTokens" .) -}}
{{- .Values.gateway.prefixCache.secretName | default (printf "%s-gateway-prefix-cache" (include "autoglm.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{/* Whether the gateway serves requests without a credential: true or false. */}}
{{- define "autoglm.allowAnonymous" -}}
{{- $said := .Values.gateway.authentication.anonymous -}}
{{- $isOpen := not (or .Values.gateway.authentication.apiKeys.secretName (include "autoglm.hasTokens" .)) -}}
{{- or (eq $said "Always") (and (eq $said "WhenOpen") $isOpen) -}}
{{- end -}}

{{/* Rights on objects of the watched namespaces. Arguments: root, component, rules. */}}
{{- define "autoglm.rbac" -}}
{{- $scope := . -}}
{{- $namespaces := .root.Values.watchNamespaces | default (list "") -}}
{{- range $namespace := $namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ empty $namespace | ternary "ClusterRole" "Role" }}
metadata:
  {{- include "autoglm.metadata" (merge (dict "namespace" ($namespace | default "-")) $scope) | nindent 2 }}
rules:
  {{- $scope.rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ empty $namespace | ternary "ClusterRoleBinding" "RoleBinding" }}
metadata:
  {{- include "autoglm.metadata" (merge (dict "namespace" ($namespace | default "-")) $scope) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ empty $namespace | ternary "ClusterRole" "Role" }}
  name: {{ include "autoglm.fullname" $scope.root }}-{{ $scope.component }}
subjects:
  - kind: ServiceAccount
    name: {{ include "autoglm.fullname" $scope.root }}-{{ $scope.component }}
    namespace: {{ $scope.root.Release.Namespace }}
{{- end }}
{{- end -}}

{{/* Everything of a pod that gateway and operator have in common, but its containers. Arguments:
     root, component. */}}
{{- define "autoglm.pod" -}}
{{- $values := get .root.Values .component -}}
serviceAccountName: {{ include "autoglm.fullname" .root }}-{{ .component }}
automountServiceAccountToken: true
# Variables that Kubernetes makes of Services could pass for our own.
enableServiceLinks: false
{{- with $values.priorityClassName | default .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- include "autoglm.pullSecrets" .root }}
securityContext:
  {{- include "autoglm.podSecurity" . | nindent 2 }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "autoglm.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "autoglm.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "autoglm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "autoglm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Settings that users change are variables, since those are merged by name in a patch. */}}
{{- define "autoglm.env" -}}
- name: AUTOGLM_LOG_LEVEL
  value: {{ .Values.logs.level }}
- name: AUTOGLM_LOG_FORMAT
  value: {{ .Values.logs.format }}
{{- with .Values.modelNames }}
# Gateway and operator decide by the same rules.
- name: AUTOGLM_MODEL_NAME_RULES
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.tracing.endpoint }}
- name: AUTOGLM_TRACES
  value: otlp:{{ . }}
- name: AUTOGLM_TRACE_SAMPLE_RATIO
  value: {{ $.Values.tracing.sampleRatio | quote }}
{{- end }}
{{- end -}}

{{/* Of the admin port. Starting, living and taking requests are three questions. A node short of CPU
     responds late: to take its gateways out of their Service would be an outage, to restart them worse. */}}
{{- define "autoglm.probes" -}}
startupProbe:
  httpGet:
    path: /health/live
    port: metrics
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 180
livenessProbe:
  httpGet:
    path: /health/live
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /health/ready
    port: metrics
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 5
{{- end -}}

{{- define "autoglm.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace }}
    # NodeLocal DNSCache.
    - ipBlock:
        cidr: 169.254.20.10/32
  # Policies see a connection after it is sent on to a DNS pod, which may listen on either.
  ports:
    {{- range list 53 5353 }}
    {{- $port := . }}
    {{- range list "UDP" "TCP" }}
    - protocol: {{ . }}
      port: {{ $port }}
    {{- end }}
    {{- end }}
{{- end -}}

{{/* Ways out that gateway and operator both need: name servers, the API server, spans. */}}
{{- define "autoglm.egress" -}}
{{ include "autoglm.dnsEgress" . }}
- {{- with .Values.networkPolicy.apiServerCIDRs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  {{- end }}
  ports:
    - protocol: TCP
      port: 443
    - protocol: TCP
      port: 6443
{{- if .Values.tracing.endpoint }}
- ports:
    - protocol: TCP
      port: {{ urlParse .Values.tracing.endpoint | dig "host" "" | regexFind "[0-9]+$" | default "4317" }}
{{- end }}
{{- end -}}

{{- define "autoglm.fromMonitoring" -}}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ .Values.monitoring.namespace }}
{{- end -}}
