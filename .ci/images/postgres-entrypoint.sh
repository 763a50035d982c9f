#!/bin/sh
# Stand-in: the part of the official entrypoint that this project and testcontainers use. POSTGRES_USER, _PASSWORD
# (or _PASSWORD_FILE), _DB; files of /docker-entrypoint-initdb.d; the two log lines that say "ready".
set -eu
if [ "$(id -u)" = 0 ]; then
    chown -R 999:999 "$PGDATA" /run/postgresql
    exec su postgres -s /bin/sh -c 'exec /bin/sh "$0" "$@"' -- "$0" "$@"
fi
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    file=${POSTGRES_PASSWORD_FILE:-}
    if [ -z "$file" ]; then
        file=/tmp/password
        printf '%s\n' "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE}" >"$file"
    fi
    initdb -D "$PGDATA" -U "$user" --pwfile="$file" --auth-host=scram-sha-256 --auth-local=trust \
        --locale=C.UTF-8 -E UTF8 --no-sync
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    [ "$database" = postgres ] || psql -v ON_ERROR_STOP=1 -U "$user" -d postgres -c "CREATE DATABASE \"$database\""
    export POSTGRES_USER="$user" POSTGRES_DB="$database"
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
        *.sql) psql -v ON_ERROR_STOP=1 -U "$user" -d "$database" -f "$script" ;;
        *.sh) sh "$script" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo 'PostgreSQL init process complete; ready for start up.'
fi
[ "${1:-}" = postgres ] && shift
exec postgres -D "$PGDATA" -c listen_addresses='*' "$@"
