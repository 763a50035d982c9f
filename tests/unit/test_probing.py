"""One look at an app's health ends in its time, whatever the app sends."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.hosting import probing

ANSWERS = {
    "dripping": (b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    "never silent": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.0),
    "a head without an end": (b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 60_000 + b"\r\n", 0.0),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_look_ends_in_its_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ONE_LOOK", 0.5)
    with _app(tmp_path / "s", *ANSWERS[kind]):
        began = time.monotonic()
        probe = probing.look(f"unix:{tmp_path / 's'}", "/", "acme.localhost", began)
    assert probe.status is None
    assert probe.why in ("no answer", "no HTTP (LineTooLong)", "no HTTP (HTTPException)")
    assert time.monotonic() - began < 2.0


def test_what_answers_is_healthy(tmp_path: Path) -> None:
    with _app(tmp_path / "s", b"HTTP/1.1 204 No Content\r\n\r\n", b"", 0.0):
        assert probing.look(f"unix:{tmp_path / 's'}", "/", "acme.localhost", 0.0).status == 204


class _app:
    def __init__(self, path: Path, first: bytes, again: bytes, pause: float) -> None:
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen()
        self._say, self._over = (first, again, pause), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        first, again, pause = self._say
        one, _ = self._door.accept()
        with one, suppress(OSError):
            one.sendall(first)
            while again and not self._over.is_set():
                one.sendall(again)
                time.sleep(pause)
            self._over.wait(5.0)

    def __enter__(self) -> _app:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5.0)
        self._door.close()
