#!/bin/sh
# Posts a report to a Postern on this machine and prints its answer. Usage: ./send.sh [report.completed|report.failed]
set -eu

cd "$(dirname "$0")"
ingest=${INGEST_URL:-http://127.0.0.1:8025}
event=${1:-report.completed}

# One run of a job is one report: the same key again, after a lost answer or twice by mistake, is the same message.
member() { sed -n 's/^  "'"$1"'": "\([^"]*\)".*/\1/p' "$event.json"; }

curl --fail-with-body --silent --show-error \
	--retry 5 --retry-connrefused \
	--header 'Content-Type: application/json' \
	--header "Idempotency-Key: $(member job_id)/$(member timestamp)" \
	--data-binary "@$event.json" \
	"$ingest/events/$event"
