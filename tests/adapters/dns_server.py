"""A DNS server on loopback that answers from a table: real questions and answers, by UDP."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class DnsServer:
    """`records`: values by `(name, kind)`, names in lower case without the last dot. Aliases are followed, as a
    resolver does. `silent`: it hears and says nothing."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    silent: bool = False
    refuses: bool = False
    asked_at_all: bool = False

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def set(self, name: str, kind: str, *values: str) -> None:
        self.records[name, kind] = list(values)

    def _serve(self) -> None:
        while True:
            raw, sender = self._socket.recvfrom(4096)
            if not raw:
                return
            if not self.silent:
                self._socket.sendto(self._answer(dns.message.from_wire(raw)).to_wire(), sender)

    def _answer(self, question: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        self.asked_at_all = True
        if self.refuses:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer
        asked = question.question[0]
        name, kind = asked.name.to_text().lower().rstrip("."), dns.rdatatype.to_text(asked.rdtype)
        self.asked[name, kind] += 1
        known = False
        for _ in range(20):
            known = known or any(one == name for one, _ in self.records)
            if values := self.records.get((name, kind)):
                shown = [{"TXT": f'"{value}"', "CNAME": f"{value}."}.get(kind, value) for value in values]
                answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", kind, *shown))
                break
            alias = self.records.get((name, "CNAME"))
            if not alias or kind == "CNAME":
                break
            answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "CNAME", alias[0] + "."))
            name = alias[0]
        if not known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
