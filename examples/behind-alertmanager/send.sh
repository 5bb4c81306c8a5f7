#!/bin/sh
# Posts a group of alerts to a Postern on this machine as Alertmanager does, and prints the answer. Usage: ./send.sh
set -eu

cd "$(dirname "$0")"
curl --fail-with-body --silent --show-error \
	--header 'Content-Type: application/json' \
	--header 'User-Agent: Alertmanager/0.29.0' \
	--data-binary @group.json \
	"${INGEST_URL:-http://127.0.0.1:8025}/events/alertmanager"
