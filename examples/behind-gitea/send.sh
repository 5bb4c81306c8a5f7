#!/bin/sh
# Posts a push to a Postern on this machine as Gitea does, and prints the answers. Usage: ./send.sh
set -eu

cd "$(dirname "$0")"
for destination in ci mirror; do
	curl --fail-with-body --silent --show-error \
		--header 'Content-Type: application/json' \
		--header 'X-Gitea-Event: push' --header 'X-Gitea-Event-Type: push' \
		--header 'X-Gitea-Delivery: f6266f16-1bf3-46a5-9ea4-602e06ead473' \
		--header 'X-GitHub-Event: push' \
		--header 'X-GitHub-Delivery: f6266f16-1bf3-46a5-9ea4-602e06ead473' \
		--data-binary @push.json \
		"${INGEST_URL:-http://127.0.0.1:8025}/to/$destination"
done
