#!/bin/sh
# Stand-in: `getent hosts NAME` by the resolver that Docker gives to every container.
[ "${1:-}" = hosts ] || exit 2
found=$(nslookup "$2" 2>/dev/null | awk '/^Name:/ { named = 1 } named && /^Address/ { print $2; exit }')
[ -n "$found" ] && echo "$found  $2"
