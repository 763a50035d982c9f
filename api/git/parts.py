"""What the git server is made of."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.githost.backend import Backend


@dataclass(frozen=True)
class GitParts:
    """`seconds` bounds receiving a push and a whole fetch; `receiving` and `open` how many there are at once.

    `size` bounds one repository, in bytes; `patience` is how long a pusher waits for the deploy, in seconds.
    """

    backend: Backend
    seconds: float = 600.0
    receiving: int = 8
    open: int = 200
    size: int = 4 << 30
    patience: float = 3600.0
