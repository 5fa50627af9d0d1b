{{/* Services and disruption budgets. Take a dict: root, component; port; service: its values. */}}
{{- define "midstream.service" }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "midstream.fullname" .root }}-{{ .component }}
  labels:
    {{- include "midstream.labels" . | nindent 4 }}
spec:
  type: {{ .service.type }}
  selector:
    {{- include "midstream.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .service.port }}, targetPort: http}
{{- end }}

{{/* One by which a StatefulSet's pods have names, and Prometheus finds each. */}}
{{- define "midstream.headless" }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "midstream.fullname" .root }}-{{ .component }}-pods
  labels:
    {{- include "midstream.labels" . | nindent 4 }}
    midstream/metrics: "true"
spec:
  clusterIP: None
  # Metrics of a pod that is not ready are those that matter.
  publishNotReadyAddresses: true
  selector:
    {{- include "midstream.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http}
{{- end }}

{{- define "midstream.budget" }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "midstream.fullname" .root }}-{{ .component }}
  labels:
    {{- include "midstream.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  # One that hangs must not hold up the drain of its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "midstream.selector" . | nindent 6 }}
{{- end }}
