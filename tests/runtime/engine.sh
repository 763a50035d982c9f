#!/usr/bin/env bash
# Run a command beside a Docker engine of its own: in a network and mount namespace, with everything below one folder.
# Needs root, dockerd (Debian: docker.io) and iptables. Example: tests/runtime/engine.sh python -m pytest -m containers
set -eu
if [ "${HEADWAY_ENGINE_INSIDE:-}" != 1 ]; then
    HEADWAY_ENGINE_INSIDE=1 exec unshare --net --mount --propagation private -- bash "$0" "$@"
fi
ip link set lo up
folder=$(mktemp -d /tmp/hw-engine.XXXXXX)
export DOCKER_HOST="unix://$folder/docker.sock" DOCKER_BUILDKIT=0
dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" -H "$DOCKER_HOST" \
    --dns 127.0.0.1 --bip 172.31.255.1/24 --default-address-pool base=172.31.0.0/17,size=24 --log-level error \
    >"$folder/log" 2>&1 &
engine=$!
finish() {
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    rm -rf "$folder" 2>/dev/null || true
}
trap finish EXIT
for _ in $(seq 300); do
    [ -S "$folder/docker.sock" ] && curl -sf --unix-socket "$folder/docker.sock" http://engine/_ping >/dev/null && break
    kill -0 "$engine" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
"$@"
