"""Somebody with the keys of the object store changes artifacts: no host takes them, and what served serves on."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.artifact.layout import parse_layout
from adapters.objects import ObjectStore
from adapters.signer.bundle import attest
from adapters.signer.keys import create_key
from adapters.signer.statement import BuildFacts, statement
from bench.stack import Stack
from headway.supervisor.folder import Folder, read_json, s3_credentials
from tests.stack.conftest import NewPlace
from tests.stack.sites import Place

Json = dict[str, Any]
EDITIONS = itertools.count(1)
LIMIT = 8 << 20


@dataclass(frozen=True)
class Made:
    """A built artifact, and a hand on its objects."""

    objects: ObjectStore
    site_id: str
    id: str
    digest: str
    page: str

    def name(self, document: str) -> str:
        return f"sites/{self.site_id}/artifacts/{self.digest}/{document}.json"

    def read(self, document: str) -> bytes:
        return self.objects.get(self.name(document), LIMIT)

    @property
    def pack(self) -> str:
        """The pack that holds its page."""
        contents = parse_layout(self.read("layout")).contents
        return f"sites/{self.site_id}/packs/{contents[hashlib.sha256(self.page.encode()).hexdigest()].pack}"

    def write(self, key: str, body: bytes) -> None:
        self.objects.delete([key])
        assert self.objects.put_new(key, body, hashlib.sha256(body).hexdigest())

    def flip(self, key: str) -> bytes:
        """Flip one bit in the middle; what it was before."""
        before = self.objects.get(key, LIMIT)
        changed = bytearray(before)
        changed[len(changed) // 2] ^= 1
        self.write(key, bytes(changed))
        return before


@pytest.fixture(scope="module")
def objects(stack: Stack) -> ObjectStore:
    """The bucket, with the keys that only API and signer have."""
    endpoint = read_json(stack.data / "endpoints.json")["s3"]
    return ObjectStore(endpoint, "us-east-1", "headway", *s3_credentials(Folder(stack.data)))


@pytest.fixture(scope="module")
def place(new_place: NewPlace) -> Place:
    made = new_place({"index.html": "<h1>the honest page</h1>\n"})
    made.push(made.site.staging)
    made.push()
    return made


@pytest.fixture
def make(place: Place, objects: ObjectStore) -> Callable[[], Made]:
    def build() -> Made:
        page = f"<h1>edition {next(EDITIONS)} of {place.site.id}</h1>\n"
        place.repository.commit({"index.html": page})
        result = place.build()
        return Made(objects, place.site.id, result["artifact_id"], result["digest"].removeprefix("sha256:"), page)

    return build


def forged(made: Made, folder: Path) -> bytes:
    """A bundle in perfect shape by a key that nobody trusts."""
    facts = {"site_id": made.site_id, "env_id": "env_x", "build_id": "build_x", "digest": made.digest}
    source = {"repository": "https://example.org/x.git", "ref": "main", "commit_sha": "0" * 40}
    return attest(statement(BuildFacts(**facts, **source, source_sha256="0" * 64)), create_key(folder))


def assert_refused(place: Place, job: Json, *codes: str) -> None:
    """The rollout failed for this reason; production and its history are what they were."""
    before = place.page().text
    error = place.failed(job)
    assert error["code"] in codes, error
    deployment = place.get(job["resource"]["env_id"], "deployments", job["resource"]["id"])
    assert (deployment["status"], deployment["release_id"]) == ("failed", None)
    assert deployment["error"]["code"] == error["code"]
    assert place.page().text == before
    assert [row["current"] for row in place.releases(place.site.production)].count(True) == 1


def forget(stack: Stack, made: Made) -> None:
    """Remove what the host has of an artifact."""
    host = stack.data / "host"
    for one in json.loads(made.read("manifest"))["files"]:
        for path in (host / "store" / one["sha256"][:2]).glob(f"{one['sha256']}-*"):
            path.unlink()
    shutil.rmtree(host / "trees" / made.digest, ignore_errors=True)


def test_a_flipped_bit_in_a_pack(place: Place, make: Callable[[], Made]) -> None:
    made = make()
    whole = made.flip(made.pack)
    assert_refused(place, place.start_roll(made.id, place.site.production), "roll.verify_failed")
    made.write(made.pack, whole)
    place.roll(made.id, place.site.production)
    assert place.page().text == made.page


def test_a_flipped_bit_in_the_manifest(place: Place, make: Callable[[], Made]) -> None:
    made = make()
    made.flip(made.name("manifest"))
    codes = ("roll.verify_failed", "artifact.signature_invalid")
    assert_refused(place, place.start_roll(made.id, place.site.production), *codes)


def test_a_manifest_and_a_layout_of_another_artifact(place: Place, make: Callable[[], Made]) -> None:
    one, other = make(), make()
    layout = one.read("layout")
    one.write(one.name("layout"), other.read("layout"))
    assert_refused(place, place.start_roll(one.id, place.site.production), "roll.verify_failed", "roll.place_failed")
    one.write(one.name("layout"), layout)
    one.write(one.name("manifest"), other.read("manifest"))
    codes = ("roll.verify_failed", "artifact.signature_invalid")
    assert_refused(place, place.start_roll(one.id, place.site.production), *codes)


def test_bundles_that_do_not_sign_this_artifact(place: Place, make: Callable[[], Made], tmp_path: Path) -> None:
    made, other = make(), make()
    good = made.read("bundle")
    tampered = json.loads(good)
    tampered["dsseEnvelope"]["payload"] = json.loads(other.read("bundle"))["dsseEnvelope"]["payload"]
    for bundle in (other.read("bundle"), forged(made, tmp_path), json.dumps(tampered).encode()):
        made.write(made.name("bundle"), bundle)
        assert_refused(place, place.start_roll(made.id, place.site.production), "artifact.signature_invalid")
    made.objects.delete([made.name("bundle")])
    assert_refused(place, place.start_roll(made.id, place.site.production), "artifact.signature_invalid")
    made.write(made.name("bundle"), good)
    place.roll(made.id, place.site.production)
    assert place.page().text == made.page


def test_a_true_bundle_of_the_same_files_for_another_site(
    place: Place, make: Callable[[], Made], new_place: NewPlace
) -> None:
    made = make()
    other = new_place({"index.html": made.page})
    twin = other.build()
    assert twin["digest"] == f"sha256:{made.digest}"
    theirs = Made(made.objects, other.site.id, twin["artifact_id"], made.digest, made.page)
    made.write(made.name("bundle"), theirs.read("bundle"))
    assert_refused(place, place.start_roll(made.id, place.site.production), "artifact.signature_invalid")


def test_a_promotion_checks_the_signature_again(place: Place, make: Callable[[], Made], stack: Stack) -> None:
    made = make()
    place.roll(made.id, place.site.staging)
    bundle = made.read("bundle")
    made.objects.delete([made.name("bundle")])
    assert_refused(place, place.start_promotion(), "artifact.signature_invalid")
    assert place.page(env=place.site.staging).text == made.page

    made.write(made.name("bundle"), bundle)
    forget(stack, made)
    whole = made.flip(made.pack)
    assert_refused(place, place.start_promotion(), "roll.verify_failed")
    made.write(made.pack, whole)
    place.caller.finish(place.start_promotion())
    assert place.page().text == place.page(env=place.site.staging).text == made.page


def test_a_rollback_checks_signature_and_contents_again(place: Place, make: Callable[[], Made], stack: Stack) -> None:
    old, new = make(), make()
    place.roll(old.id, place.site.production)
    place.roll(new.id, place.site.production)
    bundle = old.read("bundle")
    old.write(old.name("bundle"), new.read("bundle"))
    assert_refused(place, place.start_rollback(place.site.production), "artifact.signature_invalid")
    assert place.page().text == new.page

    old.write(old.name("bundle"), bundle)
    forget(stack, old)
    whole = old.flip(old.pack)
    assert_refused(place, place.start_rollback(place.site.production), "roll.verify_failed")
    assert place.page().text == new.page
    old.write(old.pack, whole)
    place.caller.finish(place.start_rollback(place.site.production))
    assert place.page().text == old.page


def test_nothing_is_signed_for_a_manifest_that_changed_before_the_signer_came(
    place: Place, make: Callable[[], Made]
) -> None:
    made = make()
    made.flip(made.name("manifest"))
    made.objects.delete([made.name("bundle")])
    assert place.failed(place.start_build())["code"] in ("artifact.signature_invalid", "roll.verify_failed")
    assert made.objects.head(made.name("bundle")) is None
