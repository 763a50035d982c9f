"""What a host does with its broker now and then, for as long as its worker runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headway.errors import HeadwayError


async def now_and_then(
    work: Callable[[], object], every: float, log: logging.Logger, what: str, *, again: float | None = None
) -> None:
    """Until it is canceled, whatever becomes of the work; `again`: the pause after a broker that refused or is away.

    `what` is said of it then: "drifts are told".
    """
    while True:
        pause = every
        try:
            await asyncio.to_thread(work)
        except HeadwayError as error:
            log.debug("%s later: %s", what, error.code)
            pause = every if again is None else again
        except Exception:
            log.exception("%s later", what)
        await asyncio.sleep(pause)
