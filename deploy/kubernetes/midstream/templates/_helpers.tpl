{{- define "midstream.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "midstream.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "midstream.labels" -}}
{{ include "midstream.selector" . }}
app.kubernetes.io/part-of: midstream
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "midstream.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "midstream.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "midstream.fullname" .) }}
{{- end }}

{{/* Seconds that a collector or api pod has: those of preStop, the requests under way, the spool, and a margin. */}}
{{- define "midstream.drainSeconds" -}}
{{- $drain := divf (get .Values.settings "MIDSTREAM_DRAIN_TIMEOUT_MS" | default "10000" | float64) 1000 | ceil | int -}}
{{- add 5 (mul 2 $drain) 5 -}}
{{- end }}

{{/* Set by the chart itself: the same name in `settings` would be a second truth. */}}
{{- define "midstream.ownSettings" -}}
MIDSTREAM_HOME MIDSTREAM_HOST MIDSTREAM_PORT MIDSTREAM_METRICS_HOST MIDSTREAM_VALIDATE_METRICS_PORT MIDSTREAM_STORE_METRICS_PORT MIDSTREAM_DEVICES_METRICS_PORT MIDSTREAM_JOBS_METRICS_PORT MIDSTREAM_WEB_WORKERS MIDSTREAM_WORKER_ID MIDSTREAM_KAFKA MIDSTREAM_CLICKHOUSE MIDSTREAM_REGISTRY MIDSTREAM_REGISTRY_KEY MIDSTREAM_SPOOL MIDSTREAM_SPOOL_MAX_BYTES MIDSTREAM_DEVICE_FILES MIDSTREAM_EXHAUST MIDSTREAM_EXHAUST_BYTES MIDSTREAM_DIMENSION_SOURCES
{{- end }}

{{- define "midstream.check" -}}
{{- $known := .Files.Lines "files/settings.txt" -}}
{{- $own := splitList " " (include "midstream.ownSettings" .) -}}
{{- range $group := list "settings" "secretEnv" "secretFiles" -}}
{{- range $name := keys (get $.Values $group) | sortAlpha -}}
{{- if not (has $name $known) }}{{ fail (printf "%s.%s: there is no such setting; docs/settings.md lists them" $group $name) }}{{ end -}}
{{- if has $name $own }}{{ fail (printf "%s.%s: the chart sets this one by itself, see values.yaml" $group $name) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $_ := required "kafka.servers: Kafka's bootstrap servers, host:port,..." .Values.kafka.servers -}}
{{- $_ := required "existingSecret: a Secret with the keys registry, clickhouse and registry-key" .Values.existingSecret -}}
{{- if and (gt (int .Values.api.replicas) 1) (ne .Values.api.files.accessMode "ReadWriteMany") (not .Values.api.files.existingClaim) -}}
{{- fail "api.replicas: more than one needs api.files.accessMode ReadWriteMany, as all pods share these files" -}}
{{- end -}}
{{- range $stage := list "validate" "store" "devices" -}}
{{- $values := get $.Values $stage -}}
{{- if and $values.keda.enabled (gt (int $values.keda.maxReplicas) (int (get $.Values.settings "MIDSTREAM_PARTITIONS" | default "1"))) -}}
{{- fail (printf "%s.keda.maxReplicas: more workers than MIDSTREAM_PARTITIONS have nothing to do" $stage) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Takes a dict: root, component. */}}
{{- define "midstream.env" -}}
{{- with .root -}}
- name: MIDSTREAM_KAFKA
  value: {{ .Values.kafka.servers | quote }}
- name: MIDSTREAM_CLICKHOUSE
  valueFrom: {secretKeyRef: {name: {{ .Values.existingSecret }}, key: {{ get .Values.clickhouseKeys $.component | default "clickhouse" }}}}
- name: MIDSTREAM_REGISTRY
  valueFrom: {secretKeyRef: {name: {{ .Values.existingSecret }}, key: registry}}
- name: MIDSTREAM_REGISTRY_KEY
  value: /run/secrets/midstream/registry-key
{{- range $name, $source := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $source.name }}, key: {{ $source.key }}}}
{{- end }}
{{- range $name, $source := .Values.secretFiles }}
- name: {{ $name }}
  value: /run/secrets/midstream/{{ $name | lower }}
{{- end }}
{{- end }}
{{- end }}

{{- define "midstream.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ .Values.existingSecret }}, items: [{key: registry-key, path: registry-key}]}
      - secret: {name: {{ .Values.existingSecret }}, items: [{key: registry-ca.crt, path: registry-ca.crt}], optional: true}
      {{- range $name, $source := .Values.secretFiles }}
      - secret: {name: {{ $source.name }}, items: [{key: {{ $source.key }}, path: {{ $name | lower }}}]}
      {{- end }}
{{- end }}

{{/* Where a pod may run, and from where its image comes: of migrations and backups too. */}}
{{- define "midstream.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "midstream.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "midstream.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* The pod of a process. Takes a dict:
  root, component; module: what runs; port: where it answers; ready: path of the readiness probe; seconds: to end in;
  env, mounts, volumes: lists of its own; home: volume source of its home; named: whether it bears the pod's name;
  preStop: seconds until the balancers know. */}}
{{- define "midstream.pod" -}}
{{- $root := .root -}}
{{- $values := get .root.Values .component -}}
metadata:
  labels:
    {{- include "midstream.labels" . | nindent 4 }}
  annotations:
    # A changed setting starts the pods anew.
    checksum/settings: {{ $root.Values.settings | toJson | sha256sum }}
    {{- with $root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "midstream.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .seconds }}
  {{- include "midstream.podSecurity" $root | nindent 2 }}
  {{- include "midstream.placement" $root | nindent 2 }}
  {{- if $root.Values.topologySpread }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "midstream.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "midstream.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [python, -m, {{ .module }}]
      {{- include "midstream.containerSecurity" $root | nindent 6 }}
      ports:
        - {name: http, containerPort: {{ .port }}}
      envFrom:
        - configMapRef: {name: {{ include "midstream.fullname" $root }}}
      env:
        {{- include "midstream.env" . | nindent 8 }}
        {{- if .named }}
        - name: MIDSTREAM_WORKER_ID
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- with .env }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- with $values.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      # Until it answers: the imports, and a home on a slow volume.
      startupProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        # Twice the time after which a worker ends itself at a record, which counts as a try of it; a kill does not.
        {{- $record := get $root.Values.settings "MIDSTREAM_RECORD_TIMEOUT_MS" | default "30000" | int }}
        failureThreshold: {{ max 6 (div (add (mul 2 $record) 9999) 10000) }}
      readinessProbe:
        httpGet: {path: {{ .ready }}, port: http}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      {{- with .preStop }}
      # Balancers learn a moment after the pod that it ends.
      lifecycle:
        preStop: {sleep: {seconds: {{ . }}}}
      {{- end }}
      resources: {{ toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: home, mountPath: /var/lib/midstream}
        - {name: tmp, mountPath: /tmp}
        - {name: secrets, mountPath: /run/secrets/midstream, readOnly: true}
        {{- with .mounts }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- with $values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: home
      emptyDir: {sizeLimit: {{ .homeSize | default "64Mi" }}}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- include "midstream.secretVolume" $root | nindent 4 }}
    {{- with .volumes }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- with $values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}
