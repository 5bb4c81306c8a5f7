#!/bin/sh
# Posts groups of crashes in one request to a Postern on this machine and prints its answer.
# Usage: ./send.sh [FILE…], by default all groups here
set -eu

cd "$(dirname "$0")"
ingest=${INGEST_URL:-http://127.0.0.1:8025}
[ $# -gt 0 ] || set -- group-*.json

# A line for each group. The last crash in a group, object_id, tells this news of the group from the next: posted
# twice, it is one message. The files' line ends and tabs are left out: they stand between values, never in them.
member() { sed -n 's/^	"'"$1"'": "\([^"]*\)".*/\1/p' "$2"; }
for file; do
	printf '{"to":"crashes","id":"%s/%s","data":%s}\n' \
		"$(member fingerprint "$file")" "$(member object_id "$file")" "$(tr -d '\n\t' <"$file")"
done |
	curl --fail-with-body --silent --show-error \
		--header 'Content-Type: application/x-ndjson' \
		--data-binary @- \
		"$ingest/batch"
