#!/bin/sh
# Runs "$@", a `stormbell webhooks listen`, where pods of the cluster reach it: at
# RECEIVER, or else at the address that this machine has towards the first node.
set -eu
if [ -z "${RECEIVER:-}" ]; then
	node=$(kubectl get nodes -o 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
	RECEIVER=$(ip -o route get "$node" 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p')
	[ -n "$RECEIVER" ] || { echo "no address of this machine towards the node $node: name the one that pods reach with --receiver" >&2; exit 1; }
fi
exec "$@" --listen "$RECEIVER:0"
