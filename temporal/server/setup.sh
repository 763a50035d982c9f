#!/bin/sh
# The namespace, how long it keeps closed runs, and the search attributes (names: temporal/names.py); harmless when
# done again.
set -eu
namespace=$TEMPORAL_NAMESPACE
# By number: the command line asks the resolver for records beside the address, and where Docker's resolver has none
# behind it, it waits for them in vain.
host=${TEMPORAL_ADDRESS%:*}
number=$(getent hosts "$host" | awk 'NR == 1 { print $1 }')
TEMPORAL_ADDRESS=${number:-$host}:${TEMPORAL_ADDRESS##*:}
tries=0
until temporal operator cluster health --address "$TEMPORAL_ADDRESS" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "Temporal at $TEMPORAL_ADDRESS is not healthy"; exit 1; }
    sleep 1
done
reach="--address $TEMPORAL_ADDRESS --namespace $namespace"
# shellcheck disable=SC2086 # the words of a command, here and below
if temporal operator namespace describe $reach >/dev/null 2>&1; then
    temporal operator namespace update --retention "$TEMPORAL_RETENTION" $reach
else
    temporal operator namespace create --retention "$TEMPORAL_RETENTION" $reach
fi
tries=0
# A new namespace takes some seconds until every part of the server knows it.
until temporal operator search-attribute create $reach \
    --name HeadwaySite --type Keyword \
    --name HeadwayEnvironment --type Keyword \
    --name HeadwayJobType --type Keyword \
    --name HeadwayCommit --type Keyword \
    --name HeadwayDigest --type Keyword; do
    tries=$((tries + 1))
    [ "$tries" -lt 30 ] || { echo "the search attributes could not be made"; exit 1; }
    sleep 1
done
