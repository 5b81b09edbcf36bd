#!/bin/sh
# Makes the Secrets that Stormbell needs and that are not there yet, in the
# namespace $1 (stormbell): the root key, which seals what is stored, and the
# first API key, which is left in the file $2 (admin.key) as well. Keep both:
# without the root key no webhook can be signed. No key is ever an argument.
# STORMBELL names the command, KUBECTL kubectl.
set -eu
namespace=${1:-stormbell}
key=${2:-admin.key}
: "${KUBECTL:=kubectl}" "${STORMBELL:=stormbell}"
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

has() { "$KUBECTL" -n "$namespace" get secret "$1" -o name >/dev/null 2>&1; }

if ! has stormbell-root-key; then
	head -c 32 /dev/urandom | base64 >"$dir/root-key"
	"$KUBECTL" -n "$namespace" create secret generic stormbell-root-key --from-file=root-key="$dir/root-key"
fi
if ! has stormbell-first-key; then
	[ -s "$key" ] || "$STORMBELL" keys mint --out "$key"
	"$KUBECTL" -n "$namespace" create secret generic stormbell-first-key --from-file=api-key="$key"
fi
