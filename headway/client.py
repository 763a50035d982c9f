"""A typed, synchronous client of the managed dialect.

    with Client("http://127.0.0.1:7070", token) as headway:
        job = headway.builds.create(site.id, env.id, ref="main")
        headway.jobs.wait(job.id)

Calls that start work answer a Job; `jobs.wait` follows it. Failures are `headway.errors.HeadwayError`: what the server
answered is its subclass ApiError, with `request_id`. Lists are iterators over all pages, newest first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

from headway.errors import HeadwayError
from headway.events_client import Domains, Hooks, Webhooks
from headway.following import Follower, JobEvent, WaitTimeout
from headway.forge_client import Forges
from headway.governance import Audit, Policies
from headway.ids import is_id
from headway.notifications_client import Notifications
from headway.repository_client import Repository
from headway.resources import (
    AddedBuilder,
    Artifact,
    Build,
    Builder,
    Cache,
    Deployment,
    Drift,
    Environment,
    Finding,
    Host,
    Identity,
    Job,
    JoinedHost,
    Key,
    LogLine,
    Member,
    Metrics,
    Project,
    Release,
    RequestLog,
    Resource,
    Site,
    Team,
    Value,
)
from headway.transport import Answer, ApiError, Transport

__all__ = ["ApiError", "Client", "JobEvent", "WaitTimeout"]

R = TypeVar("R", bound=Resource)
Json = dict[str, Any]


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _env(site_id: str, env_id: str) -> str:
    return f"/v1/sites/{site_id}/environments/{env_id}"


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


class Noun:
    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def _list(self, kind: type[R], path: str, limit: int | None, **params: Any) -> Iterator[R]:
        return (kind.model_validate(row) for row in self._t.pages(path, limit=limit, **params))

    def _job(self, answer: Answer) -> Job:
        return Job.model_validate(answer.data)


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
        body = _given(name=name, slug=slug, repository=repository, default_branch=default_branch)
        body |= _given(project_id=project_id, runtime=runtime, profile=profile)
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
        return self._job(self._t.delete(f"/v1/sites/{site_id}"))

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
        return Environment.model_validate(self._t.get(_env(site_id, env_id)).data)

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
        return self._job(self._t.delete(_env(site_id, env_id)))

    def update(self, site_id: str, env_id: str, **fields: Any) -> Environment:
        """`bake_seconds`, `host_labels`, `away`, `pinned`, `pin_reason`."""
        return Environment.model_validate(self._t.patch(_env(site_id, env_id), fields).data)

    def act(self, site_id: str, env_id: str, action: str, *, idempotency_key: str | None = None) -> Job:
        """`suspend`, `resume` or `restart`."""
        return self._job(self._t.post(f"{_env(site_id, env_id)}/{action}", idempotency_key=idempotency_key))

    def scale(self, site_id: str, env_id: str, instances: int, *, idempotency_key: str | None = None) -> Job:
        body = {"instances": instances}
        return self._job(self._t.post(f"{_env(site_id, env_id)}/scale", body, idempotency_key=idempotency_key))

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
        body = {"command": command, "timeout": timeout, **_given(input_id=input_id)}
        return self._job(self._t.post(f"{_env(site_id, env_id)}/run", body, idempotency_key=idempotency_key))

    def give_input(self, site_id: str, env_id: str, pieces: Iterable[bytes]) -> str:
        """What a command will find on its standard input: the id for `run`. One piece at a time is held in memory."""
        path, at, waiting = f"{_env(site_id, env_id)}/inputs", 0, iter(pieces)
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
        return Environment.model_validate(self._t.post(f"{_env(site_id, env_id)}/renew").data)

    def protect(self, site_id: str, env_id: str, password: str | None) -> Job:
        """Visitors are asked for this password; None: for none any more."""
        path = f"{_env(site_id, env_id)}/password"
        return self._job(self._t.delete(path) if password is None else self._t.put(path, {"password": password}))

    def protect_new(self, site_id: str, password: str | None) -> Json:
        """The same of each preview that is made from now on."""
        path = f"/v1/sites/{site_id}/preview-password"
        answer = self._t.delete(path) if password is None else self._t.put(path, {"password": password})
        return dict(answer.data)

    def drifts(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Drift]:
        return self._list(Drift, f"{_env(site_id, env_id)}/drifts", limit)


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
        body = _given(ref=ref) | ({"clean": True} if clean else {})
        return self._job(self._t.post(f"{_env(site_id, env_id)}/builds", body, idempotency_key=idempotency_key))

    def list(
        self, site_id: str, env_id: str, *, status: str | None = None, ref: str | None = None, limit: int | None = None
    ) -> Iterator[Build]:
        return self._list(Build, f"{_env(site_id, env_id)}/builds", limit, status=status, ref=ref)

    def get(self, site_id: str, env_id: str, build_id: str) -> Build:
        return Build.model_validate(self._t.get(f"{_env(site_id, env_id)}/builds/{build_id}").data)

    def plan(self, site_id: str, env_id: str, build_id: str) -> Json:
        """What it ran, and what decided so. Raises build.plan_not_found: it has not ended, or failed."""
        return dict(self._t.get(f"{_env(site_id, env_id)}/builds/{build_id}/plan").data)

    def log(self, site_id: str, env_id: str, build_id: str) -> str:
        return self._t.text(f"{_env(site_id, env_id)}/builds/{build_id}/log")

    def follow_log(self, site_id: str, env_id: str, build_id: str) -> Iterator[Json]:
        """Each line as `{ts, stream, stage, line}`, until the build has ended; reconnects where it was."""
        return Follower(self._t).lines(f"{_env(site_id, env_id)}/builds/{build_id}/log")


class Caches(Noun):
    def list(self, site_id: str, *, limit: int | None = None) -> Iterator[Cache]:
        return self._list(Cache, f"/v1/sites/{site_id}/caches", limit)

    def drop(self, site_id: str, env_id: str | None = None) -> Json:
        """All of a site's, or of one environment: `{dropped, size_bytes}`."""
        query = f"?env_id={quote(env_id, safe='')}" if env_id is not None else ""
        return dict(self._t.delete(f"/v1/sites/{site_id}/caches{query}").data)


class Artifacts(Noun):
    def list(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Artifact]:
        return self._list(Artifact, f"{_env(site_id, env_id)}/artifacts", limit)

    def get(self, site_id: str, env_id: str, artifact_id: str) -> Artifact:
        return Artifact.model_validate(self._t.get(f"{_env(site_id, env_id)}/artifacts/{artifact_id}").data)

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
        path = f"{_env(artifact.site_id, env_id)}/artifacts/{artifact.id}"
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
        path = f"{_env(site_id, env_id)}/deployments"
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
        body = _given(target=target, ref=ref, build_id=build_id, artifact_id=artifact_id)
        body |= {"clean": True} if clean else {}
        return self._job(self._t.post(f"/v1/sites/{site_id}/deployments", body, idempotency_key=idempotency_key))

    def list(
        self, site_id: str, env_id: str, *, status: str | None = None, limit: int | None = None
    ) -> Iterator[Deployment]:
        return self._list(Deployment, f"{_env(site_id, env_id)}/deployments", limit, status=status)

    def get(self, site_id: str, env_id: str, deployment_id: str) -> Deployment:
        return Deployment.model_validate(self._t.get(f"{_env(site_id, env_id)}/deployments/{deployment_id}").data)

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
        """Back to the release before that deployment, or to `release_id`; `keep_config`: to its code alone."""
        path = f"{_env(site_id, env_id)}/deployments/{deployment_id}/rollback"
        body = _given(release_id=release_id) | ({"keep_config": True} if keep_config else {})
        return self._job(self._t.post(path, body, idempotency_key=idempotency_key))

    def promote(self, site_id: str, env_id: str, *, to_env: str, idempotency_key: str | None = None) -> Job:
        """What runs on the environment goes onto `to_env` (an id, slug or kind) without a rebuild."""
        path = f"{_env(site_id, env_id)}/promote"
        return self._job(self._t.post(path, {"to_env": to_env}, idempotency_key=idempotency_key))


class Releases(Noun):
    def list(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Release]:
        return self._list(Release, f"{_env(site_id, env_id)}/releases", limit)

    def why(self, site_id: str, env_id: str, *, release_id: str | None = None) -> Json:
        """From the commit to the switch. Raises release.none where nothing runs yet."""
        return dict(self._t.get(f"{_env(site_id, env_id)}/why", **_given(release_id=release_id)).data)

    def record(self, site_id: str, env_id: str, release_id: str) -> bytes:
        """The signed record of a release, as a bundle. Raises ledger.entry_not_found until it is entered."""
        return self._t.raw(f"{_env(site_id, env_id)}/releases/{release_id}/record")

    def current(self, site_id: str, env_id: str) -> Release:
        """Raises release.none where nothing runs yet."""
        for release in self.list(site_id, env_id):
            if release.current:
                return release
        raise HeadwayError("release.none", "Nothing runs on that environment yet.")


class Ledger(Noun):
    """Hashes and signatures of all that was signed: what `adapters.ledger` checks."""

    def checkpoint(self) -> str:
        return self._t.raw("/v1/ledger/checkpoint").decode()

    def trusted_root(self) -> bytes:
        return self._t.raw("/v1/ledger/trusted_root.json")

    def keyring(self) -> bytes:
        return self._t.raw("/v1/ledger/keyring.json")

    def entries(self, *, start: int = 0, end: int, batch: int = 1000) -> Iterator[Json]:
        """Entries `start` up to `end`, in order; stops early where the server has fewer."""
        while start < end:
            size = min(batch, end - start)
            lines = self._t.raw(f"/v1/ledger/entries?start={start}&limit={size}").splitlines()
            yield from (json.loads(line) for line in lines)
            if len(lines) < size:
                return
            start += size


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


class Logs(Noun):
    """Lines of an environment's apps, oldest first. `wanted`: tail, release, instance, since."""

    def last(self, site_id: str, env_id: str, **wanted: Any) -> list[LogLine]:
        answer = self._t.get(f"{_env(site_id, env_id)}/logs", **wanted)
        return [LogLine.model_validate(row) for row in answer.data]

    def follow(self, site_id: str, env_id: str, **wanted: Any) -> Iterator[LogLine]:
        """The last lines, then each new one, until the environment is gone; resumed after a broken connection."""
        path = f"{_env(site_id, env_id)}/logs"
        if given := _given(**wanted):
            path += "?" + urlencode(given)
        return (LogLine.model_validate(row) for row in Follower(self._t).lines(path))


class Requests(Noun):
    """What visitors asked of an environment."""

    def metrics(self, site_id: str, env_id: str, *, minutes: int | None = None) -> Metrics:
        return Metrics.model_validate(self._t.get(f"{_env(site_id, env_id)}/metrics", minutes=minutes).data)

    def last(self, site_id: str, env_id: str, *, tail: int | None = None) -> list[RequestLog]:
        """The last requests, oldest first."""
        answer = self._t.get(f"{_env(site_id, env_id)}/request-logs", tail=tail)
        return [RequestLog.model_validate(row) for row in answer.data]


class Keys(Noun):
    def create(
        self, name: str, scopes: Sequence[str] | str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Key:
        """`scopes` are literal, or one name of a preset. Further fields: contract section 3.6."""
        body = {"name": name, "scopes": scopes if isinstance(scopes, str) else [*scopes], **_given(**fields)}
        return Key.model_validate(self._t.post("/v1/api-keys", body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Key]:
        return self._list(Key, "/v1/api-keys", limit)

    def get(self, key_id: str) -> Key:
        return Key.model_validate(self._t.get(f"/v1/api-keys/{key_id}").data)

    def roll(self, key_id: str, *, grace_period: str | None = None, idempotency_key: str | None = None) -> Key:
        body = _given(grace_period=grace_period)
        return Key.model_validate(
            self._t.post(f"/v1/api-keys/{key_id}/roll", body, idempotency_key=idempotency_key).data
        )

    def revoke(self, key_id: str) -> Json:
        return dict(self._t.delete(f"/v1/api-keys/{key_id}").data)


class Values(Noun):
    """Variables or secrets of an environment, or without `env_id` the site's defaults. A secret comes without value."""

    def __init__(self, transport: Transport, noun: str) -> None:
        super().__init__(transport)
        self._noun = noun

    def list(self, site_id: str, env_id: str | None = None, *, limit: int | None = None) -> Iterator[Value]:
        """What the next rollout takes: of an environment with the site's defaults that it does not replace."""
        return self._list(Value, self._path(site_id, env_id), limit)

    def versions(self, site_id: str, env_id: str | None, key: str, *, limit: int | None = None) -> Iterator[Value]:
        return self._list(Value, f"{self._path(site_id, env_id, key)}/versions", limit)

    def get(self, site_id: str, env_id: str | None, key: str) -> Value:
        return Value.model_validate(self._t.get(self._path(site_id, env_id, key)).data)

    def set(self, site_id: str, env_id: str | None, key: str, value: str) -> Value:
        """A new version, for the next rollout."""
        return Value.model_validate(self._t.put(self._path(site_id, env_id, key), {"value": value}).data)

    def unset(self, site_id: str, env_id: str | None, key: str) -> Json:
        return dict(self._t.delete(self._path(site_id, env_id, key)).data)

    def revoke(
        self, site_id: str, env_id: str | None, key: str, version_id: str, *, idempotency_key: str | None = None
    ) -> Value:
        """Destroy one version of a secret: no rollback goes back to it."""
        path = f"{self._path(site_id, env_id, key)}/revoke"
        answer = self._t.post(path, {"version_id": version_id}, idempotency_key=idempotency_key)
        return Value.model_validate(answer.data)

    def _path(self, site_id: str, env_id: str | None, key: str | None = None) -> str:
        base = f"/v1/sites/{site_id}" if env_id is None else _env(site_id, env_id)
        return f"{base}/{self._noun}" if key is None else f"{base}/{self._noun}/{quote(key, safe='')}"


class Hosts(Noun):
    """For the operator: serving machines and their keys."""

    def list(self, *, limit: int | None = None) -> Iterator[Host]:
        return self._list(Host, "/v1/hosts", limit)

    def get(self, host_id: str) -> Host:
        return Host.model_validate(self._t.get(f"/v1/hosts/{quote(host_id, safe='')}").data)

    def join(self, host_id: str, labels: Sequence[str] = (), *, idempotency_key: str | None = None) -> JoinedHost:
        """Let a machine in. The credential is shown here alone: empty where the key's first request had it."""
        body = {"id": host_id, "labels": list(labels)}
        return JoinedHost.model_validate(self._t.post("/v1/hosts", body, idempotency_key=idempotency_key).data)

    def renew(self, host_id: str, *, idempotency_key: str | None = None) -> JoinedHost:
        """A new credential; the one before ends."""
        path = f"/v1/hosts/{quote(host_id, safe='')}/credential"
        return JoinedHost.model_validate(self._t.post(path, idempotency_key=idempotency_key).data)

    def label(self, host_id: str, labels: Sequence[str]) -> Host:
        path = f"/v1/hosts/{quote(host_id, safe='')}/labels"
        return Host.model_validate(self._t.put(path, {"labels": list(labels)}).data)

    def accept(self, host_id: str, public_key: str, *, idempotency_key: str | None = None) -> Host:
        path = f"/v1/hosts/{quote(host_id, safe='')}/accept"
        return Host.model_validate(self._t.post(path, {"public_key": public_key}, idempotency_key=idempotency_key).data)

    def forget(self, host_id: str) -> Json:
        return dict(self._t.delete(f"/v1/hosts/{quote(host_id, safe='')}").data)


class Builders(Noun):
    """For the operator: building machines elsewhere."""

    def list(self, *, limit: int | None = None) -> Iterator[Builder]:
        return self._list(Builder, "/v1/builders", limit)

    def get(self, builder_id: str) -> Builder:
        return Builder.model_validate(self._t.get(f"/v1/builders/{quote(builder_id, safe='')}").data)

    def builds(self, builder_id: str, *, limit: int | None = None) -> Iterator[Build]:
        """What it has begun last, of all sites."""
        return self._list(Build, f"/v1/builders/{quote(builder_id, safe='')}/builds", limit)

    def add(self, builder_id: str, *, idempotency_key: str | None = None) -> AddedBuilder:
        """Let a machine build. The credential is shown here alone: empty where the key's first request had it."""
        answer = self._t.post("/v1/builders", {"id": builder_id}, idempotency_key=idempotency_key)
        return AddedBuilder.model_validate(answer.data)

    def renew(self, builder_id: str, *, idempotency_key: str | None = None) -> AddedBuilder:
        """A new credential; the one before ends."""
        path = f"/v1/builders/{quote(builder_id, safe='')}/credential"
        return AddedBuilder.model_validate(self._t.post(path, idempotency_key=idempotency_key).data)

    def remove(self, builder_id: str) -> Json:
        return dict(self._t.delete(f"/v1/builders/{quote(builder_id, safe='')}").data)


class Retention(Noun):
    """For the operator: collection of what nothing needs any more."""

    def run(self, *, dry_run: bool = False, idempotency_key: str | None = None) -> Job:
        return self._job(self._t.post("/v1/retention/runs", {"dry_run": dry_run}, idempotency_key=idempotency_key))

    def report(self) -> Json:
        return dict(self._t.get("/v1/retention").data)


class Integrity(Noun):
    """For the operator: whether the object store has what it should have."""

    def scrub(self, *, whole: bool = False, idempotency_key: str | None = None) -> Job:
        return self._job(self._t.post("/v1/integrity/scrubs", {"whole": whole}, idempotency_key=idempotency_key))

    def report(self) -> Json:
        return dict(self._t.get("/v1/integrity").data)

    def findings(self, *, limit: int | None = None) -> Iterator[Finding]:
        return self._list(Finding, "/v1/integrity/findings", limit)


class Teams(Noun):
    def create(self, name: str, *, idempotency_key: str | None = None, **fields: Any) -> Team:
        body = {"name": name, **_given(**fields)}
        return Team.model_validate(self._t.post("/v1/teams", body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Team]:
        return self._list(Team, "/v1/teams", limit)

    def get(self, team_id: str) -> Team:
        return Team.model_validate(self._t.get(f"/v1/teams/{team_id}").data)


class Members(Noun):
    def add(self, team_id: str, role: str, *, idempotency_key: str | None = None, **fields: Any) -> Member:
        """By `account_id` or `email`; the operator may name a new account with `email` and `name`."""
        body = {"role": role, **_given(**fields)}
        path = f"/v1/teams/{team_id}/members"
        return Member.model_validate(self._t.post(path, body, idempotency_key=idempotency_key).data)

    def list(self, team_id: str, *, limit: int | None = None) -> Iterator[Member]:
        return self._list(Member, f"/v1/teams/{team_id}/members", limit)

    def update(self, team_id: str, account_id: str, **fields: Any) -> Member:
        return Member.model_validate(self._t.patch(f"/v1/teams/{team_id}/members/{account_id}", fields).data)

    def remove(self, team_id: str, account_id: str) -> Json:
        return dict(self._t.delete(f"/v1/teams/{team_id}/members/{account_id}").data)


class Projects(Noun):
    def create(self, name: str, *, idempotency_key: str | None = None, **fields: Any) -> Project:
        body = {"name": name, **_given(**fields)}
        return Project.model_validate(self._t.post("/v1/projects", body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[Project]:
        return self._list(Project, "/v1/projects", limit)

    def get(self, project_id: str) -> Project:
        return Project.model_validate(self._t.get(f"/v1/projects/{project_id}").data)
