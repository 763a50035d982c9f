"""The hook `proc-receive`: git runs it with a push's commands, in place of moving any ref itself.

It decides nothing. Over a socket that the API has handed down it passes the commands on, prints what it is told to
print, and gives git the verdict. It holds no credential: that it has the socket is what it may. Only the standard
library, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import BinaryIO

FD = "PUSH_FD"


def read_lines(stream: BinaryIO) -> list[str]:
    """pkt-lines up to a flush."""
    lines: list[str] = []
    while True:
        size = int(stream.read(4), 16)
        if size == 0:
            return lines
        lines.append(stream.read(size - 4).decode("utf-8", "surrogateescape").rstrip("\n"))


def write_lines(stream: BinaryIO, lines: list[str]) -> None:
    for line in lines:
        data = line.encode("utf-8", "surrogateescape")
        stream.write(f"{len(data) + 4:04x}".encode() + data)
    stream.write(b"0000")
    stream.flush()


def verdict(ref: str, said: str | None) -> list[str]:
    """`said`: None is ok, `-` leaves the ref to git, everything else is why not."""
    if said is None:
        return [f"ok {ref}"]
    return [f"ok {ref}", "option fall-through"] if said == "-" else [f"ng {ref} {said}"]


def main() -> int:
    git, answer = sys.stdin.buffer, sys.stdout.buffer
    features = read_lines(git)[0].partition("\0")[2].split()
    with_options = "push-options" in features
    write_lines(answer, ["version=1" + ("\0push-options" if with_options else "")])
    commands = [line.split(" ", 2) for line in read_lines(git)]
    options = read_lines(git) if with_options else []
    with socket.socket(fileno=int(os.environ[FD])) as api:
        api.sendall(json.dumps({"commands": commands, "options": options}).encode() + b"\n")
        with api.makefile("rb") as told:
            for line in told:
                message = json.loads(line)
                if "say" in message:
                    sys.stderr.buffer.write(message["say"].encode("utf-8", "replace") + b"\n")
                    sys.stderr.buffer.flush()
                else:
                    report = [word for ref, said in message["report"] for word in verdict(ref, said)]
                    write_lines(answer, report)
                    return 0
    sys.stderr.write("headway: the platform does not answer any more; what was accepted goes on\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
