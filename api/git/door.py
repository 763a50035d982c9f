"""The door in front of everything below `/git/`: who asks, which site, and may he? Then git's own server answers.

A team's own site is found by its slug, any site by its id. What may not be seen is not there (404), also for a push.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

import anyio
from sqlmodel import Session, col, select

from adapters.githost.backend import Asked
from adapters.githost.pushhead import PushHead, refusal
from api.auth import Caller
from api.gate import App, Receive, Scope, Send
from api.git.body import Body, Gone
from api.git.bridge import Bridge
from api.git.keeper import BranchKeeper
from api.git.parts import GitParts
from api.git.session import PushSession
from api.limits import Name, too_many
from api.parts import Parts
from api.problems import as_headway_error
from headway.errors import HeadwayError
from headway.ids import is_id
from store.models import Site

PREFIX: Final = "/git/"
_PATH: Final = re.compile(
    r"/git/(?P<name>[A-Za-z0-9_-]{1,63})(?:\.git)?(?P<rest>/info/refs|/git-upload-pack|/git-receive-pack)"
)
READ, WRITE = "deployments:read", "deployments:write"
# What a fetch may ask for: haves and wants, never contents.
MOST_ASKED: Final = 16 << 20
# Commands and options beside the pack.
MARGIN: Final = 4 << 20
log = logging.getLogger("headway.git")


class GitDoor:
    """Middleware in front of both dialects: their gates take JSON of at most 1 MiB, this one takes packs."""

    def __init__(self, app: App, *, parts: Parts) -> None:
        self.app, self.parts, git = app, parts, parts.git
        self._receiving = asyncio.Semaphore(git.receiving if git is not None else 1)
        self._open = 0
        self._sessions: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        git, path = self.parts.git, scope.get("path", "")
        if scope["type"] != "http" or git is None or not path.startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        answered = False

        async def answer(message: dict[str, object]) -> None:
            nonlocal answered
            answered = answered or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._pass(git, scope, receive, answer)  # type: ignore[arg-type]
        except Gone:
            pass
        except TimeoutError:
            log.warning("git was ended: it took longer than %s s", git.seconds)
        except Exception as failure:
            error = as_headway_error(failure)
            if not answered:
                await _refuse(error, send)

    async def _pass(self, git: GitParts, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"])
        query = scope["query_string"].decode("latin-1")
        service = _service(scope["method"], found["rest"], query) if found else None
        if found is None or service is None:
            raise HeadwayError("route.not_found", "There is no repository at this path.")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        address = (scope.get("client") or ("", 0))[0]
        pushes = service == "git-receive-pack"
        caller = await self._caller(headers, address)
        bucket: Name = "write" if scope["method"] == "POST" and pushes else "read"
        drawn = self.parts.limiter.draw(caller.key_id, caller.team_id, bucket, exempt=caller.operator)
        if drawn.retry_after is not None:
            await _refuse(too_many(drawn), send, drawn.headers())
            return
        site = await anyio.to_thread.run_sync(self._site, git, caller, found["name"], pushes)
        asked = Asked(site.id, scope["method"], found["rest"], query, headers, address)
        if pushes and self._open >= git.open:
            raise HeadwayError("push.busy", "Too many pushes are under way here.")
        if scope["method"] == "GET":
            await self._run(git, asked, Body(receive, b"", 0).pieces(), receive, send)
        elif pushes:
            await self._receive(git, caller, site, asked, receive, send)
        else:
            body = Body(receive, headers.get(b"content-encoding", b""), MOST_ASKED)
            await self._run(git, asked, body.pieces(), receive, send)

    async def _caller(self, headers: dict[bytes, bytes], address: str) -> Caller:
        given = headers.get(b"authorization", b"").decode("latin-1")
        scheme, _, rest = given.partition(" ")
        if scheme.lower() == "basic":
            try:
                # Any user name: git asks for one, the key says who it is.
                password = base64.b64decode(rest.strip(), validate=True).decode("latin-1").partition(":")[2]
            except (binascii.Error, ValueError):
                password = ""
            given = f"Bearer {password}" if password else ""
        return await self.parts.auth.caller(given or None, address)

    def _site(self, git: GitParts, caller: Caller, name: str, pushes: bool) -> Site:
        """404 before 403. The repository is there afterwards, its HEAD at the default branch."""
        with self.parts.store.read() as session:
            site = _visible(session, caller, name)
        caller.require(WRITE if pushes else READ)
        if site.repository is not None:
            raise HeadwayError("repository.remote", f"{site.slug} is built from {site.repository}.")
        if site.status not in ("active", "provisioning"):
            raise HeadwayError("environment.not_active", f"The site {site.slug} is {site.status}.")
        repositories = git.backend.repositories
        repositories.ensure(site.id, site.default_branch)
        if pushes and (size := repositories.size(site.id)) > git.size:
            raise HeadwayError("repository.full", f"The repository holds {size} bytes: it may hold {git.size}.")
        return site

    async def _run(
        self, git: GitParts, asked: Asked, pieces: AsyncIterator[bytes], receive: Receive, send: Send
    ) -> None:
        bridge = await Bridge.open(git.backend.argv, git.backend.environment(asked, None))
        await bridge.carry(pieces, receive, send, deadline=git.seconds)

    async def _receive(
        self, git: GitParts, caller: Caller, site: Site, asked: Asked, receive: Receive, send: Send
    ) -> None:
        """Judge the beginning of a push, then hand all of it to git and what git makes of it to a session."""
        head = PushHead(git.backend.limits)
        body = Body(receive, asked.headers.get(b"content-encoding", b""), git.backend.limits.size + MARGIN)
        pieces = body.pieces()
        try:
            async for piece in pieces:
                head.feed(piece)
                if head.done:
                    break
        except HeadwayError as error:
            with contextlib.suppress(Gone):
                await body.drain(4 * git.backend.limits.size)
            await _say_refused(head, error, send)
            return
        self._open += 1
        try:
            await self._carry(git, caller, site, asked, _after(bytes(head.raw), pieces, body, git), receive, send)
        finally:
            self._open -= 1

    async def _carry(
        self,
        git: GitParts,
        caller: Caller,
        site: Site,
        asked: Asked,
        pieces: AsyncIterator[bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        keeper = BranchKeeper(self.parts.store, git.backend.repositories)
        async with asyncio.timeout(git.seconds) as bound:
            await self._receiving.acquire()
            release = _once(self._receiving.release)

            def on_hook() -> None:
                bound.reschedule(None)
                release()

            try:
                ours, theirs = socket.socketpair()
                with theirs:
                    env = git.backend.environment(asked, theirs.fileno())
                    bridge = await Bridge.open(git.backend.argv, env, [theirs.fileno()])
                session = PushSession(self.parts, git, caller, site, keeper, on_hook)
                task = asyncio.create_task(session.run(ours))
                # It outlives the request: what was accepted is started, and its branch moved, for nobody as well.
                self._sessions.add(task)
                task.add_done_callback(self._ended)
                await bridge.carry(pieces, receive, send, deadline=git.seconds + git.patience + 60)
            finally:
                release()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a push ended unexpectedly", exc_info=error)


def _once(do: Callable[[], None]) -> Callable[[], None]:
    done = False

    def run() -> None:
        nonlocal done
        if not done:
            done = True
            do()

    return run


def _service(method: str, rest: str, query: str) -> str | None:
    """The service that is asked for; only git's smart protocol is spoken."""
    if method == "GET" and rest == "/info/refs":
        name, _, value = query.partition("=")
        return value if name == "service" and value in ("git-upload-pack", "git-receive-pack") else None
    return rest[1:] if method == "POST" and rest in ("/git-upload-pack", "/git-receive-pack") else None


def _visible(session: Session, caller: Caller, name: str) -> Site:
    """Raises site.not_found. An operator sees several teams' sites: his own team's comes first."""
    query = select(Site).where(col(Site.deleted_at).is_(None), *caller.sight.sites())
    found = session.exec(query.where(Site.id == name if is_id(name, "site") else Site.slug == name)).all()
    own = [site for site in found if site.team_id == caller.team_id]
    if len(own or found) > 1:
        raise HeadwayError("site.not_found", f"Several teams have a site {name}: use its id.")
    if not found:
        raise HeadwayError("site.not_found", f"There is no site {name}, or this key may not see it.")
    return (own or list(found))[0]


async def _after(head: bytes, rest: AsyncIterator[bytes], body: Body, git: GitParts) -> AsyncIterator[bytes]:
    yield head
    try:
        async for piece in rest:
            yield piece
    except HeadwayError:
        # Git has said so by itself, at its own limit: the rest is read, so that this is heard.
        await body.drain(4 * git.backend.limits.size)


async def _say_refused(head: PushHead, error: HeadwayError, send: Send) -> None:
    said = refusal(head, error.message)
    if not said:
        await _refuse(error, send)
        return
    kind = (b"content-type", b"application/x-git-receive-pack-result")
    await send({"type": "http.response.start", "status": 200, "headers": [kind, (b"cache-control", b"no-cache")]})
    await send({"type": "http.response.body", "body": said})


async def _refuse(error: HeadwayError, send: Send, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Plain text: git shows it to the pusher where it asks for refs."""
    body = f"{error.message} [{error.code}]\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *more,
    ]
    if error.status == 503:
        headers.append((b"retry-after", b"5"))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="headway", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
