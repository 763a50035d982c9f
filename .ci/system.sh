#!/usr/bin/env bash
# System packages of the tiers beyond `make test`, retried; nothing is started.
set -eu
[ "$(id -u)" = 0 ] || { echo "system: apt-get needs root" >&2; exit 1; }
packages=(postgresql chromium git)
command -v node >/dev/null && command -v npm >/dev/null || packages+=(nodejs npm)
apt=(apt-get -qq -o Acquire::Retries=5 -o Acquire::http::Timeout=60 -o Dpkg::Use-Pty=0)
for try in 1 2 3; do
    if "${apt[@]}" update; then
        # An authority for the test of certificates; without it that test is skipped, and says so.
        apt-cache show pebble >/dev/null 2>&1 && authority=(pebble) || authority=()
        "${apt[@]}" install --yes --no-install-recommends "${packages[@]}" "${authority[@]}" >/dev/null && exit 0
    fi
    [ "$try" = 3 ] || sleep $((try * 10))
done
echo "system: could not install ${packages[*]}" >&2
exit 1
