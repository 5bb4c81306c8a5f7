#!/bin/sh
# Posts an issue to a Postern on this machine as an internal integration of Sentry does, and prints the answers.
# Usage: ./send.sh. SENTRY_CLIENT_SECRET is the integration's client secret.
set -eu

cd "$(dirname "$0")"
signature=$(openssl dgst -sha256 -hmac "${SENTRY_CLIENT_SECRET:-secret}" -r issue.json | cut -d ' ' -f 1)
for target in to/triage events/sentry; do
	curl --fail-with-body --silent --show-error \
		--header 'Content-Type: application/json' \
		--header 'Request-ID: 4f6f1a3e4f0c4b7f8d3a7f7a0e3b1c55' \
		--header 'Sentry-Hook-Resource: issue' \
		--header 'Sentry-Hook-Timestamp: 1763719200' \
		--header "Sentry-Hook-Signature: $signature" \
		--data-binary @issue.json \
		"${INGEST_URL:-http://127.0.0.1:8025}/$target"
done
