#!/usr/bin/env bash
# The Debian packages that the engine and the stand-in images are made of, retried; nothing is started.
set -eu
missing=()
[ -x /usr/sbin/dockerd ] || missing+=(docker.io)
! ldd /bin/busybox 2>/dev/null | grep -q "=>" && [ -x /bin/busybox ] || missing+=(busybox-static)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
for tool in git iptables ip unshare setpriv; do
    command -v "$tool" >/dev/null || case $tool in ip) missing+=(iproute2) ;; unshare | setpriv) missing+=(util-linux) ;; *) missing+=("$tool") ;; esac
done
[ ${#missing[@]} -gt 0 ] || exit 0
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o Acquire::Retries=5 -o Acquire::http::Timeout=60 -o Dpkg::Use-Pty=0)
for try in 1 2 3; do
    if "${apt[@]}" update && "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
        exit 0
    fi
    [ "$try" = 3 ] || sleep $((try * 10))
done
echo "engine: could not install ${missing[*]}" >&2
exit 1
