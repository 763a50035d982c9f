#!/bin/sh
# The server reads its password from the environment alone: take it from the secret's file there and nowhere else.
set -eu
POSTGRES_PWD=$(cat /run/secrets/temporal_password)
export POSTGRES_PWD
exec /etc/temporal/entrypoint.sh
