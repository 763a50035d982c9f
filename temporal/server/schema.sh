#!/bin/sh
# Bring Temporal's two databases to the schema of this version of admin-tools; harmless when done again.
set -eu
SQL_PASSWORD=$(cat /run/secrets/temporal_password)
export SQL_PASSWORD
schema=/etc/temporal/schema/postgresql/v12
for database in temporal temporal_visibility; do
    case $database in temporal) kind=temporal ;; *) kind=visibility ;; esac
    tool="temporal-sql-tool --plugin postgres12 --ep $POSTGRES_SEEDS --port $DB_PORT --user $POSTGRES_USER --db $database"
    # shellcheck disable=SC2086 # the words of a command
    $tool setup-schema -v 0.0 || echo "$database: has a schema already"
    # shellcheck disable=SC2086
    $tool update-schema --schema-dir "$schema/$kind/versioned"
done
