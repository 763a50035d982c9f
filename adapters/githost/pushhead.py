"""The beginning of a push as it travels: its commands, what the pusher's git can, how many objects follow.

It is read before git sees a byte of it, so that ten thousand refs or a million objects cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from headway.errors import HeadwayError

ZERO: Final = "0" * 40
_LARGEST: Final = 65520
_BAND: Final = 999  # fits every side band, old ones too


@dataclass(frozen=True)
class PushLimits:
    """What one push may bring."""

    refs: int = 1000
    objects: int = 500_000
    size: int = 256 << 20


@dataclass
class PushHead:
    """Fed with the request's bytes until `done`; `raw` is all of them so far, for git.

    Raises push.too_large and push.malformed.
    """

    limits: PushLimits
    commands: list[tuple[str, str, bytes]] = field(default_factory=list)
    capabilities: frozenset[str] = frozenset()
    done: bool = False
    raw: bytearray = field(default_factory=bytearray)
    _at: int = 0
    _section: str = "commands"

    def feed(self, chunk: bytes) -> None:
        self.raw += chunk
        while not self.done and self._section != "pack" and (line := self._line()) is not None:
            self._take(line)
        if self._section == "pack" and not self.done and len(self.raw) - self._at >= 12:
            self._pack(bytes(self.raw[self._at : self._at + 12]))

    def _line(self) -> bytes | None:
        """The next pkt-line, empty for a flush; None where it is not there yet."""
        head = bytes(self.raw[self._at : self._at + 4])
        if len(head) < 4:
            return None
        try:
            size = int(head, 16)
        except ValueError:
            raise HeadwayError("push.malformed", "The push does not speak git's protocol.") from None
        if size == 0:
            self._at += 4
            return b""
        if not 4 < size <= _LARGEST:
            raise HeadwayError("push.malformed", "The push does not speak git's protocol.")
        if len(self.raw) - self._at < size:
            return None
        self._at += size
        return bytes(self.raw[self._at - size + 4 : self._at])

    def _take(self, line: bytes) -> None:
        if line:
            if self._section == "commands" and not line.startswith(b"shallow "):
                self._command(line)
            return
        if self._section == "commands" and "push-options" in self.capabilities:
            self._section = "options"
        elif any(new.strip("0") for _, new, _ in self.commands):
            self._section = "pack"
        else:
            self.done = True

    def _command(self, line: bytes) -> None:
        line, zero, capabilities = line.partition(b"\0")
        if zero:
            self.capabilities = frozenset(capabilities.decode("ascii", "replace").split())
        old, _, rest = line.partition(b" ")
        new, _, ref = rest.rstrip(b"\n").partition(b" ")
        if len(old) not in (40, 64) or len(new) != len(old) or not ref:
            raise HeadwayError("push.malformed", "The push does not speak git's protocol.")
        self.commands.append((old.decode("ascii", "replace"), new.decode("ascii", "replace"), ref))
        if len(self.commands) > self.limits.refs:
            raise HeadwayError("push.too_large", f"A push brings at most {self.limits.refs} refs.")

    def _pack(self, head: bytes) -> None:
        if head[:4] != b"PACK":
            raise HeadwayError("push.malformed", "The push holds no pack.")
        objects = int.from_bytes(head[8:12], "big")
        if objects > self.limits.objects:
            raise HeadwayError(
                "push.too_large", f"A push brings at most {self.limits.objects} objects: this one has {objects}."
            )
        self.done = True


def packet(line: bytes) -> bytes:
    return f"{len(line) + 4:04x}".encode() + line


def refusal(head: PushHead, reason: str) -> bytes:
    """What git-receive-pack answers to a push of which it takes nothing; the pusher's git shows `reason`."""
    if "report-status" not in head.capabilities and "report-status-v2" not in head.capabilities:
        return b""
    text = reason.encode()
    report = packet(b"unpack " + text + b"\n")
    report += b"".join(packet(b"ng " + ref + b" refused\n") for _, _, ref in head.commands) + b"0000"
    if "side-band-64k" not in head.capabilities and "side-band" not in head.capabilities:
        return report
    said = packet(b"\2headway: " + text + b"\n")
    return said + b"".join(packet(b"\1" + part) for part in _parts(report)) + b"0000"


def _parts(data: bytes) -> Sequence[bytes]:
    return [data[at : at + _BAND - 5] for at in range(0, len(data), _BAND - 5)]
