#!/bin/sh
# Posts one message to a Postern on this machine and prints its answer. Usage: ./send.sh [DESTINATION]
set -eu

ingest=${INGEST_URL:-http://127.0.0.1:8025}
destination=${1:-alerts}

# The key makes it safe to run this line again after a lost answer: the same key and body are one message.
key="quickstart-$(date +%s)-$$"

curl --fail-with-body --silent --show-error \
	--retry 5 --retry-connrefused \
	--header 'Content-Type: application/json' \
	--header "Idempotency-Key: $key" \
	--data '{"type": "alert.fired", "data": {"severity": "high", "disk": "sda1"}}' \
	"$ingest/to/$destination"
