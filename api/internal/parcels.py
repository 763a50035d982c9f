"""Artifacts as hosts get them: addresses that read just their objects, for an hour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlmodel import Session

from api.ahead import Telling
from api.parts import Objects
from headway.broker import Parcel
from store.artifacts import object_key, pack_key
from store.broker import comes_to, packs_of
from store.ledger import KEYRING, document
from store.models import Job

DOCUMENTS: Final = ("manifest", "layout")


def parcel_of(
    objects: Objects,
    site_id: str,
    digest: str,
    packs: Iterable[str],
    keyring: str | None = None,
    **about: str,
) -> Parcel:
    """`keyring`: what its signature is to be judged by; None while it has none. `about`: the parcel's other fields."""
    documents = DOCUMENTS if keyring is None else (*DOCUMENTS, "bundle")
    return Parcel(
        site_id=site_id,
        digest=digest,
        packs={sha256: objects.presign_get(pack_key(site_id, sha256)) for sha256 in packs},
        keyring=keyring or "",
        **about,
        **{f"{part}_url": objects.presign_get(object_key(site_id, digest, part)) for part in documents},
    )


def keyring_of(session: Session) -> str:
    """The signed keyring; empty while there is none."""
    found = document(session, KEYRING)
    return found.body.decode() if found is not None else ""


def what_comes(objects: Objects, session: Session, job: Job) -> Telling | None:
    """What a rollout that is just being accepted will place, and where."""
    found = comes_to(session, job)
    if found is None:
        return None
    artifact = found.artifact
    packs, keyring = packs_of(session, artifact), keyring_of(session)
    about = {"job_id": job.id, "env_id": found.env_id, "hostname": found.hostname}
    parcel = parcel_of(objects, artifact.site_id, artifact.digest, packs, keyring, **about)
    return Telling(found.hosts, parcel, found.needs_no_start)
