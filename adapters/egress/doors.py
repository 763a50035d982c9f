"""Which loopback addresses of a sandbox stand for which allowed hosts."""

from __future__ import annotations

import ipaddress

from adapters.egress.policy import EgressPolicy, Rule, is_literal

MOST_DOORS = 120
FIRST_DOOR = ipaddress.IPv4Address("127.77.0.1")


def doors_of(policy: EgressPolicy | None) -> list[tuple[str, Rule]]:
    """A loopback address for each allowed host with a name of its own, and the ports behind it."""
    if policy is None:
        return []
    named = [rule for rule in policy.rules if rule.exact and not is_literal(rule.host)][:MOST_DOORS]
    hosts = {host: str(FIRST_DOOR + at) for at, host in enumerate(dict.fromkeys(rule.host for rule in named))}
    return [(hosts[rule.host], rule) for rule in named if rule.host != "localhost"]
