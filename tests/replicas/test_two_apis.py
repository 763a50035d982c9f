"""Two API replicas on one PostgreSQL and one folder of event logs: the same answers from either, whatever dies."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.test_process import batch
from tests.replicas.conftest import Postgres
from tests.replicas.processes import Installation, Part, until

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]
Json = dict[str, Any]
Pair = tuple[Installation, Part, Part]
WRITERS = 16


def new_site(client: httpx.Client, name: str, key: str) -> httpx.Response:
    return client.post("/v1/sites", json={"name": name}, headers={"Idempotency-Key": key})


def stubbornly(clients: list[httpx.Client], name: str, key: str, first: int = 0) -> Json:
    """What a good client does: the same request with the same key, to whichever replica answers."""
    deadline = time.monotonic() + 90
    at = first
    while True:
        try:
            answer = new_site(clients[at % len(clients)], name, key)
            if answer.status_code < 500:
                assert answer.status_code == 202, answer.text
                job: Json = answer.json()["data"]
                return job
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{name} was never accepted"
        at += 1
        time.sleep(0.05)


def assert_once(client: httpx.Client, accepted: dict[str, Json]) -> None:
    """Each name is one site with one job: what a caller was told, and no other."""
    found: list[Json] = []
    cursor = ""
    while True:
        page = client.get(f"/v1/sites?limit=100{cursor}").json()
        found += [row for row in page["data"] if row["name"] in accepted]
        if not page["pagination"]["next_cursor"]:
            break
        cursor = f"&cursor={page['pagination']['next_cursor']}"
    assert sorted(row["name"] for row in found) == sorted(accepted)
    assert {row["id"] for row in found} == {job["resource"]["id"] for job in accepted.values()}


@pytest.fixture
def clients(pair: Pair) -> Iterator[list[httpx.Client]]:
    """One for each replica."""
    made, one, two = pair
    with made.client(one) as first, made.client(two) as second:
        yield [first, second]


def test_replays_that_hit_different_replicas_are_one_job(clients: list[httpx.Client]) -> None:
    key, gate = uuid.uuid4().hex, threading.Barrier(WRITERS)

    def ask(number: int) -> httpx.Response:
        gate.wait()
        return new_site(clients[number % 2], "Replayed", key)

    with ThreadPoolExecutor(WRITERS) as pool:
        answers = list(pool.map(ask, range(WRITERS)))
    jobs = {answer.json()["data"]["id"] for answer in answers if answer.status_code == 202}
    assert len(jobs) == 1, [answer.text for answer in answers]
    # Who met the first request in its middle was told to come again, and is told the same then.
    assert {answer.status_code for answer in answers} <= {202, 409}
    for client in clients:
        again = new_site(client, "Replayed", key)
        assert {again.json()["data"]["id"]} == jobs
        assert again.headers["Idempotent-Replayed"] == "true"
        other = new_site(client, "Another body", key)
        assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency.key_reused")


def test_sixteen_writers_on_both(clients: list[httpx.Client]) -> None:
    def write(number: int) -> list[int]:
        return [new_site(clients[(number + n) % 2], f"W {number} {n}", f"w-{number}-{n}").status_code for n in range(6)]

    with ThreadPoolExecutor(WRITERS) as pool:
        statuses = [status for some in pool.map(write, range(WRITERS)) for status in some]
    assert statuses == [202] * (WRITERS * 6)


def test_a_stream_is_the_same_from_either(pair: Pair, clients: list[httpx.Client]) -> None:
    """Two senders, each through another replica, and a reader at each: one numbering, every line, at once."""
    made, _, _ = pair
    job = new_site(clients[0], "Streamed", uuid.uuid4().hex).json()["data"]
    sockets = sorted((made.folder / "run" / "b").glob("*.sock"))
    assert len(sockets) == 2
    seen: list[list[tuple[int, str]]] = [[], []]

    def read(at: int) -> None:
        number = 0
        with clients[at].stream("GET", f"/v1/jobs/{job['id']}/stream") as stream:
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    number = int(line[4:])
                if line.startswith("data: ") and '"line"' in line:
                    seen[at].append((number, json.loads(line[6:])["line"]))
                if len(seen[at]) == 80:
                    return

    readers = [threading.Thread(target=read, args=(at,)) for at in range(2)]
    for reader in readers:
        reader.start()
    token = (made.folder / "secrets" / "broker-control.token").read_text().strip()

    def send(at: int) -> None:
        transport = httpx.HTTPTransport(uds=str(sockets[at]))
        with httpx.Client(transport=transport, base_url="http://b", headers={"Authorization": f"Bearer {token}"}) as to:
            for number in range(1, 41):
                for _ in range(2):  # what is sent twice is there once
                    sent = {**batch(number), "source": f"control/{at}"}
                    assert to.post(f"/jobs/{job['id']}/events", json=sent).status_code == 200

    senders = [threading.Thread(target=send, args=(at,)) for at in range(2)]
    for thread in (*senders, *readers):
        if thread in senders:
            thread.start()
    for thread in (*senders, *readers):
        thread.join(60)
        assert not thread.is_alive()
    assert seen[0] == seen[1]
    numbers = [number for number, _ in seen[0]]
    assert numbers == sorted(set(numbers))
    assert sorted(line for _, line in seen[0]) == sorted(f"line {n}" for n in range(1, 41) for _ in range(2))


def under_load(clients: list[httpx.Client], label: str, happen: Callable[[], None]) -> None:
    """Eight writers that never give up, and something that happens in their middle: each name is one site."""
    accepted: dict[str, Json] = {}
    enough = threading.Event()

    def write(number: int) -> None:
        for n in range(400):
            name = f"{label} {number} {n}"
            accepted[name] = stubbornly(clients, name, name.replace(" ", "-"), first=number)
            if enough.is_set():
                return

    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, number) for number in range(8)]
        try:
            until(lambda: len(accepted) >= 16, "nothing was accepted")
            happen()
            before = len(accepted)
            until(lambda: len(accepted) >= before + 16, "nothing was accepted afterwards")
        finally:
            enough.set()
        for one_writer in writing:
            one_writer.result(120)
    assert_once(clients[1], accepted)
    for name in list(accepted)[:: max(1, len(accepted) // 10)]:
        again = stubbornly(clients, name, name.replace(" ", "-"))
        assert again["id"] == accepted[name]["id"]


def test_a_replica_killed_in_the_middle_of_requests(pair: Pair, clients: list[httpx.Client]) -> None:
    made, one, _ = pair

    def happen() -> None:
        one.kill()
        fresh = made.start("one", "api", port=one.port)
        made.wait(fresh)
        one.process = fresh.process

    under_load(clients, "Killed", happen)


def test_postgresql_restarted_under_load(clients: list[httpx.Client], postgres: Postgres) -> None:
    under_load(clients, "Restarted", postgres.restart)
