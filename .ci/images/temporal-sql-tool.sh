#!/bin/sh
# Stand-in: there is no binary of temporal-sql-tool to be had here. Checks only that it would have a database to go to.
set -eu
[ -n "${SQL_PASSWORD:-}" ] || { echo "stand-in: temporal-sql-tool has no SQL_PASSWORD" >&2; exit 1; }
echo "stand-in: not run: temporal-sql-tool $*"
