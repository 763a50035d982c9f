"""What a build was made of: the lock files as the source had them, and what the install has left."""

from __future__ import annotations

from adapters.artifact.folder import Folder
from adapters.plan.plan import Plan
from adapters.sbom.component import Component
from adapters.sbom.document import MAX_BYTES, Subject, make_sbom
from adapters.sbom.locks import from_installed, from_locks
from adapters.source.git import Checkout
from headway.errors import HeadwayError


def locked(workspace: Folder, plan: Plan) -> list[Component]:
    """Asked before anything runs: a build may write what it likes into its lock files."""
    return _in_root(workspace, plan, installed=False)


def bill(
    workspace: Folder, plan: Plan, checkout: Checkout, site_id: str, digest: str, before: list[Component]
) -> bytes:
    """The document. Raises build.output_invalid where it would be larger than any real one is."""
    subject = Subject(site_id, digest, checkout.commit_sha, checkout.commit_time, tuple(plan.toolchain.items()))
    raw = make_sbom(subject, [*before, *_in_root(workspace, plan, installed=True)])
    if len(raw) > MAX_BYTES:
        raise HeadwayError("build.output_invalid", f"The bill of materials is larger than {MAX_BYTES} bytes.")
    return raw


def _in_root(workspace: Folder, plan: Plan, *, installed: bool) -> list[Component]:
    try:
        root = workspace.folder(plan.root)
    except HeadwayError:
        return []
    if root is None:
        return []
    with root:
        return from_installed(root) if installed else from_locks(root)
