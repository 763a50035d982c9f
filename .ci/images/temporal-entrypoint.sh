#!/bin/sh
# Stand-in for temporalio/server: the development server of the same version. It takes the dynamic configuration that
# the real one would read, says which database it leaves alone, and keeps its own in memory or in /tmp.
set -eu
echo "stand-in: development server, not a server on ${DB:-no database} at ${POSTGRES_SEEDS:-nowhere}"
values=
file=${DYNAMIC_CONFIG_FILE_PATH:-}
if [ -n "$file" ]; then
    # `name:` on one line, `  - value: V` on the next, as temporal/dynamicconfig.yaml has it.
    values=$(awk '/^[a-zA-Z][^ ]*:/ { name = $1; sub(":", "", name) }
        /^ *- *value:/ { sub("^ *- *value: *", ""); print "--dynamic-config-value=" name "=" $0 }' "$file")
fi
# shellcheck disable=SC2086 # one word for each value; none holds a space
exec temporal server start-dev --ip 0.0.0.0 --ui-ip 0.0.0.0 --log-level warn --db-filename "${STANDIN_DB:-/tmp/temporal.db}" \
    --disable-config-file --disable-config-env $values
