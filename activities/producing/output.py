"""From the workspace after the build to a manifest: which folder is published, and whether it says what it needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from urllib.parse import quote

from adapters.artifact.folder import Folder
from adapters.artifact.manifest import Manifest, make_manifest
from adapters.artifact.rules import Redirect
from adapters.artifact.tree import LEFT_OUT, Bounds, Tree, scan
from adapters.plan.plan import Plan
from adapters.source.runner import Canceled
from headway.errors import HeadwayError


def present_outputs(workspace: Folder, plan: Plan) -> frozenset[str]:
    """Which of the plan's possible outputs are there: asked before the build."""
    with _root(workspace, plan) as root:
        return frozenset(one for one in plan.outputs if not one or root.has(one.partition("/")[0]))


def open_output(workspace: Folder, plan: Plan, before: Collection[str]) -> Folder:
    """The folder to publish: of several possible ones the first that the build has made, else the first there is.

    (A source tree may hold a `public` of its own beside the `out` that its build writes.)
    Raises build.output_missing, build.output_invalid.
    """
    ordered = sorted(plan.outputs, key=lambda one: one in before) if plan.steps else list(plan.outputs)
    with _root(workspace, plan) as root:
        for one in ordered:
            folder = root.folder(one)
            if folder is not None:
                return folder
    looked = ", ".join(one or "the tree itself" for one in plan.outputs)
    raise HeadwayError("build.output_missing", f"The build wrote no output. Looked for: {looked}.")


def read_output(
    folder: Folder, plan: Plan, bounds: Bounds, canceled: Canceled, entrypoint: str | None = None
) -> tuple[Tree, Manifest]:
    """Scan what is published. `entrypoint`: the page that / leads to, where it is not index.html.

    Raises build.output_missing, build.output_invalid, job.canceled.
    """
    left_out = frozenset(plan.left_out) if plan.run is not None else LEFT_OUT
    as_it_is = not plan.steps and plan.run is None
    tree = scan(folder, bounds, left_out=left_out, canceled=canceled, git_ids=as_it_is, together=True)
    return tree, checked_manifest(tree, plan, entrypoint)


def checked_manifest(tree: Tree, plan: Plan, entrypoint: str | None) -> Manifest:
    """What was found as a manifest, if it has what it is said to have."""
    if not tree.entries:
        raise HeadwayError("build.output_missing", "The output holds no file.")
    if plan.run is not None:
        return make_manifest(tree.entries, run=plan.run)
    paths = {one.path for one in tree.entries}
    needed = [plan.static.not_found, "index.html" if plan.static.spa else None]
    for page in needed:
        if page is not None and page not in paths:
            raise HeadwayError("build.output_invalid", f"headway.toml wants {page}, which is not in the output.")
    if entrypoint is not None and entrypoint not in paths:
        raise HeadwayError("build.output_invalid", f"The entrypoint {entrypoint} is not in the output.")
    static = plan.static
    if entrypoint is None:
        entrypoint = "index.html" if "index.html" in paths else None
    elif entrypoint != "index.html":
        static = replace(static, redirects=(Redirect("/", f"/{quote(entrypoint)}", 302), *static.redirects))
    return make_manifest(tree.entries, static=static, entrypoint=entrypoint)


def _root(workspace: Folder, plan: Plan) -> Folder:
    root = workspace.folder(plan.root)
    if root is None:
        raise HeadwayError("build.output_missing", "The build removed its own root folder.")
    return root
