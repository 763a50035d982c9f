"""A typed, synchronous client of the managed dialect.

    with Client("http://127.0.0.1:7070", token) as headway:
        job = headway.builds.create(site.id, env.id, ref="main")
        headway.jobs.wait(job.id)

Calls that start work answer a Job; `jobs.wait` follows it. Failures are `headway.errors.HeadwayError`: what the server
answered is its subclass ApiError, with `request_id`. Lists are iterators over all pages, newest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self
from urllib.parse import quote

from headway.errors import HeadwayError
from headway.events_client import Domains, Hooks, Webhooks
from headway.following import Follower, JobEvent, WaitTimeout
from headway.forge_client import Forges
from headway.governance import Audit, Policies
from headway.ids import is_id
from headway.machines_client import Builders, Hosts, Integrity, Retention
from headway.notifications_client import Notifications
from headway.nouns import Json, Noun, env_path, given
from headway.reading_client import Ledger, Logs, Releases, Requests
from headway.repository_client import Repository
from headway.resources import Artifact, Build, Cache, Deployment, Drift, Environment, Identity, Job, Site
from headway.teams_client import Keys, Members, Projects, Teams
from headway.transport import ApiError, Transport
from headway.values_client import Values

__all__ = ["ApiError", "Client", "JobEvent", "WaitTimeout"]


class Client:
    """One server, one key. `version` pins the API's date (`Forge-Version`); `timeout` is per request, in seconds."""

    def __init__(self, api_url: str, token: str | None, *, version: str | None = None, timeout: float = 30.0) -> None:
        self.transport = Transport(api_url, token, version=version, timeout=timeout)
        self.sites = Sites(self.transport)
        self.environments = Environments(self.transport)
        self.builds = Builds(self.transport)
        self.caches = Caches(self.transport)
        self.artifacts = Artifacts(self.transport)
        self.deployments = Deployments(self.transport)
        self.releases = Releases(self.transport)
        self.ledger = Ledger(self.transport)
        self.policies = Policies(self.transport)
        self.audit = Audit(self.transport)
        self.jobs = Jobs(self.transport)
        self.logs = Logs(self.transport)
        self.requests = Requests(self.transport)
        self.keys = Keys(self.transport)
        self.variables = Values(self.transport, "variables")
        self.secrets = Values(self.transport, "secrets")
        self.hosts = Hosts(self.transport)
        self.builders = Builders(self.transport)
        self.webhooks = Webhooks(self.transport)
        self.domains = Domains(self.transport)
        self.retention = Retention(self.transport)
        self.integrity = Integrity(self.transport)
        self.hooks = Hooks(self.transport)
        self.repository = Repository(self.transport)
        self.forges = Forges(self.transport)
        self.notifications = Notifications(self.transport)
        self.teams = Teams(self.transport)
        self.members = Members(self.transport)
        self.projects = Projects(self.transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    def account(self) -> Identity:
        """Who this key acts as."""
        return Identity.model_validate(self.transport.get("/v1/account").data)

    def rate_limits(self) -> Json:
        return dict(self.transport.get("/v1/rate-limits").data)


class Sites(Noun):
    def create(
        self,
        name: str,
        *,
        slug: str | None = None,
        repository: str | None = None,
        default_branch: str | None = None,
        project_id: str | None = None,
        runtime: str | None = None,
        profile: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        body = given(name=name, slug=slug, repository=repository, default_branch=default_branch)
        body |= given(project_id=project_id, runtime=runtime, profile=profile)
        return self._job(self._t.post("/v1/sites", body, idempotency_key=idempotency_key))

    def list(self, *, slug: str | None = None, limit: int | None = None) -> Iterator[Site]:
        return self._list(Site, "/v1/sites", limit, slug=slug)

    def get(self, site_id: str) -> Site:
        return Site.model_validate(self._t.get(f"/v1/sites/{site_id}").data)

    def find(self, slug_or_id: str) -> Site:
        """By id, else by slug. Raises site.not_found."""
        if is_id(slug_or_id, "site"):
            return self.get(slug_or_id)
        for site in self.list(slug=slug_or_id):
            if site.slug == slug_or_id:
                return site
        raise HeadwayError("site.not_found", f"There is no site {slug_or_id!r}, or this key may not see it.")

    def update(self, site_id: str, **fields: Any) -> Site:
        return Site.model_validate(self._t.patch(f"/v1/sites/{site_id}", fields).data)

    def delete(self, site_id: str) -> Job:
        return self._deletion(f"/v1/sites/{site_id}", "site")

    def branch_routes(self, site_id: str) -> Json:
        """`{routes: [{pattern, target}], default, from_repository}`."""
        return dict(self._t.get(f"/v1/sites/{site_id}/branch-routes").data)

    def set_branch_routes(self, site_id: str, body: Json) -> Json:
        """`routes` (None: the defaults) and `from_repository`; what is left out stays."""
        return dict(self._t.put(f"/v1/sites/{site_id}/branch-routes", body).data)


class Environments(Noun):
    def create(
        self, site_id: str, *, kind: str, branch: str, ephemeral: bool = False, idempotency_key: str | None = None
    ) -> Job:
        body: Json = {"kind": kind, "branch": branch} | ({"ephemeral": True} if ephemeral else {})
        return self._job(self._t.post(f"/v1/sites/{site_id}/environments", body, idempotency_key=idempotency_key))

    def list(
        self, site_id: str, *, slug: str | None = None, branch: str | None = None, limit: int | None = None
    ) -> Iterator[Environment]:
        return self._list(Environment, f"/v1/sites/{site_id}/environments", limit, slug=slug, branch=branch)

    def get(self, site_id: str, env_id: str) -> Environment:
        return Environment.model_validate(self._t.get(env_path(site_id, env_id)).data)

    def find(self, site_id: str, name: str) -> Environment:
        """By id, else by slug, branch or kind, in that order. Raises environment.not_found."""
        if is_id(name, "env"):
            return self.get(site_id, name)
        for environment in self.list(site_id, slug=name):
            if environment.slug == name:
                return environment
        rest = [*self.list(site_id)]
        for environment in (*(one for one in rest if one.branch == name), *(one for one in rest if one.kind == name)):
            return environment
        raise HeadwayError("environment.not_found", f"That site has no environment {name!r}, or it is hidden.")

    def delete(self, site_id: str, env_id: str) -> Job:
        return self._deletion(env_path(site_id, env_id), "environment")

    def update(self, site_id: str, env_id: str, **fields: Any) -> Environment:
        """`bake_seconds`, `host_labels`, `away`, `pinned`, `pin_reason`."""
        return Environment.model_validate(self._t.patch(env_path(site_id, env_id), fields).data)

    def act(self, site_id: str, env_id: str, action: str, *, idempotency_key: str | None = None) -> Job:
        """`suspend`, `resume` or `restart`."""
        return self._job(self._t.post(f"{env_path(site_id, env_id)}/{action}", idempotency_key=idempotency_key))

    def scale(self, site_id: str, env_id: str, instances: int, *, idempotency_key: str | None = None) -> Job:
        body = {"instances": instances}
        return self._job(self._t.post(f"{env_path(site_id, env_id)}/scale", body, idempotency_key=idempotency_key))

    def run(
        self,
        site_id: str,
        env_id: str,
        command: str,
        *,
        timeout: int = 600,
        input_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """A one-off command; the job's result has its `exit_code`, the job's log its output."""
        body = {"command": command, "timeout": timeout, **given(input_id=input_id)}
        return self._job(self._t.post(f"{env_path(site_id, env_id)}/run", body, idempotency_key=idempotency_key))

    def give_input(self, site_id: str, env_id: str, pieces: Iterable[bytes]) -> str:
        """What a command will find on its standard input: the id for `run`. One piece at a time is held in memory."""
        path, at, waiting = f"{env_path(site_id, env_id)}/inputs", 0, iter(pieces)
        piece, after = next(waiting, b""), next(waiting, None)
        answer = self._t.send("POST", path, piece, end=after is None)
        input_id = str(answer.data["id"])
        while after is not None:
            at, piece, after = at + len(piece), after, next(waiting, None)
            try:
                self._t.send("PUT", f"{path}/{input_id}", piece, offset=at, end=after is None)
            except ApiError as error:
                # The answer to its end was lost, and it was sent again.
                if error.code != "input.ended" or after is not None or error.details.get("received") != at + len(piece):
                    raise
        return input_id

    def renew(self, site_id: str, env_id: str) -> Environment:
        return Environment.model_validate(self._t.post(f"{env_path(site_id, env_id)}/renew").data)

    def protect(self, site_id: str, env_id: str, password: str | None) -> Job:
        """Visitors are asked for this password; None: for none any more."""
        path = f"{env_path(site_id, env_id)}/password"
        return self._job(self._t.delete(path) if password is None else self._t.put(path, {"password": password}))

    def protect_new(self, site_id: str, password: str | None) -> Json:
        """The same of each preview that is made from now on."""
        path = f"/v1/sites/{site_id}/preview-password"
        answer = self._t.delete(path) if password is None else self._t.put(path, {"password": password})
        return dict(answer.data)

    def drifts(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Drift]:
        return self._list(Drift, f"{env_path(site_id, env_id)}/drifts", limit)


class Builds(Noun):
    def create(
        self,
        site_id: str,
        env_id: str,
        *,
        ref: str | None = None,
        clean: bool = False,
        idempotency_key: str | None = None,
    ) -> Job:
        body = given(ref=ref) | ({"clean": True} if clean else {})
        return self._job(self._t.post(f"{env_path(site_id, env_id)}/builds", body, idempotency_key=idempotency_key))

    def list(
        self, site_id: str, env_id: str, *, status: str | None = None, ref: str | None = None, limit: int | None = None
    ) -> Iterator[Build]:
        return self._list(Build, f"{env_path(site_id, env_id)}/builds", limit, status=status, ref=ref)

    def get(self, site_id: str, env_id: str, build_id: str) -> Build:
        return Build.model_validate(self._t.get(f"{env_path(site_id, env_id)}/builds/{build_id}").data)

    def plan(self, site_id: str, env_id: str, build_id: str) -> Json:
        """What it ran, and what decided so. Raises build.plan_not_found: it has not ended, or failed."""
        return dict(self._t.get(f"{env_path(site_id, env_id)}/builds/{build_id}/plan").data)

    def log(self, site_id: str, env_id: str, build_id: str) -> str:
        return self._t.text(f"{env_path(site_id, env_id)}/builds/{build_id}/log")

    def follow_log(self, site_id: str, env_id: str, build_id: str) -> Iterator[Json]:
        """Each line as `{ts, stream, stage, line}`, until the build has ended; reconnects where it was."""
        return Follower(self._t).lines(f"{env_path(site_id, env_id)}/builds/{build_id}/log")


class Caches(Noun):
    def list(self, site_id: str, *, limit: int | None = None) -> Iterator[Cache]:
        return self._list(Cache, f"/v1/sites/{site_id}/caches", limit)

    def drop(self, site_id: str, env_id: str | None = None) -> Json:
        """All of a site's, or of one environment: `{dropped, size_bytes}`."""
        query = f"?env_id={quote(env_id, safe='')}" if env_id is not None else ""
        return dict(self._t.delete(f"/v1/sites/{site_id}/caches{query}").data)


class Artifacts(Noun):
    def list(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Artifact]:
        return self._list(Artifact, f"{env_path(site_id, env_id)}/artifacts", limit)

    def get(self, site_id: str, env_id: str, artifact_id: str) -> Artifact:
        return Artifact.model_validate(self._t.get(f"{env_path(site_id, env_id)}/artifacts/{artifact_id}").data)

    def find(self, artifact_id: str, *, site_id: str | None = None) -> Artifact:
        """An artifact by its id alone: looked for in every site that this key sees. Raises artifact.not_found."""
        sites = Sites(self._t)
        for site in [sites.get(site_id)] if site_id else sites.list():
            if site.production_env_id is None:
                continue
            try:
                return self.get(site.id, site.production_env_id, artifact_id)
            except HeadwayError as error:
                if error.type != "not_found":
                    raise
        raise HeadwayError("artifact.not_found", f"There is no artifact {artifact_id}, or this key may not see it.")

    def keep(self, artifact: Artifact, env_id: str, *, kept: bool) -> Artifact:
        """Whether it is never collected."""
        path = f"{env_path(artifact.site_id, env_id)}/artifacts/{artifact.id}"
        return Artifact.model_validate(self._t.patch(path, {"kept": kept}).data)

    def sbom_changes(self, artifact: Artifact, against: Artifact) -> Json:
        """What the bills of materials of two artifacts of one site have not in common."""
        link = artifact.links.get("sbom")
        return dict(self._t.get(f"{link}/changes", against=against.id).data)

    def document(self, artifact: Artifact, name: str) -> bytes:
        """`manifest`, `bundle`, `provenance`, `public_key` or `sbom`: the bytes as they were signed."""
        link = artifact.links.get(name)
        if not isinstance(link, str) or not link.startswith("/"):
            raise HeadwayError("artifact.not_found", f"The server does not offer the {name} of this artifact.")
        return self._t.raw(link)


class Deployments(Noun):
    def create(self, site_id: str, env_id: str, *, artifact_id: str, idempotency_key: str | None = None) -> Job:
        """Roll an artifact onto an environment."""
        path = f"{env_path(site_id, env_id)}/deployments"
        return self._job(self._t.post(path, {"artifact_id": artifact_id}, idempotency_key=idempotency_key))

    def deploy(
        self,
        site_id: str,
        *,
        target: str,
        ref: str | None = None,
        build_id: str | None = None,
        artifact_id: str | None = None,
        clean: bool = False,
        idempotency_key: str | None = None,
    ) -> Job:
        """Exactly one of `ref` (built first), `build_id` and `artifact_id`; `target` is an id, slug or kind."""
        body = given(target=target, ref=ref, build_id=build_id, artifact_id=artifact_id)
        body |= {"clean": True} if clean else {}
        return self._job(self._t.post(f"/v1/sites/{site_id}/deployments", body, idempotency_key=idempotency_key))

    def list(
        self, site_id: str, env_id: str, *, status: str | None = None, limit: int | None = None
    ) -> Iterator[Deployment]:
        return self._list(Deployment, f"{env_path(site_id, env_id)}/deployments", limit, status=status)

    def get(self, site_id: str, env_id: str, deployment_id: str) -> Deployment:
        return Deployment.model_validate(self._t.get(f"{env_path(site_id, env_id)}/deployments/{deployment_id}").data)

    def rollback(
        self,
        site_id: str,
        env_id: str,
        deployment_id: str,
        *,
        release_id: str | None = None,
        keep_config: bool = False,
        idempotency_key: str | None = None,
    ) -> Job:
        """Back to the release before that deployment (`current`: the one that is live), or to `release_id`;
        `keep_config`: to its code alone."""
        path = f"{env_path(site_id, env_id)}/deployments/{deployment_id}/rollback"
        body = given(release_id=release_id) | ({"keep_config": True} if keep_config else {})
        return self._job(self._t.post(path, body, idempotency_key=idempotency_key))

    def promote(self, site_id: str, env_id: str, *, to_env: str, idempotency_key: str | None = None) -> Job:
        """What runs on the environment goes onto `to_env` (an id, slug or kind) without a rebuild."""
        path = f"{env_path(site_id, env_id)}/promote"
        return self._job(self._t.post(path, {"to_env": to_env}, idempotency_key=idempotency_key))


class Jobs(Noun):
    def list(
        self, *, status: str | None = None, resource_type: str | None = None, limit: int | None = None
    ) -> Iterator[Job]:
        return self._list(Job, "/v1/jobs", limit, status=status, resource_type=resource_type)

    def get(self, job_id: str) -> Job:
        return self._job(self._t.get(f"/v1/jobs/{job_id}"))

    def cancel(self, job_id: str) -> Job:
        return self._job(self._t.post(f"/v1/jobs/{job_id}/cancel"))

    def stream(self, job_id: str, *, timeout: float | None = None) -> Iterator[JobEvent]:
        """The job as it is, then its log lines and changes until it has ended.

        Server-sent events, resumed after a broken connection; where a server or a proxy does not stream, long-polls.
        Raises WaitTimeout after `timeout` seconds.
        """
        return Follower(self._t).events(job_id, timeout=timeout)

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job when it has ended, however it ended. Raises WaitTimeout after `timeout` seconds."""
        last: Job | None = None
        for event in self.stream(job_id, timeout=timeout):
            last = event.job or last
        return last if last is not None and last.ended else self.get(job_id)
