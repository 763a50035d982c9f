"""Fetch a git ref into an empty workspace: mirror, resolve, archive and extract in one run of the sandbox.

A mirror per site (`<folder>/<site_id>.git`) holds every branch and tag, so that any ref that rev-parse knows resolves
and a second fetch only moves what is new. It is a cache: a mirror that is corrupt is thrown away and made again.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from adapters.egress.policy import EgressPolicy
from adapters.sandbox.command import Command, Limits, Mount, Outcome
from adapters.sandbox.removal import REMOVING, remove_tree, removed_name
from adapters.source import script
from adapters.source.access import INSIDE, Access, configuration, lent
from adapters.source.address import MOUNTED, Remote, check_ref
from adapters.source.runner import Canceled, Runner
from adapters.source.snapshot import SOURCE_TIME
from headway.errors import HeadwayError

_BRANCH: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/+-]{0,250})")
_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_IDS: Final = "/ids"
_HOSTS: Final = "known_hosts"
_BUNDLE: Final = "bundle-"
_ABANDONED: Final = 6 * 3600.0
_COMPLAINT_BYTES: Final = 64 << 10
_SHOWN: Final = 300
# 9999-12-31T23:59:59Z
_LAST_SECOND: Final = 253_402_300_799

# Complaints of git (in the C locale) that can only be about the other side: a fresh mirror would not help.
_REMOTE: Final = (
    *("could not resolve", "unable to access", "connection refused", "connection timed out", "could not read username"),
    *("authentication failed", "permission denied (", "host key verification failed", "repository not found"),
    *("unable to update url base from redirection", "ssh: connect to host"),
)
# Those about who asks.
_DENIED: Final = (
    *("authentication failed", "could not read username", "could not read password", "permission denied ("),
    *("returned error: 401", "returned error: 403", "too many authentication failures"),
)
# Complaints of index-pack's fsck: the objects themselves are refused.
_FSCK: Final = re.compile(r"fsck error|error: object [0-9a-f]+: (\w+): (.*)", re.IGNORECASE)


@dataclass(frozen=True)
class FetchSpec:
    """What to fetch for a site. An empty `ref` is the tip of `default_branch`; the commit `unless` is not unpacked."""

    site_id: str
    remote: Remote
    ref: str
    default_branch: str = "main"
    access: Access | None = None
    unless: str = ""


@dataclass(frozen=True)
class Checkout:
    """A commit's files now lie in the workspace. `commit_time` is in seconds since 1970, `notes` are for the log.

    `source_sha256` is of the bytes of `git archive --format=tar COMMIT`, `listing_sha256` of those of
    `git ls-tree -r -z --full-tree COMMIT`. Where `listed`, the workspace holds that list and some contents (see
    `adapters.source.listing`) in the place of the files, and there is no `source_sha256`. Where it is the `same` as was
    named, the workspace is empty, and only the commit and its time are told.
    """

    commit_sha: str
    source_sha256: str
    commit_time: int
    files: int
    size_bytes: int
    notes: tuple[str, ...] = ()
    listing_sha256: str = ""
    listed: bool = False
    same: bool = False


_BROUGHT: Final = Checkout("", "", 0, 0, 0)


@dataclass(frozen=True)
class FetchBounds:
    files: int = 200_000
    size_bytes: int = 4 << 30
    list_bytes: int = 64 << 20
    limits: Limits = field(
        default_factory=lambda: Limits(wall=600, memory=2 << 30, pids=128, disk=12 << 30, log=16 << 20)
    )
    look: Limits = field(default_factory=lambda: Limits(wall=60, memory=512 << 20, pids=64, disk=64 << 20, log=4 << 20))


@dataclass(frozen=True)
class _Said:
    outcome: Outcome
    stdout: bytes
    complaint: str


class GitSource:
    """Fetches inside `runner`. `egress(remote)` is the policy that lets through the remote's host and nothing else."""

    def __init__(
        self,
        runner: Runner,
        mirrors: Path,
        egress: Callable[[Remote], EgressPolicy],
        bounds: FetchBounds | None = None,
    ) -> None:
        self._runner = runner
        self._mirrors = mirrors
        self._egress = egress
        self._bounds = bounds or FetchBounds()

    def fetch(
        self,
        spec: FetchSpec,
        workspace: Path,
        canceled: Canceled = lambda: False,
        known: Collection[str] = (),
    ) -> Checkout:
        """Fill the empty workspace: with git's list in the place of files, where most of its blobs are `known` by id.

        Raises ref.invalid, ref.not_found, repository.unreachable, .empty, .not_allowed, source.invalid,
        source.too_large, job.canceled.
        """
        if spec.ref:
            check_ref(spec.ref)
        if not _BRANCH.fullmatch(spec.default_branch) or ".." in spec.default_branch:
            raise HeadwayError("ref.invalid", "The default branch is not a branch name.", param="ref")
        folder = spec.remote.folder
        if folder is not None and not folder.exists():
            raise _no_folder(spec.remote)
        mirror = self._mirrors / f"{spec.site_id}.git"
        self._mirrors.mkdir(parents=True, exist_ok=True, mode=0o711)
        with _locked(self._mirrors / f"{spec.site_id}.lock", canceled):
            if not known:
                return self._with_mirror(spec, mirror, workspace, canceled)
            with self._listed(spec, known, "KNOWN") as given:
                return self._with_mirror(spec, mirror, workspace, canceled, given)

    def bring(self, spec: FetchSpec, workspace: Path, blobs: Collection[str], canceled: Canceled) -> None:
        """More contents of a commit that was fetched as a list, into the same workspace. Raises as `fetch`."""
        mirror = self._mirrors / f"{spec.site_id}.git"
        with _locked(self._mirrors / f"{spec.site_id}.lock", canceled), self._listed(spec, blobs, "WANTED") as given:
            try:
                self._run(spec, mirror, workspace, canceled, given)
            except _MirrorFault as fault:
                raise fault.error from None

    @contextmanager
    def _listed(self, spec: FetchSpec, blobs: Collection[str], name: str) -> Iterator[Ids]:
        """The site's lock is held: what lies there still is a dead builder's."""
        for left in self._mirrors.glob(f"{spec.site_id}-*.ids"):
            left.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._mirrors, prefix=f"{spec.site_id}-", suffix=".ids") as file:
            file.writelines(f"{one}\n" for one in blobs)
            file.flush()
            os.chmod(file.name, 0o644)
            yield Ids(f"HW_{name}", Path(file.name))

    def _with_mirror(
        self, spec: FetchSpec, mirror: Path, workspace: Path, canceled: Canceled, given: Ids | None = None
    ) -> Checkout:
        known = (mirror / "HEAD").exists()
        if not known:
            fresh = _fresh_beside(mirror)
            remove_tree(mirror)
            fresh.rename(mirror)
        try:
            return self._run(spec, mirror, workspace, canceled, given)
        except _MirrorFault as fault:
            if not known:
                raise fault.error from None
        # Beside the old one: where the fault was the remote's after all, nothing is lost.
        fresh = _fresh_beside(mirror)
        try:
            empty(workspace)
            checkout = self._run(spec, fresh, workspace, canceled, given)
        except _MirrorFault as fault:
            remove_tree(fresh)
            raise fault.error from None
        except HeadwayError:
            remove_tree(fresh)
            raise
        remove_tree(mirror)
        fresh.rename(mirror)
        return checkout

    @contextmanager
    def bundle(self) -> Iterator[IO[bytes]]:
        """A file for a repository that comes as one; it is gone afterwards. A sandbox reads it where it is shown it."""
        self._mirrors.mkdir(parents=True, exist_ok=True, mode=0o711)
        with tempfile.NamedTemporaryFile(dir=self._mirrors, prefix=_BUNDLE) as file:
            os.fchmod(file.fileno(), 0o644)
            yield file

    def tidy(self) -> None:
        """Remove what a builder that was killed had been lent to fetch with, and mirrors that it was making anew or
        removing. What is in use stays."""
        for old in self._mirrors.glob(f"{_BUNDLE}*"):
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > _ABANDONED:
                    old.unlink(missing_ok=True)
        lefts = (left for pattern in ("*.access", "*.fresh", f"{REMOVING}*") for left in self._mirrors.glob(pattern))
        for left in lefts:
            lock = left.with_name(removed_name(left.name)).with_suffix(".lock")
            with suppress(HeadwayError), _locked(lock, lambda: True):
                remove_tree(left)

    def look(self, spec: FetchSpec, canceled: Canceled = lambda: False) -> dict[str, str]:
        """The commit of each branch of the remote, by its name; names that are not text are left out.

        Raises as `fetch`; job.canceled too where the site's mirror was in use until `canceled` came true.
        """
        mirror = self._mirrors / f"{spec.site_id}.git"
        if spec.remote.folder is not None and not spec.remote.folder.exists():
            raise _no_folder(spec.remote)
        self._mirrors.mkdir(parents=True, exist_ok=True, mode=0o711)
        with _locked(self._mirrors / f"{spec.site_id}.lock", canceled), self._runner.workspace() as workspace:
            mirror.mkdir(exist_ok=True)
            said = self._say(script.LOOK, spec, mirror, workspace, canceled, self._bounds.look)
        if said.outcome.exit_code != 0:
            failure = self._failure(spec, said.outcome, said.complaint, {})
            raise failure.error if isinstance(failure, _MirrorFault) else failure
        return _branches(said.stdout)

    def _say(
        self,
        program: str,
        spec: FetchSpec,
        mirror: Path,
        workspace: Path,
        canceled: Canceled,
        limits: Limits,
        given: Ids | None = None,
    ) -> _Said:
        remote = spec.remote
        mounts = [Mount(mirror, "/mirror", writable=True)]
        if given is not None:
            mounts.append(Mount(given.file, _IDS))
        if remote.folder is not None:
            mounts.append(Mount(remote.folder, MOUNTED))
        ids = {given.variable: _IDS} if given is not None else {}
        heard: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray(), "system": bytearray()}

        def listen(stream: str, chunk: bytes) -> None:
            kept = heard[stream]
            most = _COMPLAINT_BYTES if program is script.SCRIPT or stream != "stdout" else limits.log
            kept += chunk[: max(0, most - len(kept))]

        with lent(self._mirrors / f"{spec.site_id}.access", remote, spec.access) as access:
            command = Command(
                argv=["sh", "-c", program, "fetch"],
                workspace=workspace,
                env={**self._environment(spec, INSIDE if access else ""), **ids},
                mounts=(*mounts, *access),
                limits=limits,
                egress=self._egress(remote) if remote.host is not None else None,
            )
            outcome = self._runner.run(command, listen, canceled)
        complaint = heard["stderr"].decode("utf-8", "replace")
        if spec.access is not None:
            complaint = spec.access.hide(complaint)
        if outcome.canceled or canceled():
            raise HeadwayError("job.canceled", "The job was canceled while its source was fetched.")
        if outcome.limit is not None:
            raise HeadwayError("source.too_large", f"Fetching hit the limit {outcome.limit!r}.", limit=outcome.limit)
        return _Said(outcome, bytes(heard["stdout"]), complaint)

    def _run(
        self, spec: FetchSpec, mirror: Path, workspace: Path, canceled: Canceled, given: Ids | None = None
    ) -> Checkout:
        said = self._say(script.SCRIPT, spec, mirror, workspace, canceled, self._bounds.limits, given)
        outcome, complaint = said.outcome, said.complaint
        facts = _facts(said.stdout.decode("utf-8", "replace"))
        if outcome.exit_code != 0:
            raise self._failure(spec, outcome, complaint, facts)
        return _checkout(facts) if given is None or given.variable != "HW_WANTED" else _BROUGHT

    def _environment(self, spec: FetchSpec, access: str) -> Mapping[str, str]:
        return {
            "HW_CONFIG": script.CONFIG + configuration(spec.remote, spec.access),
            "HW_ACCESS": access,
            "HW_MIRROR": "/mirror",
            "HW_TREE": "/workspace",
            "HW_URL": spec.remote.url,
            "HW_REF": spec.ref,
            "HW_BRANCH": spec.default_branch,
            "HW_UNLESS": spec.unless,
            "HW_PROTOCOL": spec.remote.transport,
            "HW_LIST_BYTES": str(self._bounds.list_bytes),
            "HW_MAX_FILES": str(self._bounds.files),
            "HW_MAX_BYTES": str(self._bounds.size_bytes),
            # POSIX counts in blocks of 512 bytes; packs may hold a whole history.
            "HW_MAX_BLOCKS": str(2 * self._bounds.size_bytes // 512),
        }

    def _failure(
        self, spec: FetchSpec, outcome: Outcome, complaint: str, facts: dict[str, list[str]]
    ) -> HeadwayError | _MirrorFault:
        shown = spec.remote.shown
        match outcome.exit_code:
            case script.EMPTY:
                return HeadwayError("repository.empty", f"There is no commit in {shown}.")
            case script.NO_REF:
                named = spec.ref or spec.default_branch
                return HeadwayError("ref.not_found", f"{named!r} names no commit of {shown}.", param="ref")
            case script.TOO_LARGE:
                size = f"{facts['files'][0]} files, {facts['bytes'][0]} bytes" if "bytes" in facts else "its tree"
                return HeadwayError("source.too_large", f"The commit is too large: {size}.")
            case script.BAD_TREE:
                why = _last(complaint) if complaint.strip() else "it has a path that leads out of its folder"
                return HeadwayError("source.invalid", f"The commit cannot be extracted: {why}.")
            case script.FETCH_FAILED:
                return self._fetch_failure(spec, outcome, complaint)
        message = f"git failed in the mirror ({outcome.exit_code}): {_last(complaint)}"
        return _MirrorFault(HeadwayError("repository.unreachable", message))

    def _fetch_failure(self, spec: FetchSpec, outcome: Outcome, complaint: str) -> HeadwayError | _MirrorFault:
        if outcome.denied:
            hosts = ", ".join(outcome.denied)
            return HeadwayError("repository.not_allowed", f"Fetching was not allowed to reach {hosts}.", hosts=hosts)
        fault = _FSCK.search(complaint)
        if fault:
            what = f"{fault[1]}: {fault[2]}" if fault[1] else _last(complaint)
            return HeadwayError("source.invalid", f"git refuses an object of {spec.remote.shown}: {what[:_SHOWN]}")
        if "file too large" in complaint.lower():
            return HeadwayError("source.too_large", f"The history of {spec.remote.shown} is too large.")
        if any(words in complaint.lower() for words in _DENIED):
            how = (
                "what the site has for it is refused"
                if spec.access is not None
                else "it is not there, or not open to everybody"
            )
            message = f"{spec.remote.shown} may not be read: {how}."
            return HeadwayError("repository.access_denied", message, param="repository")
        error = HeadwayError("repository.unreachable", f"Cannot fetch from {spec.remote.shown}: {_last(complaint)}")
        ours = not any(words in complaint.lower() for words in _REMOTE)
        return _MirrorFault(error) if ours else error


@dataclass(frozen=True)
class Ids:
    """A file of object ids, one a line, and the variable that tells the script of it."""

    variable: str
    file: Path


class _MirrorFault(Exception):
    """The mirror may be to blame; `error` is what to say if it was not."""

    def __init__(self, error: HeadwayError) -> None:
        super().__init__(error.message)
        self.error = error


def _fresh_beside(mirror: Path) -> Path:
    """A mirror of nothing but the keys that the hosts showed first: who breaks a connection off shows his to none."""
    fresh = mirror.with_suffix(".fresh")
    remove_tree(fresh)
    fresh.mkdir()
    with suppress(FileNotFoundError):
        os.link(mirror / _HOSTS, fresh / _HOSTS, follow_symlinks=False)
    return fresh


@contextmanager
def _locked(path: Path, canceled: Canceled) -> Iterator[None]:
    """One fetch per site at a time, between processes too."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if canceled():
                    raise HeadwayError("job.canceled", "The job was canceled before its source was fetched.") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _facts(stdout: str) -> dict[str, list[str]]:
    facts: dict[str, list[str]] = {}
    for line in stdout.split("\n"):
        word, _, value = line.partition(" ")
        facts.setdefault(word, []).append(value)
    return facts


def _branches(stdout: bytes) -> dict[str, str]:
    found = {}
    for line in stdout.split(b"\n"):
        commit, tab, ref = line.partition(b"\t")
        try:
            name = ref.decode().removeprefix("refs/heads/")
        except UnicodeDecodeError:
            continue
        if tab and ref.startswith(b"refs/heads/") and _SHA.fullmatch(commit.decode("ascii", "replace")):
            found[name] = commit.decode()
    return found


def _checkout(facts: dict[str, list[str]]) -> Checkout:
    commit, source, listing = (facts.get(word, [""])[0] for word in ("commit", "source", "listing"))
    if "same" in facts and _SHA.fullmatch(commit):
        return Checkout(commit, "", _seconds(facts["time"][0]), 0, 0, same=True)
    listed = "listed" in facts
    if not _SHA.fullmatch(commit) or not _HEX.fullmatch(listing) or not (listed or _HEX.fullmatch(source)):
        raise _MirrorFault(HeadwayError("repository.unreachable", "git did not say what it fetched."))
    notes = [f"submodule {path} is not fetched" for path in facts.get("submodule", [])]
    notes += [f"{path} is a Git LFS pointer; its content is not fetched" for path in facts.get("lfs", [])]
    notes += [f"no default branch there: the remote's own is {ref}" for ref in facts.get("note-branch", [])]
    return Checkout(
        commit_sha=commit,
        source_sha256=source,
        commit_time=_seconds(facts["time"][0]),
        files=int(facts["files"][0]),
        size_bytes=int(facts["bytes"][0]),
        notes=tuple(notes),
        listing_sha256=listing,
        listed=listed,
    )


def _seconds(text: str) -> int:
    """A commit says what it likes of its time: what no calendar has counts as that of a tree without one."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) and int(text) <= _LAST_SECOND else SOURCE_TIME


def _no_folder(remote: Remote) -> HeadwayError:
    if remote.shown.startswith("file:"):
        return HeadwayError("repository.unreachable", f"There is no folder at {remote.shown}.")
    return HeadwayError("repository.empty", "Nothing has been pushed to the site's own repository yet.")


def empty(workspace: Path) -> None:
    """Nothing lies in the workspace afterwards."""
    for one in workspace.iterdir():
        remove_tree(one)


def _last(complaint: str) -> str:
    """The line that says most: git's last fatal or error line."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    first = next((line for line in telling if line.startswith("fatal:")), telling[0] if telling else "no reason given")
    return "".join(c for c in first if c.isprintable())[:_SHOWN]
