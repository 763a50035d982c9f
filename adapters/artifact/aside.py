"""One sha256 of many pieces, computed on a thread of its own while its owner reads, and hashes otherwise, the next.

hashlib lets go of the interpreter's lock, so that two digests of the same bytes take the time of one on two processors.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final

# As many bytes wait in one batch, and as many batches: what is fed is held in memory until it is hashed.
_BATCH: Final = 1 << 20
_AHEAD: Final = 4


class Aside:
    """Fed and asked by one thread, as a context. `feed` waits where the hash is too far behind."""

    def __init__(self) -> None:
        self._hasher = self._marked = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._behind: deque[Future[None]] = deque()
        self._pieces: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Aside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _BATCH:
            self._hand_over()

    def mark(self) -> None:
        """Remember how far it is: `back` forgets what is fed from here on."""
        self._hand_over()
        self._later(self._pool.submit(self._mark))

    def back(self) -> None:
        self._pieces, self._size = [], 0
        self._later(self._pool.submit(self._back))

    def hexdigest(self) -> str:
        """Of everything that was fed."""
        self._hand_over()
        while self._behind:
            self._behind.popleft().result()
        return self._hasher.hexdigest()

    def _hand_over(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces:
            self._later(self._pool.submit(self._update, pieces))

    def _later(self, done: Future[None]) -> None:
        self._behind.append(done)
        while len(self._behind) > _AHEAD:
            self._behind.popleft().result()

    def _update(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._hasher.update(piece)

    def _mark(self) -> None:
        self._marked = self._hasher.copy()

    def _back(self) -> None:
        self._hasher = self._marked.copy()
