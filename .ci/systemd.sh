#!/usr/bin/env bash
# `systemd.sh COMMAND…`: run a command under a systemd of its own, started here as the first process of new namespaces
# (pid, mount, cgroup, net, ipc, uts) and gone with everything that it started. The files are this machine's; what
# would change them at a boot (tmpfiles, sysusers, udev, timers) is hidden, and the journal is in memory. Needs root,
# Debian's `systemd`, and cgroups that may be mounted: 77 and a sentence where it does not start.
set -eu -o pipefail
SYSTEMD=/usr/lib/systemd/systemd
[ -x $SYSTEMD ] || SYSTEMD=/lib/systemd/systemd

if [ "${HEADWAY_SYSTEMD_STAGE:-}" = "" ]; then
    [ $# -gt 0 ] || { echo "usage: systemd.sh COMMAND…" >&2; exit 2; }
    [ "$(id -u)" = 0 ] || { echo "systemd: namespaces need root" >&2; exit 77; }
    [ -x $SYSTEMD ] || { echo "systemd: Debian's package systemd is not installed" >&2; exit 77; }
    root=$(mktemp -d /tmp/hwy-XXXXXX)
    chmod 755 "$root"
    group=${root##*/}
    trap 'find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + 2>/dev/null; rm -rf "$root"' EXIT
    trap 'exit 130' INT TERM
    { export -p; printf 'cd %q\nexec' "$PWD"; printf ' %q' "$@"; echo; } >"$root/command"
    : >"$root/out"
    export HEADWAY_SYSTEMD_STAGE=cgroups HEADWAY_SYSTEMD_ROOT=$root
    tail --follow --lines=+1 "$root/out" &
    teller=$!
    bash "$0" 2>"$root/boot" &
    wait $! || true
    sleep 0.3
    kill "$teller" 2>/dev/null || true
    [ -s "$root/status" ] && exit "$(cat "$root/status")"
    echo "systemd: it did not start, or ended before the command: $(tail -n 5 "$root/boot" | tr '\n' ' ')" >&2
    exit 77
fi

root=$HEADWAY_SYSTEMD_ROOT
if [ "$HEADWAY_SYSTEMD_STAGE" = cgroups ]; then
    # A cgroup of its own in each hierarchy, so that the new namespace's root is that.
    for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e "$top/cgroup.procs" ] && [ ! -L "$top" ] || continue
        mkdir "$top/${root##*/}" 2>/dev/null || continue
        for name in cpuset.cpus cpuset.mems; do
            [ ! -e "$top/$name" ] || cat "$top/$name" >"$top/${root##*/}/$name" 2>/dev/null || true
        done
        echo $$ >"$top/${root##*/}/cgroup.procs" || true
    done
    HEADWAY_SYSTEMD_STAGE=mounts exec unshare --cgroup --pid --mount --net --ipc --uts --fork --kill-child=KILL \
        --mount-proc --propagation private -- bash "$0"
fi

ip link set lo up 2>/dev/null || true
kinds=$(awk '$3 ~ /^cgroup/ {print $2, $3, $4}' /proc/mounts)
if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while read -r at kind options; do
        mkdir -p "$at"
        only=$(tr , '\n' <<<"$options" | grep -vE '^(rw|ro|nosuid|nodev|noexec|relatime)$' | paste -sd, - || true)
        [ "$kind" = cgroup2 ] && mount -t cgroup2 cgroup2 "$at" ||
            mount -t cgroup -o "${only/#name=/none,name=}" cgroup "$at"
    done <<<"$kinds"
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/systemd/system
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
for wants in /usr/lib/systemd/system/*.target.wants; do mount -t tmpfs tmpfs "$wants"; done
cat >/run/systemd/system/headway.target <<END
[Unit]
Requires=systemd-journald.socket
Wants=systemd-journald.service headway-command.service
END
cat >/run/systemd/system/headway-command.service <<END
[Service]
Type=oneshot
ExecStart=/bin/bash $root/command
ExecStopPost=/bin/sh -c 'echo "\$EXIT_STATUS" | tr A-Z 1 >$root/status; systemctl --force exit'
StandardOutput=append:$root/out
StandardError=append:$root/out
Delegate=no
KillMode=mixed
END
exec env --ignore-environment PATH="$PATH" container=headway \
    "$SYSTEMD" --system --unit=headway.target --log-target=journal-or-kmsg --log-level=warning
