"""An SMTP server on loopback that keeps what it is sent, and refuses what it is told to."""

from __future__ import annotations

import socketserver
import threading
from dataclasses import dataclass, field
from typing import Self


@dataclass
class MailServer:
    """`answers` to MAIL are used up first, then 250."""

    answers: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])


def _handler(mail: MailServer) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 mail.test")
            while line := self.rfile.readline().decode("utf-8", "replace").strip():
                word = line.upper()
                if word.startswith("DATA"):
                    self.say("354 go on")
                    kept = []
                    while (part := self.rfile.readline().decode("utf-8", "replace")) not in (".\r\n", ""):
                        kept.append(part)
                    mail.mails.append("".join(kept))
                    self.say("250 kept")
                elif word.startswith("MAIL"):
                    self.say(mail.answers.pop(0) if mail.answers else "250 ok")
                elif word.startswith("QUIT"):
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    return Handler
