#!/bin/sh
# Makes what a new cluster needs in the directory $1: a root key for what is
# sealed, and the first API key, written straight to Kafka by the stormbell $2.
# A key gets its name once Kafka holds it, so that half a start is done again.
set -eu
umask 077
mkdir -p "$1"
cd "$1"
[ -s root-key ] || head -c 32 /dev/urandom | base64 >root-key
if [ -s api-key ]; then
	exit
fi
rm -f api-key.new
"$2" keys bootstrap --out api-key.new
mv api-key.new api-key
