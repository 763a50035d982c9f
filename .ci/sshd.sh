#!/usr/bin/env bash
# Runs a command where Debian's sshd can be found: unpacked into a folder, neither installed nor started.
#   .ci/sshd.sh FOLDER COMMAND…
set -eu
folder=$1
shift
mkdir -p "$folder"
(
    cd "$folder"
    apt-get -qq -o Acquire::Retries=5 -o APT::Sandbox::User=root download openssh-server libwrap0 >/dev/null
    for package in ./*.deb; do dpkg -x "$package" .; done
)
libraries=$(dirname "$(find "$folder" -name 'libwrap.so.0' | head -n 1)")
PATH="$folder/usr/sbin:$PATH" LD_LIBRARY_PATH="$libraries" exec "$@"
