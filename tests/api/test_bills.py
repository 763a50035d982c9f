"""Bills of materials over HTTP and by the broker."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from adapters.sbom.component import Component
from adapters.sbom.document import Subject, make_sbom
from store.bills import bill_key, record_bill
from store.models import Artifact, Build
from tests.api.test_broker import Roles, Upload, a_build, failure
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


@pytest.fixture
async def roles(api: World) -> Roles:
    return Roles(api)


def bill(digest: str, *names: str) -> bytes:
    found = [Component("npm", *name.split("@")) for name in names]
    return make_sbom(Subject("site_X", digest, "c" * 40, 0), found)


async def artifact(api: World, site: dict[str, Any], digest: str, *names: str) -> str:
    made = api.artifact(site["id"], site["production_env_id"], digest)
    if names:
        raw = bill(digest, *names)
        sha256 = hashlib.sha256(raw).hexdigest()
        api.objects.held[bill_key(site["id"], digest, sha256)] = raw
        with api.store.write() as session:
            build = session.get_one(Build, session.get_one(Artifact, made).build_id)
            record_bill(session, build, digest, sha256, len(names))
    return made


async def test_an_artifacts_bill_and_what_two_have_not_in_common(api: World) -> None:
    site = await api.site(api.admin)
    of = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/artifacts"
    old = await artifact(api, site, "a" * 64, "left@1", "same@1")
    new = await artifact(api, site, "b" * 64, "same@1", "right@2")
    bare = await artifact(api, site, "d" * 64)
    answer = await api.admin.get(f"{of}/{old}/sbom")
    assert answer.headers["content-type"].startswith("application/vnd.cyclonedx+json")
    assert [one["name"] for one in answer.json()["components"]] == ["left", "same"]
    assert data(await api.admin.get(f"{of}/{old}"))["links"]["sbom"] == f"{of}/{old}/sbom"
    changes = data(await api.admin.get(f"{of}/{new}/sbom/changes?against={old}"))["changes"]
    assert changes == [
        {"package": "pkg:npm/left", "before": "1", "after": None},
        {"package": "pkg:npm/right", "before": None, "after": "2"},
    ]
    assert error(await api.admin.get(f"{of}/{bare}/sbom"), 404)["code"] == "artifact.sbom_missing"
    assert error(await api.admin.get(f"{of}/{new}/sbom/changes?against=art_none"), 404)["code"] == "artifact.not_found"
    _, stranger = await api.tenant("Mallory")
    assert error(await stranger.get(f"{of}/{old}/sbom"), 404)["code"] == "site.not_found"


async def test_a_builder_hands_in_a_bill_that_is_looked_at(api: World, roles: Roles) -> None:
    site, build, _ = await a_build(api)
    upload = Upload(api, roles, site["id"], build)
    await upload.begin()
    tree = {"index.html": b"hello"}
    _, digest = await upload.output(tree)
    raw = bill(digest, "a@1")
    sha256 = hashlib.sha256(raw).hexdigest()
    unsent, _ = await upload.output(tree, sbom=sha256)
    assert failure(unsent, 500) == "upload.failed"
    wanted = {"attempt": upload.attempt, "kind": "sbom", "sha256": sha256, "size": len(raw)}
    path = f"/builds/{build}/uploads"
    assert failure(await roles.ask("builder", "POST", path, wanted), 400) == "request.invalid_parameter"
    given = (await roles.ask("builder", "POST", path, {**wanted, "artifact": digest})).json()
    key = given["url"].removeprefix("http://objects.test/").partition("?")[0]
    assert key == bill_key(site["id"], digest, sha256)
    api.objects.held[key] = b"{}"
    bad, _ = await upload.output(tree, sbom=sha256)
    assert failure(bad, 500) == "upload.failed"
    api.objects.held[key] = raw
    good, _ = await upload.output(tree, sbom=sha256)
    assert good.status_code == 200, good.text
