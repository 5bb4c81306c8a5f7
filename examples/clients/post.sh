#!/bin/sh
# Posts one message to a Postern on this machine and prints its answer, with curl and nothing else.
# Usage: post.sh DESTINATION KEY BODY
# INGEST_URL names another Postern, INGEST_TOKEN its token if it wants one.
set -eu

[ $# -eq 3 ] || { echo "usage: $0 DESTINATION KEY BODY" >&2; exit 2; }

# A token among the arguments of curl could be seen by every user of the machine; its config on standard input cannot.
# curl tries again after a connection that failed and after 429, 500, 502, 503 and 504, and waits as long as Retry-After
# says. The key makes that safe: the same key and body are one message.
{
	if [ -n "${INGEST_TOKEN:-}" ]; then printf 'header = "Authorization: Bearer %s"\n' "$INGEST_TOKEN"; fi
} |
	curl --config - --fail-with-body --silent --show-error \
		--retry 5 --retry-connrefused --retry-max-time 60 --max-time 30 --noproxy '*' \
		--header 'Content-Type: application/json' \
		--header "Idempotency-Key: $2" \
		--data-raw "$3" \
		"${INGEST_URL:-http://127.0.0.1:8025}/to/$1"
