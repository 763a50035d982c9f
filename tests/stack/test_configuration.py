"""A secret on the whole stack: it reaches its host sealed, and lies nowhere in the open."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.broker import BrokerClient
from adapters.config.sealed import open_sealed
from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewPlace

CANARY = "canary-8d21b6e07f"


def test_a_secret_reaches_its_host_and_lies_nowhere_in_the_open(
    stack: Stack, caller: Caller, new_place: NewPlace, tmp_path: Path
) -> None:
    place = new_place({"index.html": "<h1>one</h1>"})
    env = place.site.production
    put = caller.http.put(place.path(env, "secrets", "CANARY"), json={"value": CANARY})
    assert put.status_code == 200, put.text
    job = place.push()
    release = place.get(env, "releases", job["result"]["release_id"])
    assert [row["name"] for row in release["config"]["secrets"]] == ["CANARY"]
    assert hosts(caller) == ["local"]
    broker = BrokerClient(stack.data / "run" / "broker.sock", stack.data / "secrets" / "broker-host.token")
    sealed = base64.b64decode(broker.get_config(release["deployment_id"]).sealed)
    broker.close()
    (tmp_path / "config.sealed").write_bytes(sealed)
    assert open_sealed(tmp_path / "config.sealed", stack.data / "host" / "identity.key") == {"CANARY": CANARY}
    forms = [CANARY.encode(), base64.b64encode(CANARY.encode())]
    searched = {where: raw for where, raw in everything(stack.data) if any(form in raw for form in forms)}
    assert sorted(searched) == []
    put = caller.http.put(f"/v1/sites/{place.site.id}/secrets/DEFAULT", json={"value": CANARY})
    assert put.status_code == 200, put.text
    deleted = caller.http.delete(f"/v1/sites/{place.site.id}")
    assert place.ended(deleted.json()["data"])["status"] == "succeeded"
    assert hidden_values(stack.data, place.site.id) == {"CANARY": None, "DEFAULT": None}


def hidden_values(data: Path, site_id: str) -> dict[str, bytes | None]:
    with contextlib.closing(sqlite3.connect(f"file:{data / 'db' / 'headway.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT name, ciphertext FROM config_value WHERE site_id = ?", (site_id,))
        return dict(rows.fetchall())


def hosts(caller: Caller) -> list[str]:
    """The host says who it is at its start, and again where the broker was not there yet."""
    deadline = time.monotonic() + 60
    while not (rows := caller.get("/v1/hosts")) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [row["id"] for row in rows]


def everything(data: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of the data folder, and the command line and environment of every component."""
    files = 0
    for folder, _, names in os.walk(data):
        for name in names:
            path = Path(folder, name)
            # Files come and go on a running stack.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    files += 1
                    yield str(path), path.read_bytes()
    assert files > 50
    for record in (data / "run").glob("*.json"):
        pid = json.loads(record.read_text()).get("pid")
        for part in ("cmdline", "environ") if pid else ():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield f"{record.stem} {part}", Path(f"/proc/{pid}/{part}").read_bytes()
