"""What a signature says: an in-toto Statement v1 with SLSA provenance v1, as canonical bytes.

Sources: in-toto attestation spec v1 (Statement, ResourceDescriptor), SLSA v1.0 (provenance). The subject is the
artifact's canonical manifest, so that `sha256sum manifest.json` and the digest in the statement are the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import rfc8785

from headway.errors import HeadwayError

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:headway:build:v1"
BILL_NAME: Final = "sbom.cdx.json"
BILL_TYPE: Final = "application/vnd.cyclonedx+json"
BUILDER_ID: Final = "urn:headway:builder:v1"


@dataclass(frozen=True)
class Dependency:
    """Something that the build took in: `digests` maps an algorithm (`sha256`, `gitCommit`) to lower-case hex."""

    uri: str
    digests: Mapping[str, str]


@dataclass(frozen=True)
class BuildFacts:
    """Everything that the statement says. `digest` is hex; times are aware or UTC."""

    site_id: str
    env_id: str
    build_id: str
    digest: str
    repository: str
    ref: str
    commit_sha: str
    source_sha256: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    subject_name: str = "manifest.json"
    builder_id: str = BUILDER_ID
    build_type: str = BUILD_TYPE
    dependencies: tuple[Dependency, ...] = ()
    # The sha256 of the build's bill of materials.
    bill: str | None = None


def statement(facts: BuildFacts) -> bytes:
    """The statement in RFC 8785 form. Raises sign.failed where a fact has no canonical form."""
    repository = public_uri(facts.repository)
    tree = Dependency(f"{repository}#tree", {"sha256": facts.source_sha256})
    commit = Dependency(f"git+{repository}@{facts.commit_sha}", {"gitCommit": facts.commit_sha})
    # A frozen sandbox has no commit: its tree is all there is.
    taken_in = (*(() if repository.startswith("snapshot:") else (commit,)), tree, *facts.dependencies)
    metadata = {"invocationId": facts.build_id}
    for name, moment in (("startedOn", facts.started_at), ("finishedOn", facts.finished_at)):
        if moment is not None:
            metadata[name] = timestamp(moment)
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": facts.subject_name, "digest": {"sha256": facts.digest}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": facts.build_type,
                "externalParameters": {
                    "site": facts.site_id,
                    "environment": facts.env_id,
                    "source": {"uri": repository, "ref": facts.ref},
                    "parameters": dict(facts.parameters),
                },
                "internalParameters": {"plan": dict(facts.plan)},
                "resolvedDependencies": [{"uri": one.uri, "digest": dict(one.digests)} for one in taken_in],
            },
            "runDetails": {"builder": {"id": facts.builder_id}, "metadata": metadata, **_byproducts(facts)},
        },
    }
    try:
        return rfc8785.dumps(document)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise HeadwayError("sign.failed", "The build's plan has no canonical form.") from error


def _byproducts(facts: BuildFacts) -> dict[str, Any]:
    if facts.bill is None:
        return {}
    bill = {"name": BILL_NAME, "digest": {"sha256": facts.bill}, "mediaType": BILL_TYPE}
    return {"byproducts": [bill]}


def public_uri(repository: str) -> str:
    """The address without what may be a credential: user, password, query and fragment are left out.

    Raises sign.failed where it is no address.
    """
    try:
        parts = urlsplit(repository)
    except ValueError as error:
        raise HeadwayError("sign.failed", "The site's repository has no readable address.") from error
    if not parts.netloc:
        return urlunsplit(parts._replace(query="", fragment=""))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
