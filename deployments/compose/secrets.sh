#!/bin/sh
# Makes the secrets that compose.yaml names and that are not there yet, in the
# directory $1 (secrets, beside this file), and writes into .env who may read
# them. No secret is ever an argument. Keep root-key: without it no webhook can
# be signed. DOCKER and IMAGE name the engine and the image with the command line.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/secrets}
: "${DOCKER:=docker}" "${IMAGE:=${REGISTRY:-stormbell}/stormbell:${TAG:-dev}}" "${ENV_FILE:=$here/.env}"
umask 077
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

[ -s "$dir/root-key" ] || head -c 32 /dev/urandom | base64 >"$dir/root-key"
[ -s "$dir/redis-password" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$dir/redis-password"
{
	printf 'requirepass %s\n' "$(cat "$dir/redis-password")"
	cat "$here/redis.conf"
} >"$dir/redis.conf"

# Containers read the files as who made them, or as the images' own user where
# that is root.
user=$(id -u):$(id -g)
if [ "$(id -u)" = 0 ]; then
	user=65532:65532
	chown "$user" "$dir" "$dir"/*
fi
if ! [ -s "$dir/api-key" ]; then
	"$DOCKER" run --rm --network none --read-only --cap-drop ALL --user "$user" -v "$dir:/out" "$IMAGE" keys mint --out /out/api-key >/dev/null
fi
if ! grep -qs "^STORMBELL_USER=$user\$" "$ENV_FILE"; then
	printf 'STORMBELL_USER=%s\n' "$user" >>"$ENV_FILE"
fi
