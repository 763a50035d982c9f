"""The records that a caller is asked to make, from the domain's public token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
PREFIX: Final = "_headway-verify"


@dataclass(frozen=True)
class Plan:
    """`target` is where names are led; `addresses` are its own, where the operator has named them."""

    target: str
    addresses: tuple[str, ...] = ()

    def cname(self, token: str) -> str:
        """A target of the domain's own: whoever can lead the name there owns it, and nobody else's record is his."""
        return f"dom-{token}.{self.target}"

    @staticmethod
    def txt(hostname: str, token: str) -> tuple[str, str]:
        """Name and value."""
        return f"{PREFIX}.{hostname}", f"headway-verification={token}"

    def records(self, hostname: str, token: str) -> list[Json]:
        """What to make: `{type, name, value}`. Of a bare domain (two labels) a CNAME cannot be made."""
        if hostname.count(".") > 1:
            return [_record("CNAME", hostname, self.cname(token))]
        name, value = self.txt(hostname, token)
        kinds: Sequence[tuple[str, str]] = [("AAAA" if ":" in one else "A", one) for one in self.addresses]
        leads = [_record(kind, hostname, one) for kind, one in kinds] or [_record("ALIAS", hostname, self.cname(token))]
        return [_record("TXT", name, value), *leads]

    def instructions(self, hostname: str, token: str) -> str:
        name, value = self.txt(hostname, token)
        if hostname.count(".") > 1:
            return (
                f"Make a CNAME record {hostname} -> {self.cname(token)}. To prove the name before it moves here, "
                f"make a TXT record {name} with the value {value} instead, and the CNAME when it is to move."
            )
        return (
            f"Make a TXT record {name} with the value {value}, and lead {hostname} here with the A, AAAA or ALIAS "
            "records that are named."
        )


def _record(type: str, name: str, value: str) -> Json:
    return {"type": type, "name": name, "value": value}
