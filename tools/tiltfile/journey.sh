#!/bin/sh
# Receives webhooks, sends events that make one alert, and ends once that has
# come and its signature verified. $1 is stormbell, the rest are flags of its
# connection. Without an alert it waits: who runs it sets the limit.
set -eu
stormbell=$1
shift

dir=$(mktemp -d)
"$stormbell" webhooks listen --count 1 "$@" 2>"$dir/log" &
listener=$!
trap 'kill "$listener" 2>/dev/null || :; rm -rf "$dir"' EXIT

until grep -q Listening "$dir/log"; do
	kill -0 "$listener" || { cat "$dir/log" >&2; exit 1; }
	sleep 0.1
done
# There is one alert per user and ten minutes: each run has a user of its own.
sed "s/mallory/dev-$(date +%H%M%S)-$$/" docs/examples/logins.ndjson | "$stormbell" send "$@"
wait "$listener"
