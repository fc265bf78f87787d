#!/usr/bin/env bash
# Prints docs/prometheus-alerts.yaml as a PrometheusRule, for `kubectl apply -f -`.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cat <<'HEAD'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: reprise
  labels: {app.kubernetes.io/name: reprise}
spec:
HEAD
sed 's/^/  /' docs/prometheus-alerts.yaml
