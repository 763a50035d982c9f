#!/usr/bin/env bash
# Stand-ins for images that cannot be pulled, under the names and tags that docker-compose.yml, the Dockerfile and the
# tests use. Upstream's own binaries where a Python package carries them (Temporal, SeaweedFS, Caddy), Debian's
# PostgreSQL, this machine's Python; busybox for the rest. What each is not: tests/containers/README.md.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$1
python=$top/.venv/bin/python
arch=$(uname -m)
mkdir -p "$work"

# tag NAME: the tag that the project's own files give to an image.
tag() {
    { grep -hoE "image: $1:[^ ]+" "$top/docker-compose.yml" || grep -hoE "=$1:[^ ]+" "$top/Dockerfile"; } |
        head -n 1 | sed -e 's/^image: //' -e 's/^=//'
}

# skeleton FOLDER: a root file system with busybox, merged /usr, root and nobody.
skeleton() {
    mkdir -p "$1"/{usr/{bin,sbin,lib,lib64},etc,tmp,run,var/tmp,proc,dev,sys,mnt,srv,opt,home}
    for name in bin sbin lib lib64; do ln -sfn "usr/$name" "$1/$name"; done
    ln -sfn ../run "$1/var/run"
    chmod 1777 "$1/tmp" "$1/var/tmp"
    cp /bin/busybox "$1/usr/bin/busybox"
    for applet in $(/bin/busybox --list); do
        case $applet in busybox) ;; *) ln -s busybox "$1/usr/bin/$applet" ;; esac
    done
    printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
    echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
}

# libraries FOLDER FILE…: what the dynamic linker would load for them, at the same places.
libraries() {
    local into=$1 library
    shift
    { ldd "$@" 2>/dev/null || true; } | grep -P '^\t' | grep -oE '/[^ ]+' | sort -u | while read -r library; do
        [ -e "$into$library" ] || { mkdir -p "$into$(dirname "$library")"; cp -L "$library" "$into$library"; }
    done
}

# image TAG FOLDER INSTRUCTION…: FROM scratch, the folder `root` of FOLDER, and more lines of a Dockerfile.
image() {
    local name=$1 folder=$2
    shift 2
    printf '%s\n' 'FROM scratch' 'COPY root/ /' "$@" >"$folder/Dockerfile"
    docker build --quiet --tag "$name" "$folder"
}

postgres() {
    local root=$work/postgres/root bin version
    bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
    version=$(basename "$(dirname "$bin")")
    skeleton "$root"
    mkdir -p "$root$bin" "$root/usr/lib/postgresql/$version/lib" "$root/usr/share/postgresql" "$root/usr/share/zoneinfo" \
        "$root/usr/lib/locale" "$root/var/lib/postgresql/data" "$root/run/postgresql" "$root/docker-entrypoint-initdb.d"
    cp "$bin"/{postgres,initdb,pg_ctl,psql,pg_isready,pg_dump,pg_restore} "$root$bin/"
    cp "/usr/lib/postgresql/$version/lib"/{plpgsql,dict_snowball,pgcrypto,btree_gin}.so "$root/usr/lib/postgresql/$version/lib/"
    cp -r "/usr/share/postgresql/$version" "$root/usr/share/postgresql/$version"
    cp -r /usr/share/zoneinfo/{Etc,UTC} "$root/usr/share/zoneinfo/"
    cp -r /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
    libraries "$root" "$root$bin"/* "$root/usr/lib/postgresql/$version/lib"/*
    printf 'postgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >>"$root/etc/passwd"
    printf 'postgres:x:999:\n' >>"$root/etc/group"
    cp "$here/postgres-entrypoint.sh" "$root/docker-entrypoint.sh"
    image "$(tag postgres)" "$work/postgres" \
        "RUN chown -R 999:999 /var/lib/postgresql /run/postgresql && chmod 1777 /var/lib/postgresql/data /run/postgresql" \
        "ENV PATH=$bin:/usr/bin LANG=C.UTF-8 PGDATA=/var/lib/postgresql/data" \
        'VOLUME /var/lib/postgresql/data' 'STOPSIGNAL SIGINT' 'EXPOSE 5432' \
        'ENTRYPOINT ["/bin/sh", "/docker-entrypoint.sh"]' 'CMD ["postgres"]'
}

# The development server in the place of the cluster: same protocol and version, its own SQLite instead of PostgreSQL.
temporal() {
    local root=$work/temporal/root
    skeleton "$root"
    mkdir -p "$root/etc/temporal" "$root/usr/local/bin"
    cp "$top/.venv/bin/temporal" "$root/usr/local/bin/temporal"
    cp "$here/temporal-entrypoint.sh" "$root/etc/temporal/entrypoint.sh"
    cp "$here/temporal-sql-tool.sh" "$root/usr/local/bin/temporal-sql-tool"
    cp "$here/temporal-nc.sh" "$root/usr/local/bin/nc"
    cp "$here/temporal-getent.sh" "$root/usr/local/bin/getent"
    chmod 755 "$root/etc/temporal/entrypoint.sh" "$root/usr/local/bin"/*
    image "$(tag temporalio/server)" "$work/temporal" \
        'ENV HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin' 'EXPOSE 7233' 'ENTRYPOINT ["/etc/temporal/entrypoint.sh"]'
    docker tag "$(tag temporalio/server)" "$(tag temporalio/admin-tools)"
}

seaweedfs() {
    local root=$work/seaweedfs/root
    skeleton "$root"
    mkdir -p "$root/data"
    cp "$top/.venv/bin/weed" "$root/usr/bin/weed"
    image "$(tag chrislusf/seaweedfs)" "$work/seaweedfs" 'RUN chmod 1777 /data' 'EXPOSE 8333' 'ENTRYPOINT ["/usr/bin/weed"]'
}

caddy() {
    local root=$work/caddy/root
    skeleton "$root"
    cp "$top/.venv/bin/caddy" "$root/usr/bin/caddy"
    mkdir -p "$root/config" "$root/data"
    image "$(tag caddy)" "$work/caddy" 'RUN chmod 1777 /config /data' 'ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data' \
        'CMD ["/usr/bin/caddy", "version"]'
    # The UI is part of the development server: its stand-in leads there.
    printf 'FROM %s\nENTRYPOINT ["/usr/bin/caddy"]\nCMD ["reverse-proxy", "--from", ":8080", "--to", "temporal:8233"]\n' \
        "$(tag caddy)" >"$work/caddy/Dockerfile.ui"
    docker build --quiet --tag "$(tag temporalio/ui)" --file "$work/caddy/Dockerfile.ui" "$work/caddy"
}

# The base of Headway's own image: Python as it is here, git, util-linux, certificates; `apt-get` says what it is.
python_base() {
    local root=$work/python/root base program
    base=$("$python" -c 'import sys; print(sys.base_prefix)')
    skeleton "$root"
    mkdir -p "$root/usr/local/bin" "$root/usr/local/lib" "$root/etc/ssl/certs" "$root/usr/lib/$arch-linux-gnu" "$root/usr/share"
    tar -C "$base/lib" --exclude=site-packages --exclude='python3.11/test' --exclude=idlelib --exclude=tkinter \
        --exclude=turtledemo --exclude='config-3.11-*' -cf - python3.11 | tar -C "$root/usr/local/lib" -xf -
    mkdir -p "$root/usr/local/lib/python3.11/site-packages"
    cp -rL "$base/lib/python3.11/site-packages/"pip* "$root/usr/local/lib/python3.11/site-packages/"
    cp -L "$base/bin/python3.11" "$root/usr/local/bin/python3.11"
    ln -s python3.11 "$root/usr/local/bin/python3" && ln -s python3.11 "$root/usr/local/bin/python"
    for program in git prlimit setpriv unshare mount nice; do
        rm -f "$root/usr/bin/$program"
        cp -L "$(PATH=/usr/bin:/usr/sbin command -v "$program")" "$root/usr/bin/$program"
    done
    cp -r /usr/lib/git-core "$root/usr/lib/git-core"
    cp -r /usr/share/git-core "$root/usr/share/git-core"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    libraries "$root" "$base"/lib/python3.11/lib-dynload/*.so "$root"/usr/bin/{git,prlimit,setpriv,unshare,mount,nice} \
        "$root/usr/lib/git-core/git-remote-http" "$root/usr/local/bin/python3.11"
    for library in libstdc++.so.6 libgcc_s.so.1 libz.so.1 libresolv.so.2 libnss_files.so.2 libnss_dns.so.2 libpthread.so.0 \
        libdl.so.2 librt.so.1 libutil.so.1; do
        [ -e "/lib/$arch-linux-gnu/$library" ] && cp -L "/lib/$arch-linux-gnu/$library" "$root/usr/lib/$arch-linux-gnu/"
        [ -e "/usr/lib/$arch-linux-gnu/$library" ] && cp -L "/usr/lib/$arch-linux-gnu/$library" "$root/usr/lib/$arch-linux-gnu/"
    done
    # Out of the interpreter's own folder to where the linker looks.
    find "$root$base" -name 'lib*.so*' -exec mv {} "$root/usr/lib/$arch-linux-gnu/" \; 2>/dev/null || true
    [ "$base" = /usr ] || [ "$base" = /usr/local ] || rm -rf "$root$base"
    printf '#!/bin/sh\necho "stand-in: apt-get $*: what there is was copied from another machine"\n' >"$root/usr/bin/apt-get"
    chmod 755 "$root/usr/bin/apt-get"
    image "$(tag python)" "$work/python" 'ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8' 'CMD ["python3"]'
}

# Two at a time: half of the work is the engine's, half copying.
build() {
    local one began=$SECONDS
    for one in "$@"; do "$one" || return 1; done
    echo "$*: $((SECONDS - began)) s"
}
build postgres temporal caddy &
build python_base seaweedfs
wait "$!"
rm -rf "$work"
