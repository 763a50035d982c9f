"""Rows as the API makes them at acceptance: the input of every workflow test."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store import queue
from store.commands import accept_command
from store.lifecycle import accept_action
from store.models import (
    Artifact,
    Build,
    Environment,
    Hostname,
    Job,
    Project,
    Rollout,
    Site,
    Team,
    utcnow,
)
from store.session import Store


def claim_next(session: Session, env_id: str) -> Rollout | None:
    """Every open rollout's run asks for its turn, in the order of acceptance; the one that has it."""
    open_rollouts = select(Rollout).where(Rollout.env_id == env_id, col(Rollout.finished_at).is_(None))
    for rollout in session.exec(open_rollouts.order_by(col(Rollout.accept_seq))).all():
        with contextlib.suppress(HeadwayError):
            if queue.claim_turn(session, rollout.job_id).status == "running":
                return rollout
    return None


@dataclass
class World:
    """One team with one site; `accept_*` are the API's acceptance transactions in small."""

    store: Store
    team_id: str
    site_id: str
    env_id: str

    @classmethod
    def make(cls, store: Store) -> World:
        team, project = new_id("team"), new_id("proj")
        site, env = new_id("site"), new_id("env")
        with store.write() as session:
            session.add(Team(id=team, name="T", slug=team.lower().replace("_", "-")))
            session.flush()
            session.add(Project(id=project, team_id=team, name="P", slug="p"))
            session.flush()
            session.add(
                Site(
                    id=site,
                    team_id=team,
                    project_id=project,
                    name="Acme",
                    slug="acme",
                    status="active",
                    production_env_id=env,
                )
            )
            session.flush()
            session.add(
                Environment(id=env, site_id=site, kind="production", slug="production", branch="main", status="active")
            )
            session.flush()
            session.add(Hostname(name="acme.localhost", env_id=env, is_primary=True))
        return cls(store, team, site, env)

    def beside(self, slug: str) -> World:
        """The same site, and another environment of it."""
        env = new_id("env")
        with self.store.write() as session:
            session.add(
                Environment(id=env, site_id=self.site_id, kind="preview", slug=slug, branch=slug, status="active")
            )
        return replace(self, env_id=env)

    def _job(self, kind: str, resource: str, resource_id: str) -> Job:
        return Job(
            id=new_id("job"),
            team_id=self.team_id,
            site_id=self.site_id,
            env_id=self.env_id,
            type=kind,
            resource_type=resource,
            resource_id=resource_id,
        )

    def artifact(self, digest: str, kind: str = "static") -> str:
        row = Artifact(
            id=new_id("art"),
            site_id=self.site_id,
            digest=digest,
            kind=kind,
            profile=kind,
            size_bytes=1,
            files=1,
            build_id="build_X",
            commit_sha="c" * 40,
            ref="main",
            key_hint="k",
            signed_at=utcnow(),
        )
        with self.store.write() as session:
            session.add(row)
        return row.id

    def accept_build(self, ref: str = "main") -> Job:
        build_id = new_id("build")
        job = self._job("build.run", "build", build_id)
        with self.store.write() as session:
            session.add(job)
            session.add(Build(id=build_id, site_id=self.site_id, env_id=self.env_id, job_id=job.id, ref=ref))
        return job

    def accept_roll(self, artifact_id: str, kind: str = "deploy") -> Job:
        rollout_id = new_id("dep")
        types = {"deploy": "deployment.roll", "promote": "deployment.promote", "rollback": "deployment.rollback"}
        job = self._job(types[kind], "deployment", rollout_id)
        with self.store.write() as session:
            session.add(job)
            session.add(self._rollout(session, rollout_id, job.id, kind, artifact_id=artifact_id))
        return job

    def accept_command(self) -> Job:
        with self.store.write() as session:
            site, environment = session.get_one(Site, self.site_id), session.get_one(Environment, self.env_id)
            return accept_command(session, site, environment, "ls", 60, {})

    def accept_stop(self) -> Job:
        rollout_id = new_id("dep")
        job = self._job("deployment.stop", "deployment", rollout_id)
        with self.store.write() as session:
            session.add(job)
            session.add(self._rollout(session, rollout_id, job.id, "stop"))
        return job

    def accept_exec(self) -> Job:
        job = Job(
            id=new_id("job"),
            team_id=self.team_id,
            type="sandbox.exec",
            resource_type="sandbox",
            resource_id=new_id("sbx"),
            input={"command": "make", "attempt": 0},
        )
        with self.store.write() as session:
            session.add(job)
        return job

    def accept_retention(self, *, dry_run: bool) -> Job:
        job = Job(
            id=new_id("job"),
            team_id=self.team_id,
            type="retention.run",
            resource_type="retention",
            resource_id="retention",
            input={"dry_run": dry_run},
        )
        with self.store.write() as session:
            session.add(job)
        return job

    def accept_scrub(self, *, whole: bool = False) -> Job:
        job = Job(
            id=new_id("job"),
            team_id=self.team_id,
            type="integrity.scrub",
            resource_type="integrity",
            resource_id="integrity",
            input={"whole": whole},
        )
        with self.store.write() as session:
            session.add(job)
        return job

    def act(self, kind: str, *, instances: int | None = None) -> Job:
        """Restart, scale, suspend or resume, as the API accepts it."""
        with self.store.write() as session:
            site, environment = session.get_one(Site, self.site_id), session.get_one(Environment, self.env_id)
            return accept_action(session, site, environment, kind, {"type": "test"}, instances=instances)

    def environment(self) -> Environment:
        with self.store.read() as session:
            return session.get_one(Environment, self.env_id)

    def accept_push(self, ref: str = "main", branch: str = "main") -> Job:
        build_id, rollout_id = new_id("build"), new_id("dep")
        job = self._job("deployment.push", "deployment", rollout_id)
        with self.store.write() as session:
            session.add(job)
            session.add(Build(id=build_id, site_id=self.site_id, env_id=self.env_id, job_id=job.id, ref=ref))
            session.add(
                self._rollout(session, rollout_id, job.id, "deploy", build_id=build_id, branch=branch, status="waiting")
            )
        return job

    def _rollout(self, session, rollout_id: str, job_id: str, kind: str, **more) -> Rollout:
        environment = session.get_one(Environment, self.env_id, with_for_update=True)
        environment.accept_seq += 1
        return Rollout(
            id=rollout_id,
            site_id=self.site_id,
            env_id=self.env_id,
            job_id=job_id,
            kind=kind,
            accept_seq=environment.accept_seq,
            **more,
        )

    def job(self, job_id: str) -> Job:
        with self.store.read() as session:
            return session.get_one(Job, job_id)
