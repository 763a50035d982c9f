"""What may be reached from a sandbox: pairs of host and port, and which names may lead to a private address."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from headway.errors import HeadwayError

PORT = re.compile(r"[0-9]{1,5}")
NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
DEFAULT_PORT = 443
INDEXES = "indexes"
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What Python calls global, or did until lately: translation to IPv4 of a network's own (RFC 8215, 7915, 4291), segment
# routing (RFC 9602), documentation (RFC 9637).
LOCAL = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96", "5f00::/16", "3fff::/20")))


def normal(host: str) -> str:
    """The comparable form of a host: lower case, no trailing dot, no brackets."""
    return host.strip("[]").lower().removesuffix(".")


def is_public(address: str) -> bool:
    """Whether an address literal is one of the public internet, addresses of IPv4 wrapped in IPv6 included."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local or any(ip in network for network in LOCAL):
            return False
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True)
class Rule:
    """One allowed destination. `host` is an exact name, an address, or `*.suffix` (without the suffix itself)."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def parse(cls, text: str) -> Rule:
        """`host`, `host:port`, `*.suffix`, `[v6]:port`; errors: `request.invalid_parameter`."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or (":" in host and not host.startswith("[")):
            host, port = text.strip(), str(DEFAULT_PORT)
        host = normal(host)
        number = int(port) if PORT.fullmatch(port) else 0
        if not 0 < number < 65536 or not (NAME.fullmatch(host) or is_literal(host)):
            raise HeadwayError("request.invalid_parameter", f"{text!r} is not a host, or host:port, to allow")
        return cls(host, number)

    @property
    def exact(self) -> bool:
        return not self.host.startswith("*.")

    def covers(self, host: str) -> bool:
        return host == self.host if self.exact else host.endswith(self.host[1:])


@dataclass(frozen=True)
class EgressPolicy:
    """`budget` is bytes in both directions for one run; `connections` how many may be open at once.

    `private_ok` are exact names (or addresses) of `rules` that may lead to an address that is not public. `public`
    are ports that are open on every public address.
    """

    rules: tuple[Rule, ...]
    private_ok: frozenset[str] = field(default_factory=frozenset)
    budget: int = 8 << 30
    connections: int = 128
    public: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        allow: Iterable[str],
        *,
        private_ok: Iterable[str] = (),
        indexes: Iterable[str] = (),
        budget: int = 8 << 30,
    ) -> EgressPolicy:
        """The operator's settings as a policy.

        `allow` and `indexes` are texts as `Rule.parse` takes them. The word `indexes` in `private_ok` stands for
        all hosts of `indexes`: a company's own mirror mostly has a private address. Without that word an index
        that resolves to a private address is refused like any other name.
        """
        index_rules = [Rule.parse(text) for text in indexes]
        rules = dict.fromkeys([Rule.parse(text) for text in allow] + index_rules)
        private = {normal(name) for name in private_ok if name != INDEXES}
        if INDEXES in set(private_ok):
            private |= {rule.host for rule in index_rules}
        return cls(tuple(rules), frozenset(private), budget)

    def refusal(self, host: str, port: int) -> str | None:
        """Why `host:port` is not allowed, or None. `host` must be `normal`."""
        if port in self.public:
            return None
        ports = [rule.port for rule in self.rules if rule.covers(host)]
        if not ports:
            return "not on the allowlist"
        return None if port in ports else f"port {port} is not allowed for this host"

    def usable(self, host: str, addresses: Iterable[str]) -> list[str]:
        """Those of a host's resolved addresses that may be connected to, in their order."""
        return [a for a in addresses if host in self.private_ok or is_public(a)]


def is_literal(host: str) -> bool:
    """Whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
