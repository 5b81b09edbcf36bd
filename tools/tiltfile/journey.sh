#!/bin/sh
# Receives webhooks, sends events that make one alert, and ends once that has
# come and its signature verified. It fails where none comes within a minute: Tilt
# builds no service while it runs. $1 is the mode, $2 stormbell, the rest are flags
# of its connection.
set -eu
mode=$1 stormbell=$2
shift 2
reached=
[ "$mode" != kubernetes ] || reached="sh tools/tiltfile/reached.sh"

dir=$(mktemp -d)
# shellcheck disable=SC2086 # two words, or none
$reached "$stormbell" webhooks listen --count 1 "$@" 2>"$dir/log" &
listener=$!
trap 'kill "$listener" 2>/dev/null || :; rm -rf "$dir"' EXIT

listens() { kill -0 "$listener" 2>/dev/null; }

until grep -q Listening "$dir/log"; do
	listens || { cat "$dir/log" >&2; exit 1; }
	sleep 0.1
done
# There is one alert per user and ten minutes: each run has a user of its own.
sed "s/mallory/dev-$(date +%H%M%S)-$$/" docs/examples/logins.ndjson | "$stormbell" send "$@"
tries=600
while listens; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || { echo "journey: no alert came: are the rules in docs/examples/rules in force?" >&2; exit 1; }
	sleep 0.1
done
wait "$listener"
