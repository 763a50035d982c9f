"""Search attributes: how an operator finds a run by site, environment, job type, commit or digest."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey, SearchAttributePair, SearchAttributeUpdate, TypedSearchAttributes

from temporal import names
from temporal.messages import Labels

SITE = SearchAttributeKey.for_keyword(names.SITE_ATTRIBUTE)
ENVIRONMENT = SearchAttributeKey.for_keyword(names.ENVIRONMENT_ATTRIBUTE)
JOB_TYPE = SearchAttributeKey.for_keyword(names.JOB_TYPE_ATTRIBUTE)
COMMIT = SearchAttributeKey.for_keyword(names.COMMIT_ATTRIBUTE)
DIGEST = SearchAttributeKey.for_keyword(names.DIGEST_ATTRIBUTE)
ALL = (SITE, ENVIRONMENT, JOB_TYPE, COMMIT, DIGEST)


def attributes(labels: Labels) -> TypedSearchAttributes:
    """The attributes that are known when a run starts; empty labels are left out."""
    known = (
        (SITE, labels.site),
        (ENVIRONMENT, labels.environment),
        (JOB_TYPE, labels.job_type),
        (COMMIT, labels.commit),
        (DIGEST, labels.digest),
    )
    return TypedSearchAttributes([SearchAttributePair(key, value) for key, value in known if value])


def commit_attribute(commit_sha: str) -> SearchAttributeUpdate[str]:
    return COMMIT.value_set(commit_sha)


def digest_attribute(digest: str) -> SearchAttributeUpdate[str]:
    return DIGEST.value_set(f"sha256:{digest}")
