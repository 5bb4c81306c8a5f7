#!/bin/sh
# Posts an anomaly to a Postern on this machine and prints its answer. Usage: ./send.sh
set -eu

cd "$(dirname "$0")"
ingest=${INGEST_URL:-http://127.0.0.1:8025}

# The id of the anomaly makes one that is posted twice one message.
id=$(sed -n 's/^    "id": "\([^"]*\)".*/\1/p' anomaly.json)

curl --fail-with-body --silent --show-error \
	--retry 5 --retry-connrefused \
	--header 'Content-Type: application/json' \
	--header "Idempotency-Key: $id" \
	--data-binary @anomaly.json \
	"$ingest/events/anomaly.detected"
