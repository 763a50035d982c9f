"""Hosts: what to place, and which names lead to it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Final

from sqlmodel import Session

from api.ahead import Board
from api.inputs import Inputs
from api.internal.admission import admission_of
from api.internal.parcels import keyring_of, parcel_of
from api.parts import Objects
from headway.broker import (
    CommandSpec,
    Committed,
    Deleted,
    Drifts,
    Hostnames,
    InputPart,
    Leads,
    Leftovers,
    Misled,
    Mounts,
    Noted,
    Ready,
    RollSpec,
    Serving,
    Turn,
    WantedInput,
    WantedTurn,
)
from headway.errors import HeadwayError
from store.broker import hostnames, to_place
from store.commands import begin_command, command_of
from store.domains import redirects_of
from store.drifts import note_drifts
from store.fleet import deleted_for, hosts_of, leftovers, note_otherwise, require_part, serves, serves_otherwise
from store.leads import misled
from store.locks import lock_text
from store.models import Rollout, Site
from store.queue import commit_rollout
from store.session import Store
from store.taking import Later, take


class Rollouts:
    def __init__(
        self, store: Store, objects: Objects, inputs: Inputs, site_url: Callable[[str], str], board: Board
    ) -> None:
        self.store = store
        self.objects = objects
        self.inputs = inputs
        self.site_url = site_url
        self.board = board

    def spec(self, rollout_id: str, host_id: str) -> RollSpec:
        """Addresses that read just this artifact's objects, for an hour. For a host of the rollout."""
        with self.store.read() as session:
            return self._spec(session, rollout_id, host_id)

    def ready(self, rollout_id: str, host_id: str, body: Ready) -> RollSpec:
        """The same, for a host that has seen this very artifact: where it is the only one, it may switch then.

        What a policy decides on takes the longer way. Raises as `spec` and `commit`.
        """

        def answer(session: Session) -> RollSpec:
            # Locked before it is read: what it was like a moment ago decides nothing.
            rollout = session.get(Rollout, rollout_id, with_for_update=True)
            spec = self._spec(session, rollout_id, host_id)
            if rollout is None or hosts_of(session, rollout) != [host_id]:
                return spec
            return _committed(session, spec, host_id, body)

        return self.store.in_write(answer)

    def take(self, job_id: str, host_id: str, body: WantedTurn) -> Turn:
        """The turn and the spec, and as `ready` the point of no return, for the only host of a job's rollout.

        Where it is not to be had like that nothing has changed. Raises as `ready`.
        """
        if body.early and not self.board.has_run(job_id):
            return Turn()

        def answer(session: Session) -> Turn:
            spec = self._spec(session, take(session, job_id, host_id).id, host_id)
            return Turn(spec=spec if body.ready is None else _committed(session, spec, host_id, body.ready))

        try:
            return self.store.in_write(answer)
        except Later:
            return Turn()

    def _spec(self, session: Session, rollout_id: str, host_id: str) -> RollSpec:
        found = to_place(session, rollout_id)
        require_part(session, found.rollout, host_id)
        keyring, admission = keyring_of(session), admission_of(session, found.rollout)
        rollout, artifact = found.rollout, found.artifact
        parcel = parcel_of(self.objects, artifact.site_id, artifact.digest, found.packs, keyring)
        return RollSpec(
            **{**dict(parcel), "job_id": rollout.job_id, "env_id": rollout.env_id},
            rollout_id=rollout.id,
            kind=rollout.kind,
            artifact_id=artifact.id,
            apply_seq=rollout.apply_seq or 0,
            undo_seq=rollout.undo_seq or 0,
            hostnames=found.hostnames,
            config_version=rollout.config_version,
            instances=rollout.instances or 0,
            lock=lock_text(session, rollout.env_id),
            policies=admission.policies,
            proof=admission.proof,
            awaited=admission.awaited,
            team=session.get_one(Site, artifact.site_id).team_id if artifact.kind == "dynamic" else "",
        )

    def commit(self, rollout_id: str, host_id: str) -> Committed:
        """Raises deployment.not_found for any but the rollout's only host."""
        job_id = self.store.in_write(lambda session: commit_rollout(session, rollout_id, by=host_id).job_id)
        return Committed(rollout_id=rollout_id, job_id=job_id)

    def begin_command(self, job_id: str, host_id: str) -> CommandSpec:
        job = self.store.in_write(lambda session: begin_command(session, job_id, host_id))
        given = job.input or {}
        return CommandSpec(
            job_id=job.id,
            env_id=job.env_id or "",
            seq=given["seq"],
            command=given["command"],
            timeout=given["timeout"],
            given=given["given"][1] if given.get("given") else None,
        )

    def command_input(self, job_id: str, host_id: str, body: WantedInput) -> InputPart:
        """The next part of it, for the host that runs the command. Raises input.not_found, and as `command_of`."""
        with self.store.read() as session:
            job = command_of(session, job_id, host_id)
        input_id, size = (job.input or {}).get("given") or ("", 0)
        if body.start >= size:
            self.inputs.forget(job.env_id or "", input_id)
            return InputPart(data="")
        part = self.inputs.read(job.env_id or "", input_id, body.start, PART)
        return InputPart(data=base64.b64encode(part).decode())

    def hear_serving(self, host_id: str, body: Serving) -> Leftovers:
        """Compare with the rows: what is otherwise there is put right by a rollout, what has no business there goes."""
        with self.store.read() as session:
            otherwise, gone = serves_otherwise(session, host_id, body.live), leftovers(session, host_id, body.live)
        if otherwise:
            self.store.in_write(lambda session: note_otherwise(session, host_id, body.live, otherwise))
        return Leftovers(environments=gone)

    def hear_leads(self, host_id: str, body: Leads) -> Misled:
        """Compare with the rows: of what is otherwise the host asks for the names anew."""
        with self.store.read() as session:
            return Misled(environments=misled(session, host_id, body.leads, self.site_url))

    def hear_mounts(self, body: Mounts) -> Deleted:
        with self.store.read() as session:
            return Deleted(environments=deleted_for(session, body.environments))

    def note_drifts(self, host_id: str, body: Drifts) -> Noted:
        """What a host found. Of environments that are not on it, or gone, nothing is kept."""
        return Noted(noted=self.store.in_write(lambda session: note_drifts(session, host_id, body.drifts)))

    def hostnames(self, env_id: str, host_id: str) -> Hostnames:
        """Raises environment.not_found, also for a host that has nothing to do with it."""
        with self.store.read() as session:
            if not serves(session, env_id, host_id):
                raise HeadwayError("environment.not_found", f"There is no environment {env_id} on {host_id}.")
            led = {name: self.site_url(target) for name, target in redirects_of(session, env_id).items()}
            names, lock = hostnames(session, env_id), lock_text(session, env_id)
            return Hostnames(env_id=env_id, hostnames=names, redirects=led, lock=lock)


def _committed(session: Session, spec: RollSpec, host_id: str, ready: Ready) -> RollSpec:
    """Past the point of no return, if what the host has seen is all that decides on it."""
    if not _suits(spec, ready):
        return spec
    commit_rollout(session, spec.rollout_id, by=host_id)
    return spec.model_copy(update={"committed": True})


def _suits(spec: RollSpec, ready: Ready) -> bool:
    """Whether what a host has seen is all that decides on it."""
    keyring = hashlib.sha256(spec.keyring.encode()).hexdigest()
    seen = (ready.digest, ready.keyring_sha256) == (spec.digest, keyring)
    if ready.web:
        same = ready.config_version == spec.config_version and spec.instances in (0, ready.web)
        return seen and same and spec.kind == "rollback" and not spec.policies
    return seen and spec.kind in READY and not spec.policies


PART: Final = 1 << 20
# Kinds that bring an artifact which was there before the host was asked.
READY: Final = frozenset({"deploy", "promote", "rollback"})
