"""The app that the runtime tests run: it does what the path of a request says. Standard library only."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = dict(parse_qsl(url.query))
        answer = getattr(self, "on_" + url.path.strip("/"), None)
        if answer is None:
            return self.say(f"hello from {os.environ.get('NAME', 'nobody')}")
        try:
            answer(**asked)
        except OSError as error:
            self.say(f"{type(error).__name__} {error.errno}")

    def say(self, text: str | bytes) -> None:
        body = text.encode() if isinstance(text, str) else text
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def on_env(self) -> None:
        self.say(json.dumps(dict(os.environ)))

    def on_whoami(self) -> None:
        with open("/proc/self/status") as file:
            status = file.read()
        self.say(
            json.dumps({"uid": os.getuid(), "pids": [p for p in os.listdir("/proc") if p.isdigit()], "status": status})
        )

    def on_read(self, path: str) -> None:
        if os.path.isdir(path):
            return self.say("entries: " + " ".join(sorted(os.listdir(path))))
        with open(path, "rb") as file:
            self.say(b"content: " + file.read(4096))

    def on_write(self, path: str) -> None:
        with open(path, "a") as file:
            file.write("written")
        self.say("written")

    def on_connect(self, host: str, port: str) -> None:
        with socket.create_connection((host, int(port)), 5) as one:
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.say(b"answered: " + one.recv(4096))

    def on_connect_by_proxy(self, destination: str) -> None:
        with socket.create_connection(("127.0.0.1", 3128), 20) as one:
            one.sendall(f"CONNECT {destination} HTTP/1.1\r\n\r\n".encode())
            self.say(one.recv(4096).split(b"\r\n")[0])

    def on_unix(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            self.say(b"answered: " + one.recv(100))

    def on_die(self, code: str = "3") -> None:
        os._exit(int(code))

    def on_print(self, text: str, times: str = "1", stream: str = "stdout") -> None:
        for _ in range(int(times)):
            print(text, file=getattr(sys, stream), flush=True)
        self.say("printed")

    def on_secrets(self, names: str) -> None:
        import base64

        for name in names.split(","):
            value = os.environ[name]
            print("plain", value)
            print("encoded", base64.b64encode(value.encode()).decode())
            print("within", base64.b64encode(f"user:{value}:rest".encode()).decode(), flush=True)
        self.say("printed")

    def on_binary(self) -> None:
        sys.stdout.buffer.write(b"bin \xff\x00\x07 end\n" + b"x" * 50_000 + b"\n")
        sys.stdout.flush()
        self.say("printed")

    def on_eat(self, mib: str) -> None:
        kept = []
        for _ in range(int(mib)):
            kept.append(bytearray(os.urandom(1 << 20)))
        self.say("fed")

    def on_fork(self) -> None:
        made = 0
        try:
            for _ in range(2000):
                if os.fork() == 0:
                    time.sleep(600)
                    os._exit(0)
                made += 1
        finally:
            self.say(f"made {made}")

    def on_stream(self, mib: str, pause: str = "0") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(int(mib) << 20))
        self.end_headers()
        for _ in range(int(mib) * 16):
            self.wfile.write(b"d" * (1 << 16))
            time.sleep(float(pause))

    def on_upgrade(self) -> None:
        self.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        while data := self.connection.recv(1 << 16):
            self.connection.sendall(data)
        self.connection.sendall(b"bye")  # the other side has only closed its half
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # requests that run are finished before the process ends
    request_queue_size = 128


def main() -> None:
    mode = sys.argv[1] if len(sys.argv) > 1 else "serve"
    if mode == "late":
        time.sleep(0.5)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server(("", int(os.environ["PORT"]) + (1 if mode == "elsewhere" else 0)), Handler)
    if mode != "deaf":
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("serving", flush=True)
    server.serve_forever(0.05)
    server.server_close()
    print("finished", flush=True)


if __name__ == "__main__":
    main()
