"""A tree that is published as it is, from git's list of it: what is known by its id is neither written nor hashed.

What comes out is what the whole way gives, to the byte; whatever this way cannot tell for certain is NotListed, and
then the whole way is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from activities.producing.output import checked_manifest
from activities.producing.overrides import overridden, said_of
from adapters.artifact.folder import Folder
from adapters.artifact.manifest import Entry, File, Link, Manifest
from adapters.artifact.tree import LEFT_OUT, Bounds, Content, Tree, stamp
from adapters.blobs import Blob
from adapters.plan.detect import detect
from adapters.plan.inputs import inputs_digest
from adapters.plan.part import Tools
from adapters.plan.plan import Plan
from adapters.source.listing import BLOBS, MORE, TREE, Listed, ListedFolder, NotListed, read_listing, split_blobs
from headway.broker import BuildSpec
from headway.errors import HeadwayError

MAX_LINK: Final = 4096
MAX_LIST: Final = 128 << 20


@dataclass
class ListedTree:
    """A commit's list. `known` are the blobs of which the sha256 is known, those too that lie in `held`, by sha256.

    `held` is a folder of the builder's own: into the workspace git has written, which may have been told lies.
    """

    workspace: Path
    held: Path
    entries: list[Listed]
    known: dict[str, Blob]
    fresh: int

    @classmethod
    def read(cls, workspace: Path, held: Path, known: dict[str, Blob]) -> ListedTree:
        """Raises NotListed."""
        try:
            with Folder(workspace) as folder:
                entries = read_listing(folder.read(TREE, MAX_LIST) or b"")
                with os.fdopen(folder.open(BLOBS), "rb") as file:
                    fresh = split_blobs(file, held)
        except HeadwayError as error:
            raise NotListed(error.message) from error
        return cls(workspace, held, entries, {**known, **fresh}, len(fresh))

    def plan(self, spec: BuildSpec, tools: Tools | None) -> Plan:
        """Raises NotListed for anything but files that are published as they are."""
        try:
            plan = overridden(detect(self._folder, spec.profile, tools, said_of(spec.overrides)), spec.overrides)
        except HeadwayError as error:
            raise NotListed(error.message) from error
        if plan.steps or plan.run is not None or plan.secrets or plan.watch:
            raise NotListed("it is built, or run")
        return plan

    def inputs(self, plan: Plan, source_sha256: str) -> str | None:
        return inputs_digest(self._folder, plan, source_sha256)

    def output(self, plan: Plan, bounds: Bounds, entrypoint: str | None) -> tuple[Tree, Manifest]:
        """What a scan of the output would find. Raises NotListed, also for what that would refuse."""
        try:
            root = self._folder.folder(plan.root)
            for one in plan.outputs if root is not None else ():
                if root is not None and root.folder(one) is not None:
                    prefix = "".join(f"{part}/" for part in (plan.root, one) if part)
                    tree = self._tree(prefix, bounds)
                    return tree, checked_manifest(tree, plan, entrypoint)
        except HeadwayError as error:
            raise NotListed(error.message) from error
        raise NotListed("it has no output")

    def _tree(self, prefix: str, bounds: Bounds) -> Tree:
        tree = Tree()
        for one in self.entries:
            path = one.path.removeprefix(prefix)
            if not one.path.startswith(prefix) or path in LEFT_OUT or ".git" in path.split("/"):
                continue
            entry = self._entry(one, path)
            tree.files += 1
            tree.entries.append(entry)
            if isinstance(entry, File):
                tree.size_bytes += entry.size
                tree.contents.setdefault(entry.sha256, self._content(entry))
                if entry.size > bounds.file_bytes or path.count("/") > bounds.depth:
                    raise NotListed("it is past a limit")
        if tree.files > bounds.files or tree.size_bytes > bounds.total_bytes:
            raise NotListed("it is past a limit")
        return tree

    def _entry(self, one: Listed, path: str) -> Entry:
        blob = self.known.get(one.blob)
        if blob is None:
            raise NotListed("a content is not known")
        if one.mode != "link":
            return File(path, one.mode, blob.size, blob.sha256)
        held = self.held / blob.sha256
        if not held.is_file() or blob.size > MAX_LINK:
            raise NotListed("it has a link")
        try:
            return Link(path, held.read_bytes().decode())
        except UnicodeDecodeError as error:
            raise NotListed("it has an odd link") from error

    def _content(self, entry: File) -> Content:
        """By its sha256 in the folder of those that lie there; one that does not is never packed."""
        try:
            mark = stamp((self.held / entry.sha256).stat())
        except FileNotFoundError:
            mark = (0, 0, 0, 0)
        return Content(entry.sha256, entry.size, entry.sha256, mark, None)

    def complete(self, tree: Tree, missing: Collection[str], bring: Callable[[list[str]], None]) -> Folder:
        """The folder to pack from; `bring(ids)` gets contents that are known and have to be sent all the same."""
        absent = {sha256 for sha256 in missing if not (self.held / sha256).is_file()}
        if absent:
            here = {one.blob: self.known[one.blob] for one in self.entries if one.blob in self.known}
            bring(sorted(name for name, blob in here.items() if blob.sha256 in absent))
            with Folder(self.workspace) as folder, os.fdopen(folder.open(MORE), "rb") as file:
                split_blobs(file, self.held)
            for sha256 in absent:
                size = tree.contents[sha256].size
                tree.contents[sha256] = self._content(File("", "644", size, sha256))
        return Folder(self.held)

    def table(self) -> dict[str, Blob]:
        """What is worth remembering: what this commit has, then the rest. A link is read each time for its target."""
        links = {one.blob for one in self.entries if one.mode == "link"}
        here = {one.blob: self.known[one.blob] for one in self.entries if one.blob in self.known}
        return {name: blob for name, blob in {**here, **self.known}.items() if name not in links}

    @cached_property
    def _folder(self) -> ListedFolder:
        return ListedFolder(self.entries, self.held, self.known)
