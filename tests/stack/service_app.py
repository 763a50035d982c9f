"""What the services of these tests run: a server of the standard library that a test can make misbehave."""

from __future__ import annotations

APP = """
import http.server, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":
            return self.slow()
        status = STATUS if self.path == "/health" else 200
        self.answer(status, f"EDITION {os.environ.get('GREETING')} {os.environ.get('TOKEN')}".encode())

    def slow(self):
        self.send_response(200)
        self.send_header("Content-Length", "40")
        self.end_headers()
        for number in range(40):
            self.wfile.write(b"s")
            self.wfile.flush()
            time.sleep(0.05)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

print("edition EDITION, token", os.environ.get("TOKEN"), flush=True)
START
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

TOML = """
[build]
command = ""

[run]
command = "exec python3 app.py"
health_check_path = "/health"
health_check_timeout = {timeout}
{more}
"""


def service(edition: str, *, status: int = 200, start: str = "", timeout: int = 30, more: str = "") -> dict[str, str]:
    """The files of a service. `status` is what /health answers; `start` is run before it listens."""
    app = APP.replace("EDITION", edition).replace("STATUS", str(status)).replace("START", start)
    return {"app.py": app, "headway.toml": TOML.format(timeout=timeout, more=more)}
