#!/usr/bin/env bash
# `start DIR`: a PostgreSQL of its own in DIR, as the postgres user, on a free loopback port; prints its URL.
# `restart DIR`: stops it at once, as a crash would, and starts it again at the same address. `stop DIR`: stops it.
set -eu
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups env -i PATH="$PATH" LC_ALL=C.UTF-8 "$@"; }
bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
dir=$2
case $1 in
start)
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    password=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
    install -d -o postgres -g postgres -m 700 "$dir"
    install -o postgres -m 600 /dev/null "$dir/password"
    printf '%s\n' "$password" >"$dir/password"
    as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile="$dir/password" -E UTF8 >"$dir/initdb.log" 2>&1
    as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c max_connections=200" start >&2
    echo "postgresql://postgres:$password@127.0.0.1:$port/postgres"
    ;;
restart)
    as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >&2
    as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 \
        -o "-p ${3:?restart needs the port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c max_connections=200" start >&2
    ;;
stop)
    as_postgres "$bin/pg_ctl" -D "$dir/data" -m fast -w stop >&2
    ;;
esac
