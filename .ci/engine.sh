#!/usr/bin/env bash
# `engine.sh COMMAND…`: run a command beside a Docker engine of its own, started here and gone with everything it made
# when the command ends. Engine, bridge and published ports live in namespaces of their own (net, mount, pid), so that
# nothing of them is seen outside and two runs never meet. No image is pulled: `images/build.sh` makes stand-ins with
# the real names and tags. HEADWAY_ENGINE_CACHE names a folder that keeps them for the next run. Needs root on Debian; installs `docker.io` and `busybox-static` where they are missing.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ "${HEADWAY_ENGINE_STAGE:-}" != inside ]; then
    [ $# -gt 0 ] || { echo "usage: engine.sh COMMAND…" >&2; exit 2; }
    [ "$(id -u)" = 0 ] || { echo "engine: namespaces and dockerd need root" >&2; exit 1; }
    "$here/images/packages.sh"
    # A short path: unix sockets below it have at most 107 bytes.
    root=$(mktemp -d /tmp/hwe-XXXXXX)
    trap 'find /sys/fs/cgroup -depth -type d -path "*${root##*/}*" -exec rmdir {} + 2>/dev/null; rm -rf "$root"' EXIT
    trap 'exit 130' INT TERM
    status=0
    HEADWAY_ENGINE_STAGE=inside HEADWAY_ENGINE_ROOT=$root PATH="$("$here/images/compose.sh"):/usr/bin:/usr/sbin:$PATH" \
        unshare --net --mount --pid --fork --kill-child=KILL --mount-proc --propagation private -- \
        bash "$here/engine.sh" "$@" || status=$?
    exit "$status"
fi

root=$HEADWAY_ENGINE_ROOT
unset HEADWAY_ENGINE_STAGE HEADWAY_ENGINE_ROOT
export DOCKER_HOST=unix://$root/docker.sock DOCKER_BUILDKIT=0 DOCKER_CONFIG=$root/client COMPOSE_DOCKER_CLI_BUILD=0
# What testcontainers asks of an engine: no reaper image, published ports on loopback, no slow polling.
export TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_CONNECTION_MODE=docker_host
export TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1 TC_POOLING_INTERVAL=0.2
export HEADWAY_STANDINS=1
mkdir -p "$root/client" /etc/docker
mount -t tmpfs tmpfs /etc/docker
ip link set lo up
# Where tests keep repositories, at the same path outside and inside of containers.
mount -t tmpfs tmpfs /srv
# No resolver, and addresses that no machine's own network is likely to have: the bridge is all there is.
dockerd --data-root "${HEADWAY_ENGINE_CACHE:-$root/data}" --exec-root "$root/exec" --pidfile "$root/dockerd.pid" --host "$DOCKER_HOST" \
    --cgroup-parent "/${root##*/}" --dns 127.0.0.1 --bip 172.31.255.1/24 \
    --default-address-pool base=172.31.0.0/17,size=24 --log-level error >"$root/dockerd.log" 2>&1 &
engine=$!
for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.1
done
docker version >/dev/null 2>&1 || { echo "engine: dockerd did not start:" >&2; tail -n 20 "$root/dockerd.log" >&2; exit 1; }
# What a killed run left in a kept folder.
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
docker volume ls --quiet | xargs --no-run-if-empty docker volume rm --force >/dev/null
docker network prune --force >/dev/null
began=$SECONDS
images=$(cat "$here"/images/* "$here"/../docker-compose.yml "$here/../requirements-dev.lock" | sha256sum | cut -d' ' -f1)
[ "$(cat "${HEADWAY_ENGINE_CACHE:-$root}/stand-ins" 2>/dev/null)" = "$images" ] ||
    "$here/images/build.sh" "$root/images" >"$root/build.log" 2>&1 || { tail -n 40 "$root/build.log" >&2; exit 1; }
echo "$images" >"${HEADWAY_ENGINE_CACHE:-$root}/stand-ins"
echo "engine: Docker $(docker version --format '{{.Server.Version}}'), stand-in images built in $((SECONDS - began)) s" >&2
status=0
"$@" || status=$?
# As the first process of its namespace this shell takes everything with it; containers are stopped first, so that
# their cgroups and mounts are given back.
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1 || true
kill "$engine" 2>/dev/null && wait "$engine" || true
exit "$status"
