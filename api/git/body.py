"""A request's body as it comes in: inflated, counted, never held."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Final

from api.gate import Receive
from headway.errors import HeadwayError

PIECE: Final = 256 << 10


class Gone(Exception):
    """The client has hung up."""


class Body:
    """At most `most` bytes after inflation. Raises push.too_large and push.malformed, and Gone."""

    def __init__(self, receive: Receive, encoding: bytes, most: int) -> None:
        if encoding not in (b"", b"identity", b"gzip", b"x-gzip"):
            raise HeadwayError("push.malformed", "Send the body plain, or with Content-Encoding: gzip.")
        self._receive = receive
        self._inflate = zlib.decompressobj(31) if encoding in (b"gzip", b"x-gzip") else None
        self._most = most
        self._more = True
        self.size = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            self._more = bool(message.get("more_body", False))
            for piece in self._inflated(message.get("body", b"")):
                self.size += len(piece)
                if self.size > self._most:
                    raise HeadwayError("push.too_large", f"A request has at most {self._most} bytes.")
                yield piece

    def _inflated(self, chunk: bytes) -> list[bytes]:
        if self._inflate is None:
            return [chunk] if chunk else []
        pieces = []
        try:
            while chunk:
                piece = self._inflate.decompress(chunk, PIECE)
                chunk = self._inflate.unconsumed_tail
                if piece:
                    pieces.append(piece)
                # A bomb is stopped by its size, not by what it makes of one chunk of the network.
                if sum(map(len, pieces)) + self.size > self._most:
                    break
        except zlib.error:
            raise HeadwayError("push.malformed", "The body is not gzip.") from None
        return pieces

    async def drain(self, most: int) -> None:
        """Read what is left and forget it, so that the client hears the answer; at most so many bytes."""
        while self._more and most > 0:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            most -= len(message.get("body", b""))
            self._more = bool(message.get("more_body", False))
