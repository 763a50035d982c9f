"""Certificates on demand: a handshake under a name makes the web server ask for one, and shows whether it got it."""

from __future__ import annotations

import socket
import ssl
from typing import Final

SECONDS: Final = 60.0


class Handshake:
    """`port` is where the web server of this machine speaks TLS; 0: it does not."""

    def __init__(self, port: int, host: str = "127.0.0.1", seconds: float = SECONDS) -> None:
        self._place = (host, port)
        self._seconds = seconds

    def certified(self, hostname: str) -> bool:
        """Whether it has a certificate for the name now. Whose it is, visitors judge."""
        if not self._place[1]:
            return False
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(self._place, timeout=self._seconds) as plain,
                context.wrap_socket(plain, server_hostname=hostname) as shaken,
            ):
                return bool(shaken.getpeercert(binary_form=True))
        except OSError:
            return False
