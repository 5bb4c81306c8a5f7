#!/bin/sh
# Posts alerts to a Postern on this machine and prints its answers. Usage: ./send.sh [EVENT…], by default all four
set -eu

cd "$(dirname "$0")"
ingest=${INGEST_URL:-http://127.0.0.1:8025}
[ $# -gt 0 ] || set -- schema_change freshness_violation discovery_complete connection_failed

for event; do
	# alert.id makes an alert that is posted twice one message.
	id=$(sed -n 's/^    "id": "\([^"]*\)".*/\1/p' "$event.json")
	curl --fail-with-body --silent --show-error \
		--retry 5 --retry-connrefused \
		--header 'Content-Type: application/json' \
		--header "Idempotency-Key: $id" \
		--data-binary "@$event.json" \
		"$ingest/events/$event"
done
