{{/*
What the templates share. A component is a dict {root, name, …} made by the file of its name.
*/}}

{{- define "nocturne.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "nocturne" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-nocturne" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that select a component's pods; they never change during a release's life. */}}
{{- define "nocturne.selector" -}}
app.kubernetes.io/name: nocturne
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "nocturne.labels" -}}
{{ include "nocturne.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nocturne.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Restricted pod security: of the pod. */}}
{{- define "nocturne.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Only a volume that is new is changed: a key on it keeps its mode 0600.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Restricted pod security: of every container. */}}
{{- define "nocturne.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What every pod's spec begins with. */}}
{{- define "nocturne.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "nocturne.fullname" $root }}-{{ .name }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "nocturne.podSecurity" . | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A component's pods on different nodes, and in different zones. */}}
{{- define "nocturne.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .root.Values.topologySpread.nodes }}
    labelSelector:
      matchLabels:
        {{- include "nocturne.selector" . | nindent 8 }}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ .root.Values.topologySpread.zones }}
    labelSelector:
      matchLabels:
        {{- include "nocturne.selector" . | nindent 8 }}
{{- end -}}

{{/* Probes over HTTP at the metrics' port: they need neither certificate nor token. */}}
{{- define "nocturne.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 3
{{- end -}}

{{/* Settings that every service has. */}}
{{- define "nocturne.env.service" -}}
{{- $root := .root -}}
- name: NOCTURNE_HOME_DIR
  value: /var/lib/nocturne
- name: NOCTURNE_GENESIS_FILE
  value: {{ .genesis | default "/etc/nocturne/genesis/genesis.avro" }}
- name: NOCTURNE_LISTEN
  value: 0.0.0.0:7400
- name: NOCTURNE_METRICS_LISTEN
  value: 0.0.0.0:7500
- name: NOCTURNE_LOG_LEVEL
  value: {{ $root.Values.logLevel }}
# A process that halted is looked at by a person: it stays, not ready, and is not started again.
- name: NOCTURNE_ON_HALT
  value: stay
{{- with $root.Values.tracing.otlpEndpoint }}
- name: NOCTURNE_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: NOCTURNE_TRACE_RATIO
  value: {{ $root.Values.tracing.ratio | quote }}
{{- end }}
{{- if .kafka }}
{{- with $root.Values.registry.existingSecret }}
- name: NOCTURNE_REGISTRY_URL
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $root.Values.registry.key }}}
{{- end }}
{{- end }}
{{- if ne $root.Values.tls.mode "none" }}
- name: NOCTURNE_TLS_CERT_FILE
  value: /run/secrets/tls/tls.crt
- name: NOCTURNE_TLS_KEY_FILE
  value: /run/secrets/tls/tls.key
{{- if and $root.Values.tls.clientCertificates (has .name (list "command" "query" "consensus")) }}
- name: NOCTURNE_TLS_CLIENT_CA_FILE
  value: /run/secrets/tls/ca.crt
{{- end }}
{{- end }}
{{- if and $root.Values.access.existingSecret (has .name (list "command" "query" "consensus")) }}
- name: NOCTURNE_ACCESS_FILE
  value: /run/secrets/access/{{ $root.Values.access.key }}
{{- end }}
{{- end -}}

{{- define "nocturne.mounts.service" -}}
{{- $root := .root -}}
- name: home
  mountPath: /var/lib/nocturne
- name: tmp
  mountPath: /tmp
{{- if not .genesis }}
- name: genesis
  mountPath: /etc/nocturne/genesis
  readOnly: true
{{- end }}
{{- if ne $root.Values.tls.mode "none" }}
- name: tls
  mountPath: /run/secrets/tls
  readOnly: true
{{- end }}
{{- if and $root.Values.access.existingSecret (has .name (list "command" "query" "consensus")) }}
- name: access
  mountPath: /run/secrets/access
  readOnly: true
{{- end }}
{{- end -}}

{{/* Volumes of a service; `home` is a claim of the StatefulSets and scratch space of the others. */}}
{{- define "nocturne.volumes.service" -}}
{{- $root := .root -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if not .genesis }}
- name: home
  emptyDir: {sizeLimit: 1Gi}
- name: genesis
  configMap:
    name: {{ include "nocturne.fullname" $root }}-genesis
    # While the ceremony has not written it, the pod waits here.
    items:
      - {key: genesis.avro, path: genesis.avro}
{{- end }}
{{- if ne $root.Values.tls.mode "none" }}
- name: tls
  secret:
    secretName: {{ include "nocturne.tls.secret" . }}
    defaultMode: 0440
{{- end }}
{{- if and $root.Values.access.existingSecret (has .name (list "command" "query" "consensus")) }}
- name: access
  secret:
    secretName: {{ $root.Values.access.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "nocturne.tls.secret" -}}
{{- if eq .root.Values.tls.mode "existing" -}}
{{ get .root.Values.tls.existing .name }}
{{- else -}}
{{ include "nocturne.fullname" .root }}-{{ .name }}-tls
{{- end -}}
{{- end -}}

{{/* --------------------------------------------------------------------------------- Kafka */}}

{{- define "nocturne.kafka.cluster" -}}
{{ include "nocturne.fullname" . }}-kafka
{{- end -}}

{{/* The name by which Kafka knows a principal: Strimzi's users are named like their resource. */}}
{{- define "nocturne.kafka.user" -}}
{{- if eq .root.Values.kafka.mode "strimzi" -}}
{{ include "nocturne.fullname" .root }}-{{ .principal }}
{{- else -}}
{{ (get .root.Values.kafka.existing.users .principal).name }}
{{- end -}}
{{- end -}}

{{- define "nocturne.env.kafka" -}}
{{- $root := .root -}}
{{- $kafka := $root.Values.kafka -}}
- name: NOCTURNE_KAFKA_BOOTSTRAP
  value: {{ if eq $kafka.mode "strimzi" }}{{ include "nocturne.kafka.cluster" $root }}-kafka-bootstrap:9093{{ else }}{{ $kafka.existing.bootstrap | quote }}{{ end }}
- name: NOCTURNE_KAFKA_SECURITY_PROTOCOL
  value: {{ if eq $kafka.mode "strimzi" }}sasl_ssl{{ else }}{{ $kafka.existing.securityProtocol }}{{ end }}
{{- if include "nocturne.kafka.sasl" $root }}
- name: NOCTURNE_KAFKA_SASL_MECHANISM
  value: {{ if eq $kafka.mode "strimzi" }}SCRAM-SHA-512{{ else }}{{ $kafka.existing.saslMechanism }}{{ end }}
- name: NOCTURNE_KAFKA_USER
  value: {{ include "nocturne.kafka.user" . }}
- name: NOCTURNE_KAFKA_PASSWORD_FILE
  value: /run/secrets/kafka/password
{{- end }}
{{- if include "nocturne.kafka.ca" $root }}
- name: NOCTURNE_KAFKA_CA_FILE
  value: /run/secrets/kafka-ca/ca.crt
{{- end }}
{{- if include "nocturne.kafka.certificates" $root }}
- name: NOCTURNE_KAFKA_CERT_FILE
  value: /run/secrets/kafka/tls.crt
- name: NOCTURNE_KAFKA_KEY_FILE
  value: /run/secrets/kafka/tls.key
{{- end }}
{{- end -}}

{{/* Non-empty when Kafka asks for a name and a password. */}}
{{- define "nocturne.kafka.sasl" -}}
{{- if or (eq .Values.kafka.mode "strimzi") (hasPrefix "sasl_" .Values.kafka.existing.securityProtocol) -}}yes{{- end -}}
{{- end -}}

{{/* Non-empty when the cluster's CA is in a Secret. */}}
{{- define "nocturne.kafka.ca" -}}
{{- if eq .Values.kafka.mode "strimzi" -}}
{{ include "nocturne.kafka.cluster" . }}-cluster-ca-cert
{{- else -}}
{{ .Values.kafka.existing.caSecret }}
{{- end -}}
{{- end -}}

{{/* Non-empty when principals show a certificate (protocol ssl). */}}
{{- define "nocturne.kafka.certificates" -}}
{{- if and (eq .Values.kafka.mode "existing") (eq .Values.kafka.existing.securityProtocol "ssl") -}}yes{{- end -}}
{{- end -}}

{{- define "nocturne.mounts.kafka" -}}
{{- if or (include "nocturne.kafka.sasl" .root) (include "nocturne.kafka.certificates" .root) }}
- name: kafka
  mountPath: /run/secrets/kafka
  readOnly: true
{{- end }}
{{- if include "nocturne.kafka.ca" .root }}
- name: kafka-ca
  mountPath: /run/secrets/kafka-ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "nocturne.volumes.kafka" -}}
{{- $root := .root -}}
{{- if or (include "nocturne.kafka.sasl" $root) (include "nocturne.kafka.certificates" $root) }}
- name: kafka
  secret:
    {{- if eq $root.Values.kafka.mode "strimzi" }}
    secretName: {{ include "nocturne.kafka.user" . }}
    {{- else }}
    secretName: {{ (get $root.Values.kafka.existing.users .principal).existingSecret }}
    {{- end }}
    defaultMode: 0440
    items:
      {{- if include "nocturne.kafka.certificates" $root }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- else }}
      - {key: password, path: password}
      {{- end }}
{{- end }}
{{- with include "nocturne.kafka.ca" $root }}
- name: kafka-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end -}}

{{/* What `accepted` may promise: on enough replicas, or synced by the one. */}}
{{- define "nocturne.durability" -}}
{{- if ge (int .Values.kafka.topics.minInsyncReplicas) 2 -}}replicated{{- else -}}flushed{{- end -}}
{{- end -}}

{{/* ------------------------------------------------------------------------------ Postgres */}}

{{- define "nocturne.postgres.cluster" -}}
{{ include "nocturne.fullname" . }}-postgres
{{- end -}}

{{- define "nocturne.postgres.host" -}}
{{- if eq .Values.postgres.mode "cloudnativepg" -}}
{{ include "nocturne.postgres.cluster" . }}-rw
{{- else -}}
{{ .Values.postgres.existing.host }}
{{- end -}}
{{- end -}}

{{- define "nocturne.postgres.port" -}}
{{- if eq .Values.postgres.mode "cloudnativepg" -}}5432{{- else -}}{{ .Values.postgres.existing.port }}{{- end -}}
{{- end -}}

{{- define "nocturne.postgres.ca" -}}
{{- if eq .Values.postgres.mode "cloudnativepg" -}}
{{ include "nocturne.postgres.cluster" . }}-ca
{{- else -}}
{{ .Values.postgres.existing.caSecret }}
{{- end -}}
{{- end -}}

{{/* The database role of a service, or of the owner, by the one list. */}}
{{- define "nocturne.postgres.role" -}}
{{- $postgres := (.root.Files.Get "files/rights.json" | fromJson).postgres -}}
{{- if eq .role "owner" -}}
{{ $postgres.owner }}
{{- else -}}
{{- $role := .role -}}
{{- range $postgres.roles -}}
{{- if eq .service $role -}}{{ .name }}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Without the password, which is read from its file at every connect. */}}
{{- define "nocturne.postgres.dsn" -}}
{{- $root := .root -}}
postgresql://{{ include "nocturne.postgres.role" . }}@{{ include "nocturne.postgres.host" $root }}:{{ include "nocturne.postgres.port" $root }}/{{ ($root.Files.Get "files/rights.json" | fromJson).postgres.database }}?sslmode={{ if eq $root.Values.postgres.mode "cloudnativepg" }}verify-full{{ else }}{{ $root.Values.postgres.existing.sslMode }}{{ end }}
{{- if include "nocturne.postgres.ca" $root }}&sslrootcert=/run/secrets/postgres-ca/ca.crt{{ end }}
{{- if include "nocturne.postgres.certificates" $root }}&sslcert=/run/secrets/postgres/tls.crt&sslkey=/run/secrets/postgres/tls.key{{ end }}
{{- end -}}

{{/* Non-empty when each role shows a certificate beside its password. */}}
{{- define "nocturne.postgres.certificates" -}}
{{- if and (eq .Values.postgres.mode "existing") .Values.postgres.existing.clientCertificates -}}yes{{- end -}}
{{- end -}}

{{- define "nocturne.postgres.secret" -}}
{{- with get .root.Values.postgres.passwordSecrets .role -}}
{{ . }}
{{- else -}}
{{ include "nocturne.fullname" .root }}-postgres-{{ .role }}
{{- end -}}
{{- end -}}

{{- define "nocturne.env.postgres" -}}
- name: NOCTURNE_POSTGRES_DSN
  value: {{ include "nocturne.postgres.dsn" . | quote }}
- name: NOCTURNE_POSTGRES_PASSWORD_FILE
  value: /run/secrets/postgres/password
{{- end -}}

{{- define "nocturne.mounts.postgres" -}}
- name: postgres
  mountPath: /run/secrets/postgres
  readOnly: true
{{- if include "nocturne.postgres.ca" .root }}
- name: postgres-ca
  mountPath: /run/secrets/postgres-ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "nocturne.volumes.postgres" -}}
- name: postgres
  secret:
    secretName: {{ include "nocturne.postgres.secret" . }}
    defaultMode: 0440
    items:
      - {key: password, path: password}
      {{- if include "nocturne.postgres.certificates" .root }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- with include "nocturne.postgres.ca" .root }}
- name: postgres-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end -}}

{{/* ------------------------------------------------------- what every component comes with */}}

{{- define "nocturne.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "nocturne.fullname" .root }}-{{ .name }}
  labels:
    {{- include "nocturne.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end -}}

{{- define "nocturne.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "nocturne.fullname" .root }}-{{ .name }}
  labels:
    {{- include "nocturne.labels" . | nindent 4 }}
spec:
  {{- if .headless }}
  clusterIP: None
  {{- end }}
  {{- if .unready }}
  # Validators find each other before any of them is ready: none would be otherwise.
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "nocturne.selector" . | nindent 4 }}
  ports:
    - name: grpc
      port: 7400
      targetPort: grpc
      # HTTP/2 from the first byte, for gateways that would speak HTTP/1.1 otherwise.
      {{- if eq .root.Values.tls.mode "none" }}
      appProtocol: kubernetes.io/h2c
      {{- else }}
      appProtocol: https
      {{- end }}
    - name: metrics
      port: 7500
      targetPort: metrics
      appProtocol: http
{{- end -}}

{{- define "nocturne.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "nocturne.fullname" .root }}-{{ .name }}
  labels:
    {{- include "nocturne.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .maxUnavailable | default 1 }}
  # A pod that is not ready serves nobody: it does not hold up the draining of its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "nocturne.selector" . | nindent 6 }}
{{- end -}}

{{/* Scales a component without state by its CPU; down slowly, for callers' streams end with a pod. */}}
{{- define "nocturne.autoscaler" -}}
{{- $scaling := (get .root.Values .name).autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "nocturne.fullname" .root }}-{{ .name }}
  labels:
    {{- include "nocturne.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "nocturne.fullname" .root }}-{{ .name }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $scaling.cpuPercent }}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
      policies:
        - {type: Pods, value: 1, periodSeconds: 60}
{{- end -}}

{{/* A job's name holds the hash of what it does: a changed job is another job, an unchanged one is
     left alone, whether Helm or a GitOps controller applies it. */}}
{{- define "nocturne.job" -}}
{{- $template := include .template . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "nocturne.fullname" .root }}-{{ .name }}-{{ $template | sha256sum | trunc 8 }}
  labels:
    {{- include "nocturne.labels" . | nindent 4 }}
spec:
  backoffLimit: {{ .root.Values.jobs.backoffLimit }}
  activeDeadlineSeconds: {{ .root.Values.jobs.activeDeadlineSeconds }}
  template:
    metadata:
      # Nothing that the name does not hold the hash of and that a release changes: a job's template
      # cannot be changed, and an upgrade that tried would fail.
      labels:
        {{- include "nocturne.selector" . | nindent 8 }}
    spec:
      restartPolicy: OnFailure
      {{- $template | nindent 6 }}
{{- end -}}

{{/* ------------------------------------------------------------------------------- founding */}}

{{/* What whoever takes part in the ceremony is told. */}}
{{- define "nocturne.env.founding" -}}
- name: NOCTURNE_RELEASE
  value: {{ include "nocturne.fullname" .root }}
- name: NOCTURNE_KUBERNETES_DIR
  value: /run/secrets/kubernetes
- name: NOCTURNE_WAIT_SECONDS
  value: {{ int .root.Values.genesis.waitSeconds | quote }}
{{- end -}}

{{/* The ConfigMap with the operators' contributions, named by what is in it: other operators make
     another job, which says whether they are the ledger's. */}}
{{- define "nocturne.operators" -}}
{{ include "nocturne.fullname" . }}-operators-{{ .Values.genesis.operators | toJson | sha256sum | trunc 8 }}
{{- end -}}

{{/* A token of the API with the CA and the namespace that belong to it, for one container. */}}
{{- define "nocturne.volumes.api" -}}
- name: api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- end -}}

{{/* The ConfigMaps that the members of the ceremony write their public keys into. */}}
{{- define "nocturne.contributions" -}}
{{- $name := include "nocturne.fullname" . -}}
{{- range $ordinal := until (int .Values.consensus.validators) }}
- {{ $name }}-contribution-validator-{{ $ordinal }}
{{- end }}
- {{ $name }}-contribution-authority-0
{{- end -}}
