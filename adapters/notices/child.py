"""The process that says one notice: an order on stdin, what became of it on stdout. Nothing else imports Apprise.

Order: `{"url", "title", "body", "level", "private_ok", "check"}`; answer: `{"good", "status", "error"}`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
# A server's answer is read whole by whatever library speaks with it, and unpacked.
MOST_MEMORY: Final = 512 << 20
_STATUS: Final = re.compile(r"error=(\d{3})\b")


class Heard(logging.Handler):
    """Apprise says what went wrong to its log alone. Of that only a status is kept: the rest may hold tokens."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.status: int | None = None
        self.connected = True

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        found = _STATUS.search(said)
        self.status = int(found[1]) if found else self.status
        self.connected = self.connected and "onnection error" not in said


def say(order: dict[str, Any]) -> dict[str, Any]:
    """Never raises for what the other side does."""
    from apprise import Apprise, AppriseAsset, NotifyFormat, PersistentStoreMode

    from adapters.notices.guard import Guard

    asset = AppriseAsset(
        app_id="Headway",
        app_desc="Headway",
        app_url="",
        async_mode=False,
        http_redirects=False,
        storage_mode=PersistentStoreMode.MEMORY,
    )
    heard = Heard()
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [heard], False
    code = [str(ROOT / room) for room in ("adapters", "headway")]
    guard = Guard(order["private_ok"], code, [os.environ.get("SSL_CERT_FILE", "")])
    guard.install()
    notifier = Apprise(asset=asset)
    if not notifier.add(order["url"]):
        return {"good": False, "status": None, "error": guard.refused or "this is no whole address of that service"}
    if order.get("check"):
        return {"good": True, "status": None, "error": None}
    good = bool(
        notifier.notify(
            body=order["body"], title=order["title"], notify_type=order["level"], body_format=NotifyFormat.TEXT
        )
    )
    return {"good": good, "status": heard.status, "error": None if good else _why(guard.refused, heard)}


def _why(refused: str, heard: Heard) -> str:
    if refused:
        return refused
    if heard.status is not None:
        return f"answered {heard.status}"
    return "it was not taken" if heard.connected else "could not connect"


def main() -> None:
    order = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    try:
        answer = say(order)
    except Exception as error:
        answer = {"good": False, "status": None, "error": f"could not be said: {type(error).__name__}"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
