#!/bin/sh
# Makes the Secrets of the overlay dev where they are missing, and leaves the first
# API key in the directory $1, by the stormbell $2. The cluster keeps what it has:
# a key that another directory had made is fetched from there.
set -eu
umask 077
mkdir -p "$1"
STORMBELL=$2 sh deployments/kubernetes/secrets.sh stormbell "$1/api-key.new"
kubectl -n stormbell get secret stormbell-first-key -o 'jsonpath={.data.api-key}' | base64 -d >"$1/api-key.new"
[ -s "$1/api-key.new" ]
mv "$1/api-key.new" "$1/api-key"
