"""Builders: commands in sandboxes. What a command changed goes into the sandbox's rows, all of it or nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from sqlmodel import Session

from adapters.artifact.paths import path_fault
from api.internal.snapshots import addresses, source_of
from api.parts import Objects
from headway.broker import (
    Addresses,
    Begin,
    ExecOutput,
    ExecSpec,
    Heard,
    Upload,
    UploadRequest,
    WantedPacks,
)
from headway.errors import HeadwayError
from store.config_values import Opens
from store.execs import begin_exec, end_exec, require_exec, result_key
from store.leases import Holder, take
from store.models import Job
from store.models_sandboxes import Sandbox
from store.sandbox_env import env_of
from store.sandbox_packs import hold, release
from store.sandboxes import Entry, SandboxLimits, pack_key, remove_files, touch, write_files
from store.session import Store

SECONDS: Final = 3600


class Execs:
    def __init__(self, store: Store, objects: Objects, limits: SandboxLimits, vault: Opens) -> None:
        self.store, self.objects, self.limits, self.vault = store, objects, limits, vault

    def begin(self, job_id: str, _body: Begin, holder: Holder) -> ExecSpec:
        """Raises attempt.held where another process is at it."""

        def begin(session: Session) -> tuple[Job, dict[str, str]]:
            job = begin_exec(session, job_id)
            take(session, job_id, holder)
            return job, env_of(session, self.vault, job.resource_id)

        job, env = self.store.in_write(begin)
        asked = job.input or {}
        return ExecSpec(
            job_id=job.id,
            sandbox_id=job.resource_id,
            attempt=asked["attempt"],
            command=asked["command"],
            cwd=asked["cwd"],
            env={**env, **asked["env"]},
            timeout=asked["timeout"],
            snapshot=source_of(self.objects, job.team_id, asked["sha256"]),
        )

    def packs(self, job_id: str, body: WantedPacks) -> Addresses:
        with self.store.read() as session:
            job = require_exec(session, job_id, body.attempt)
            return addresses(session, self.objects, job.team_id, (job.input or {}).get("sha256", ""), body.packs)

    def upload(self, job_id: str, body: UploadRequest) -> Upload:
        if body.size > self.limits.size_bytes or len(body.sha256) != 64:
            raise HeadwayError("sandbox.too_large", f"A sandbox holds at most {self.limits.size_bytes} bytes.")

        def lease(session: Session) -> Job:
            job = require_exec(session, job_id, body.attempt)
            hold(session, job.team_id, job_id, {body.sha256: body.size})
            return job

        job = self.store.in_write(lease)
        key = pack_key(job.team_id, body.sha256)
        if self.objects.head(key) == body.size:
            return Upload(url=None)
        url, headers = self.objects.presign_put(key, body.sha256, body.size, SECONDS)
        return Upload(url=url, headers=headers)

    def output(self, job_id: str, body: ExecOutput) -> Heard:
        """Raises upload.failed for a pack that is not there, sandbox.* for a tree that a sandbox cannot hold."""
        job = self.store.in_write(lambda session: require_exec(session, job_id, body.attempt))
        entries = self._entries(job.team_id, job_id, body)
        said = json.dumps({"stdout": body.stdout, "stderr": body.stderr}).encode()
        self._keep(job, body.attempt, said)
        self.store.in_write(lambda session: self._apply(session, job_id, body, entries))
        return Heard(cancel=False)

    def _keep(self, job: Job, attempt: int, said: bytes) -> None:
        """In the place of what an attempt left that died before its end; never in that of a later one."""
        key, digest = result_key(job.team_id, job.id), hashlib.sha256(said).hexdigest()
        while not self.objects.put_new(key, said, digest):
            there = self.objects.stat(key)
            self.store.in_write(lambda session: require_exec(session, job.id, attempt))
            if there is not None and self.objects.replace_that(key, said, digest, there[1]):
                return

    def _entries(self, team_id: str, job_id: str, body: ExecOutput) -> list[Entry]:
        entries = []
        if body.pack is not None:
            if self.objects.head(pack_key(team_id, body.pack)) != body.pack_size:
                raise HeadwayError("upload.failed", "The pack has not been uploaded.")
            entries += [Entry(one.path, one.sha256, one.size, body.pack, one.offset, one.mode) for one in body.files]
        if body.links:
            raw = b"".join(target.encode() for _, target in body.links)
            pack, at = hashlib.sha256(raw).hexdigest(), 0
            self.store.in_write(lambda session: hold(session, team_id, job_id, {pack: len(raw)}))
            self.objects.put_new(pack_key(team_id, pack), raw, pack)
            for path, target in body.links:
                data = target.encode()
                entries.append(Entry(path, hashlib.sha256(data).hexdigest(), len(data), pack, at, "link"))
                at += len(data)
        for one in entries:
            if (fault := path_fault(one.path)) or one.size > self.limits.file_bytes:
                raise HeadwayError("sandbox.too_large", f"{one.path} {fault or 'is too large'}.")
        return entries

    def _apply(self, session: Session, job_id: str, body: ExecOutput, entries: list[Entry]) -> None:
        job = require_exec(session, job_id, body.attempt)
        found = session.get(Sandbox, job.resource_id, with_for_update=True)
        if found is None or found.destroyed_at is not None:
            raise HeadwayError("sandbox.not_found", f"The sandbox {job.resource_id} is gone.")
        if body.removed:
            remove_files(session, found, body.removed)
            session.flush()
        if entries:
            write_files(session, found, entries, self.limits)
        release(session, job_id)
        touch(found, self.limits)
        end_exec(session, job, {"exit_code": body.exit_code, "duration_ms": body.duration_ms, "limit": body.limit})
