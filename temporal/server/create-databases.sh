#!/bin/sh
# Run once by the PostgreSQL image, on an empty volume: a role and two databases for Temporal, beside Headway's own.
# The password goes by standard input: arguments of a process can be read by others.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<SQL
CREATE ROLE temporal LOGIN PASSWORD '$(cat /run/secrets/temporal_password)';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE CONNECT ON DATABASE "$POSTGRES_DB" FROM PUBLIC;
SQL
