"""Notices: addresses that are refused, a process that may do little, real ones to a fake Slack and a mail server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zlib
from email import message_from_string
from email.policy import default
from pathlib import Path

import pytest

from adapters.notices.child import ROOT
from adapters.notices.notifier import Notice, Notifier
from adapters.notices.schemes import ALLOWED, check, shown
from adapters.webhooks.sending import Outcome
from headway.errors import HeadwayError
from tests.adapters.mail_server import MailServer
from tests.adapters.receiver import Receiver

TOKEN = "TIiajkdnlazkcOXrIdevi7FQ"
SLACK = f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN}"
NOTICE = Notice("Acme: site.deployed", "A deployment has finished rolling.\nRef: main <b>", "success")
HERE = frozenset(("127.0.0.1",))
# The production child, and its plugin at another address.
ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from apprise.plugins.slack import NotifySlack
NotifySlack.webhook_url = sys.argv[2]
from adapters.notices.child import main
main()
"""


def slack_at(url: str, *private_ok: str) -> Notifier:
    command = (sys.executable, "-I", "-B", "-c", ELSEWHERE, str(ROOT), url)
    return Notifier(private_ok, 30.0, command)


def send(notifier: Notifier, url: str) -> Outcome:
    return asyncio.run(notifier.send(url, NOTICE))


@pytest.mark.parametrize(
    "url",
    [
        "dbus://",
        "gnome://",
        "syslog://",
        "macosx://",
        "windows://",
        "rsyslog://example.com",
        "file:///etc/passwd",
        "json://example.com",
        "mqtt://example.com",
        "apprise://example.com/token",
        "signal://127.0.0.1/1/2",
        "https://example.com",
        "nonsense",
        "",
        "mmost://chat.example.com/token",
        "mailto://a:b@example.com",
        "mmosts://10.0.0.7/token",
        "mmosts://localhost/token",
        "mailtos://a:b@example.com?smtp=10.0.0.7",
        "ntfys://[::1]/topic",
        f"{SLACK}?verify=no",
        f"{SLACK}?template=/etc/passwd",
        f"{SLACK}?redirect=yes",
        "mailtos://a:b@example.com?pgp=yes&pgpkey=/etc/passwd",
        "mailtos://a:b@example.com?mode=insecure",
        f"{SLACK} x",
        "slack://" + "a" * 2000,
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(HeadwayError) as refused:
        check(url, HERE)
    assert (refused.value.code, refused.value.param) == ("notification.url_refused", "url")
    assert TOKEN not in refused.value.message


def test_addresses_that_are_taken_and_what_is_shown_of_them() -> None:
    for url in (SLACK, "mailtos://a:b@example.com", "mmost://127.0.0.1:80/t", "mailto://127.0.0.1:25?to=a@b.test"):
        assert check(url, HERE) == url
        assert shown(url) in ("slack://…", "mailtos://…", "mmost://…", "mailto://…")
    assert not {"dbus", "exec", "file", "gnome", "json", "syslog", "windows", "xml"}.intersection(ALLOWED)


GUARDED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import os, socket, subprocess
from adapters.notices.guard import Guard
guard = Guard(["127.0.0.1"], [])
guard.install()
def held(work, *args):
    try:
        work(*args)
    except OSError as error:
        return type(error).__name__
    return "done"
line = socket.socket()
print(json.dumps({
    "file": held(open, "/etc/passwd"),
    "ours": held(open, sys.argv[1] + "/README.md"),
    "write": held(open, sys.argv[2], "w"),
    "low": held(os.open, sys.argv[2], os.O_WRONLY | os.O_CREAT),
    "program": held(subprocess.run, ["/bin/true"]),
    "fork": held(os.fork),
    "unlink": held(os.unlink, sys.argv[2]),
    "private": held(line.connect, ("10.0.0.7", 1)),
    "unix": held(socket.socket(socket.AF_UNIX).connect, sys.argv[2]),
    "metadata": held(socket.create_connection, ("169.254.169.254", 80)),
    "udp": held(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto, b"x", ("127.0.0.1", 9)),
    "allowed": held(socket.create_connection, ("127.0.0.1", int(sys.argv[3]))),
    "refused": guard.refused,
}))
"""


def test_what_says_a_notice_may_do_little_else(tmp_path: Path) -> None:
    with Receiver() as receiver:
        words = (str(ROOT), str(tmp_path / "made"), str(receiver.port))
        ran = subprocess.run(
            [sys.executable, "-I", "-B", "-c", GUARDED, *words], capture_output=True, text=True, timeout=60, check=True
        )
    found = json.loads(ran.stdout)
    assert found.pop("allowed") == "done"
    assert found.pop("refused") == "a file is not allowed"
    assert set(found.values()) == {"NotAllowed"}, found
    assert not (tmp_path / "made").exists()


def test_slack_hears_it() -> None:
    with Receiver() as receiver:
        outcome = send(slack_at(receiver.url, "127.0.0.1"), SLACK)
    assert (outcome.error, len(receiver.got)) == (None, 1)
    [got] = receiver.got
    assert got.path == f"/hook/T1JJ3T3L2/A1BRTD4JD/{TOKEN}"
    said = json.dumps(got.event, ensure_ascii=False)
    assert "Acme: site.deployed" in said
    assert "A deployment has finished rolling." in said
    assert "<b>" not in said


@pytest.mark.slow
def test_an_answer_that_unpacks_to_more_than_there_is_room_for_is_a_failure() -> None:
    packing = zlib.compressobj(1, wbits=31)
    packed = b"".join([packing.compress(bytes(1 << 20)) for _ in range(1024)] + [packing.flush()])
    assert len(packed) < 8 << 20
    with Receiver(body=packed, coding="gzip") as receiver:
        # And not that it took too long, which it would with gigabytes in hand.
        assert send(slack_at(receiver.url, "127.0.0.1"), SLACK).error == "it was not taken"


@pytest.mark.slow
def test_what_slack_says_instead_is_told_without_a_token() -> None:
    with Receiver([500, 302], location="http://127.0.0.1:1/") as receiver:
        notifier = slack_at(receiver.url, "127.0.0.1")
        assert send(notifier, SLACK).error == "answered 500"
        moved = send(notifier, SLACK)
        assert moved.error is not None
        assert TOKEN not in moved.error
        assert len(receiver.got) == 2
        private = send(slack_at(receiver.url), SLACK)
        assert private.error == "127.0.0.1 leads to no public address"
        assert len(receiver.got) == 2
        gone = receiver.url
    assert send(slack_at(gone, "127.0.0.1"), SLACK).error == "could not connect"


@pytest.mark.slow
def test_mail_arrives_and_a_refusal_is_told() -> None:
    with MailServer(["451 later"]) as mail:
        url = f"mailto://127.0.0.1:{mail.port}?from=headway@acme.test&to=team@acme.test"
        notifier = Notifier(["127.0.0.1"], 30.0)
        assert send(notifier, url).error is not None
        assert send(notifier, url).error is None
    [raw] = mail.mails
    found = message_from_string(raw, policy=default)
    assert "Acme: site.deployed" in found["Subject"]
    assert "team@acme.test" in found["To"]
    body = found.get_body(("plain", "html"))
    assert body is not None
    assert "A deployment has finished rolling." in body.get_content()


@pytest.mark.slow
def test_what_says_too_little_is_refused_and_what_hangs_is_ended() -> None:
    with pytest.raises(HeadwayError) as refused:
        asyncio.run(Notifier().check("slack://x"))
    assert refused.value.code == "notification.url_refused"
    assert asyncio.run(Notifier().check(SLACK)) == SLACK
    stuck = Notifier(command=(sys.executable, "-I", "-c", "import time; time.sleep(600)"))
    stuck._seconds = 0.3
    assert send(stuck, SLACK).error == "not said within 0.3 s"
    dead = Notifier(command=(sys.executable, "-I", "-c", "raise SystemExit(3)"))
    assert send(dead, SLACK).error == "could not be said: its process has died"
