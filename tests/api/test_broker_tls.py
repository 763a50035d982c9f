"""The broker for other machines: a real TLS server on loopback, asked by the hosts' own client and by strangers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from adapters.broker import BrokerClient, Remote
from api.bootstrap import broker_tokens
from api.internal import tls
from api.internal.app import create_remote_broker
from api.main import _server, listen_tcp
from headway.broker import TLS_NAME, HostHello
from headway.errors import HeadwayError
from store.builders import add_builder, remove_builder
from store.hosts import forget_host, join_host, renew_credential
from tests.api.world import World

pytestmark = pytest.mark.anyio
KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class Machine:
    """Another machine: a folder with its papers."""

    papers: Path
    address: str

    def client(self) -> BrokerClient:
        return BrokerClient(Remote(self.address, self.papers / "broker.pem"), self.papers / "host.token", patience=0.2)


Ask = Callable[[Machine], None]


def hello(machine: Machine) -> None:
    with contextlib.closing(machine.client()) as client:
        client.hello("rack2", HostHello(public_key=KEY, labels=[]))


def who(machine: Machine) -> None:
    with contextlib.closing(machine.client()) as client:
        assert client.who() == "rack3"


async def refused(machine: Machine, ask: Ask = hello) -> str:
    with pytest.raises(HeadwayError) as caught:
        await asyncio.to_thread(ask, machine)
    return caught.value.code


@contextlib.asynccontextmanager
async def served(api: World, context: ssl.SSLContext) -> AsyncIterator[str]:
    server = _server(create_remote_broker(api.parts))
    server.config.load()
    server.config.ssl = context
    with listen_tcp("127.0.0.1", 0) as door:
        serving = asyncio.create_task(server.serve_quietly(sockets=[door]))
        await server.up.wait()
        try:
            yield f"127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
def papers(api: World, tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    secret = api.store.in_write(lambda session: join_host(session, "rack2", [])[1])
    (folder / "host.token").write_text(secret)
    (folder / "broker.pem").write_text(tls.authority(api.folder / "secrets"))
    return folder


async def test_a_host_elsewhere_needs_its_papers_alone(api: World, papers: Path) -> None:
    secrets = api.folder / "secrets"
    async with served(api, tls.context(secrets)) as address:
        machine = Machine(papers, address)
        await asyncio.to_thread(hello, machine)
        # What the door shows is made anew at each start; what is pinned stays, and its key is the API's alone.
        assert tls.authority(secrets) == (papers / "broker.pem").read_text()
        assert (secrets / tls.FILE).stat().st_mode & 0o777 == 0o600
        assert "PRIVATE" not in (papers / "broker.pem").read_text()

        api.store.in_write(lambda session: renew_credential(session, "rack2"))
        assert await refused(machine) == "auth.invalid_key"
        fresh = api.store.in_write(lambda session: renew_credential(session, "rack2")[1])
        (papers / "host.token").write_text(fresh)
        await asyncio.to_thread(hello, machine)
        api.store.in_write(lambda session: forget_host(session, "rack2"))
        assert await refused(machine) == "auth.invalid_key"


async def test_roles_of_this_machine_are_nobody_at_that_door(api: World, papers: Path) -> None:
    tokens = broker_tokens(api.folder)
    async with served(api, tls.context(api.folder / "secrets")) as address:
        machine = Machine(papers, address)
        for role in ("host", "builder", "control", "signing"):
            (papers / "host.token").write_text(tokens[role])
            assert await refused(machine) == "auth.invalid_key", role


async def test_a_builder_elsewhere_is_known_until_it_is_removed(api: World, papers: Path) -> None:
    async with served(api, tls.context(api.folder / "secrets")) as address:
        machine = Machine(papers, address)
        assert await refused(machine, who) == "role.insufficient", "a host's papers"
        (papers / "host.token").write_text(api.store.in_write(lambda session: add_builder(session, "rack3")[1]))
        await asyncio.to_thread(who, machine)
        assert await refused(machine) == "role.insufficient"
        api.store.in_write(lambda session: remove_builder(session, "rack3"))
        assert await refused(machine, who) == "auth.invalid_key"


async def test_one_that_the_pinned_root_does_not_vouch_for_gets_no_credential(
    api: World, papers: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    tls.authority(tmp_path / "other")
    long_ago = datetime.now(UTC) - timedelta(days=3 * tls.SHOWN_DAYS)
    for context in (tls.context(tmp_path / "other"), tls.context(api.folder / "secrets", now=long_ago)):
        async with served(api, context) as address:
            assert await refused(Machine(papers, address)) == "broker.untrusted"
    (papers / "broker.pem").unlink()
    assert await refused(Machine(papers, "127.0.0.1:1")) == "broker.untrusted"


async def test_who_has_no_credential_is_refused_before_his_question_is_read(api: World, papers: Path) -> None:
    async with served(api, tls.context(api.folder / "secrets")) as address:
        pinned = ssl.create_default_context(cafile=str(papers / "broker.pem"))
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=pinned, server_hostname=TLS_NAME)
        asked = (
            "PUT /hosts/rack2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hwh_guessed\r\nContent-Length: 60000000\r\n"
        )
        writer.write(f"{asked}\r\n{{".encode())
        answer = await asyncio.wait_for(reader.read(4096), 60)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"auth.invalid_key" in answer
        writer.close()
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(timeout=20, trust_env=False) as plain:
                await plain.get(f"http://{address}/health")


async def test_an_authority_that_cannot_be_read_is_said_so(api: World) -> None:
    path = api.folder / "secrets" / tls.FILE
    path.write_text("not a key")
    with pytest.raises(HeadwayError) as caught:
        tls.authority(path.parent)
    assert (caught.value.code, str(path) in caught.value.message) == ("stack.folder_invalid", True)
