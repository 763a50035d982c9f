"""The scrub's run: it looks, asks host after host, and believes what it reads again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlmodel import select

from adapters.artifact.manifest import File, make_manifest
from store.artifacts import object_key, pack_key
from store.models import ArtifactPack, Content, Environment, Pack, utcnow
from store.models_integrity import Finding
from temporal import names
from temporal.messages import Mend
from temporal.schedules import ensure_scrub
from temporal.worker import host_roles, working
from tests.adapters.weed import ACCESS, SECRET, open_store, running_weed
from tests.workflows.doubles import Host
from tests.workflows.engine import Engine, run_story

PAGE = b"<h1>whole</h1>"
SHA = hashlib.sha256(PAGE).hexdigest()


@pytest.mark.slow
def test_a_pack_is_mended_by_who_has_it_and_whats_lost_is_said(tmp_path: Path) -> None:
    (tmp_path / "weed").mkdir()
    with running_weed(tmp_path / "weed") as address:
        objects = open_store(address)

        async def story(made: Engine) -> None:
            key = lay_out(made, objects)
            asked: list[str] = []
            second = Host(host_id="second")
            made.host.mends = lambda mend: asked.append(f"local {mend.object}") or "it is not whole here"

            def mend(given: Mend) -> str:
                asked.append(f"second {given.object}")
                objects.replace(key, PAGE, SHA)
                return ""

            second.mends = mend
            async with working(made.client, host_roles("second", [second.mend])):
                done = await made.run(made.world.accept_scrub(whole=True))
            assert done.status == "succeeded"
            assert done.result is not None
            assert {name: done.result[name] for name in ("damaged", "mended", "lost")} == {
                "damaged": 2,
                "mended": 1,
                "lost": 1,
            }
            assert asked == ["local pack", "second pack"]
            with made.store.read() as session:
                found = {row.object: row for row in session.exec(select(Finding)).all()}
            assert (found["pack"].mended_by, found["pack"].tried[0]["by"]) == ("second", "local")
            assert (found["bundle"].mended_at, found["bundle"].tried[0]["by"]) == (None, "rows")

        s3 = {"s3_endpoint": address, "s3_access_key": ACCESS, "s3_secret_key": SECRET}
        run_story(tmp_path, story, **s3)


@pytest.mark.slow
def test_the_schedule_is_made_and_taken_away(tmp_path: Path) -> None:
    from datetime import timedelta

    async def story(made: Engine) -> None:
        await ensure_scrub(made.client, timedelta(hours=3))
        found = (await made.client.get_schedule_handle(names.SCRUB_SCHEDULE).describe()).schedule
        assert [one.every for one in found.spec.intervals] == [timedelta(hours=3)]
        for _ in range(2):
            await ensure_scrub(made.client, timedelta(0))
        assert [one.id async for one in await made.client.list_schedules() if one.id == names.SCRUB_SCHEDULE] == []

    run_story(tmp_path, story, object_scrub_hours=0)


def lay_out(made: Engine, objects) -> str:
    """An artifact with a damaged pack, and no bundle; two hosts serve it."""
    manifest = make_manifest([File("index.html", "644", len(PAGE), SHA)])
    site_id = made.world.site_id
    made.world.artifact(manifest.digest)
    layout = b'{"contents":{"%s":[0,0,%d]},"packs":["%s"],"version":1}' % (SHA.encode(), len(PAGE), SHA.encode())
    key = pack_key(site_id, SHA)
    for name, body in (
        (object_key(site_id, manifest.digest, "manifest"), manifest.raw),
        (object_key(site_id, manifest.digest, "layout"), layout),
        (key, b"<h1>hole</h1>!"),
    ):
        objects.put_new(name, body, hashlib.sha256(body).hexdigest())
    with made.store.write() as session:
        session.add(Pack(site_id=site_id, sha256=SHA, size=len(PAGE), created_at=utcnow()))
        session.add(ArtifactPack(site_id=site_id, digest=manifest.digest, pack_sha256=SHA))
        session.add(Content(site_id=site_id, sha256=SHA, pack_sha256=SHA, offset=0, size=len(PAGE)))
        session.get_one(Environment, made.world.env_id).hosts = ["local", "second"]
    return key
