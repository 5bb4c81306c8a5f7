#!/bin/sh
# Posts an alert to a Postern on this machine as Grafana does, and prints the answer. Usage: ./send.sh
set -eu

cd "$(dirname "$0")"
curl --fail-with-body --silent --show-error \
	--header 'Content-Type: application/json' \
	--header 'User-Agent: Grafana' \
	--data-binary @alert.json \
	"${INGEST_URL:-http://127.0.0.1:8025}/events/grafana.alert"
