#!/bin/sh
# Posts an order to a Postern on this machine and prints its answer.
set -eu

cd "$(dirname "$0")"
ingest=${INGEST_URL:-http://127.0.0.1:8025}
curl --fail-with-body --silent --show-error \
	--retry 5 --retry-connrefused \
	--header 'Content-Type: application/json' \
	--data-binary @order.paid.json \
	"$ingest/events/order.paid"
