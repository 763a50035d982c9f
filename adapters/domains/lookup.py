"""A look at the DNS: whether a name is proven, and whether it leads here. By a resolver of the operator's choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from adapters.domains.records import Plan
from headway.errors import HeadwayError

Json = dict[str, Any]
CHAIN: Final = 8
MOST: Final = 20


@dataclass(frozen=True)
class Found:
    """`seen` are `{type, name, value}`; `why` says what is missing where it is not proven."""

    proven: bool
    points_here: bool
    seen: list[Json]
    why: str = ""


class Lookup:
    """`servers` are `address` or `address:port` (`[v6]:port`); none: the machine's own resolver. For threads."""

    def __init__(self, plan: Plan, servers: Sequence[str] = (), seconds: float = 5.0) -> None:
        self.plan = plan
        self._seconds = seconds
        self._places = [_place(one) for one in servers]

    def look(self, hostname: str, token: str) -> Found:
        """Raises domain.resolver_failed where nobody answers; what is not there is an answer."""
        seen: list[Json] = []
        led = False
        for name, target in self._chain(hostname):
            seen.append({"type": "CNAME", "name": name, "value": target})
            led = led or target == self.plan.cname(token)
        name, value = self.plan.txt(hostname, token)
        texts = [] if led else self._ask(name, "TXT")
        seen += [{"type": "TXT", "name": name, "value": text} for text in texts]
        addresses = self._addresses(hostname)
        seen += [{"type": "AAAA" if ":" in one else "A", "name": hostname, "value": one} for one in addresses]
        ours = {*self.plan.addresses} or {*self._addresses(self.plan.target)}
        proven = led or value in texts
        why = "" if proven else f"Neither a CNAME to {self.plan.cname(token)} nor the TXT record {name} is there."
        return Found(proven, led or bool(ours & {*addresses}), seen[:MOST], why)

    def _chain(self, hostname: str) -> Iterator[tuple[str, str]]:
        """Aliases from a name on, at most eight."""
        name = hostname
        for _ in range(CHAIN):
            found = self._ask(name, "CNAME")
            if not found:
                return
            yield name, found[0]
            name = found[0]

    def _addresses(self, name: str) -> list[str]:
        """They prove nothing: whoever cannot tell them keeps nobody's proof waiting."""
        try:
            return [*self._ask(name, "A"), *self._ask(name, "AAAA")]
        except HeadwayError:
            return []

    def _ask(self, name: str, kind: str) -> list[str]:
        resolver = self._resolver()
        try:
            answer = resolver.resolve(dns.name.from_text(name), kind, lifetime=self._seconds, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            message = f"The DNS does not answer about {name}: {type(error).__name__}."
            raise HeadwayError("domain.resolver_failed", message) from error
        # An answer for A comes with the aliases that led to it.
        return [_text(kind, one) for one in answer if dns.rdatatype.to_text(one.rdtype) == kind][:MOST]

    def _resolver(self) -> dns.resolver.Resolver:
        """A new one each time: it keeps no answer, and what was changed a moment ago counts."""
        if not self._places:
            return dns.resolver.Resolver()
        made = dns.resolver.Resolver(configure=False)
        made.nameservers = [address for address, _ in self._places]
        made.nameserver_ports = dict(self._places)
        return made


def _place(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return text.strip("[]"), 53
    return host.strip("[]"), int(port)


def _text(kind: str, one: Any) -> str:
    if kind == "TXT":
        return b"".join(one.strings).decode("utf-8", "replace")
    if kind == "CNAME":
        return str(one.target).lower().removesuffix(".")
    return str(one.address)
