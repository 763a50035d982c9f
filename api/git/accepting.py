"""One pushed branch: judged, kept, and its work accepted in one transaction. It runs in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlmodel import Session

from adapters.githost.repositories import Repositories
from api.auth import Caller
from api.conversation import Conversation
from api.git.commands import Command, Options, shown
from api.git.parts import GitParts
from api.managed.rows import environment_row
from api.parts import Parts
from headway.errors import HeadwayError
from headway.toml import parse_toml
from store import pushes
from store.branch_routes import IGNORE, Route, read_routes, routes_of, target_of
from store.hostnames import hostnames_of
from store.labels import labels_of_job
from store.models import Environment, Job, Site
from store.models_pushes import Push
from store.pushes import AcceptedPush, BranchPush
from temporal.messages import Labels

SCOPE: Final = "deployments:write"
FILE: Final = "headway.toml"
MOST: Final = 256 << 10


@dataclass(frozen=True)
class Started:
    """What was accepted, with what it takes to start it and to tell of it."""

    accepted: AcceptedPush
    target: str
    url: str | None
    starts: tuple[tuple[Job, Labels], ...]
    displaced: Push | None = None


@dataclass(frozen=True)
class Accepting:
    parts: Parts
    git: GitParts
    caller: Caller
    site: Site

    @property
    def repositories(self) -> Repositories:
        return self.git.backend.repositories

    def accept(self, command: Command, options: Options) -> Started:
        """Raises every reason for which a branch is not taken: nothing has changed then but a kept commit."""
        branch = command.branch
        self._judge_seen(command, branch)
        displaced = None
        if command.new is not None:
            displaced = self._judge(command, branch, command.new)
            self.repositories.keep(self.site.id, command.new)
        routes = self._routes(branch, command.new)
        target = IGNORE if options.skip else target_of(routes, branch)
        pushed = BranchPush(branch, command.old, command.new, target, options.env, options.clean)

        def work(session: Session) -> Started:
            site = session.get_one(Site, self.site.id)
            if site.status not in ("active", "provisioning"):
                raise HeadwayError("environment.not_active", f"The site {site.slug} is {site.status}.")
            accepted = pushes.accept(
                session,
                site,
                pushed,
                self.caller.actor,
                self.parts.addresses.domain,
                self.caller.sight,
                self._allow,
                self.parts.previews,
            )
            return replace(self._started(session, site, accepted, target), displaced=displaced)

        return Conversation.write_now(self.parts, work)

    def _allow(self, environment: Environment | None) -> None:
        env_id = environment.id if environment is not None else None
        self.caller.require_change(SCOPE, site_id=self.site.id, env_id=env_id)

    def _judge(self, command: Command, branch: str, new: str) -> Push | None:
        if not self.repositories.is_commit(self.site.id, new):
            raise HeadwayError("ref.invalid", "A branch leads to a commit.")
        if (other := self.repositories.in_the_way(self.site.id, branch)) is not None:
            raise HeadwayError("ref.invalid", f"The branch {other} is in the way of that name.")
        return self._judge_in_flight(command, branch, new)

    def _judge_seen(self, command: Command, branch: str) -> None:
        """What moved the branch since the pusher asked for it is not undone unseen, as git itself would have it.

        A key's own earlier push may have ended meanwhile: that is what it was pushed over.
        """
        now = self.repositories.branch_now(self.site.id, branch)
        if now in (None, command.old, command.new):
            return
        if command.new is not None and self.repositories.is_ancestor(self.site.id, now or "", command.new):
            return
        with self.parts.store.read() as session:
            mover = pushes.mover(session, self.site.id, branch, now or "")
        if mover != self.caller.key_id:
            message = f"{shown(branch)} is at {(now or '')[:12]} by now, which you have not seen."
            raise HeadwayError("push.stale", message)

    def _judge_in_flight(self, command: Command, branch: str, new: str) -> Push | None:
        """What this takes the place of. A pusher cannot see what is still being deployed: who did not force his own
        must not undo another's, and who undoes his own is told.
        """
        with self.parts.store.read() as session:
            before, others = pushes.in_flight(session, self.site.id, branch, self.caller.key_id)
        if before is None or before.new_sha is None:
            return None
        contains, forced = self.repositories.is_ancestor, command.old
        if contains(self.site.id, before.new_sha, new):
            return None
        if not others or (forced is not None and not contains(self.site.id, forced, new)):
            return before
        raise HeadwayError(
            "push.in_flight", f"{before.new_sha[:12]} is being deployed by {before.job_id}, and yours does not have it."
        )

    def _routes(self, branch: str, commit: str | None) -> Sequence[Route]:
        """The site's, or headway.toml's on its default branch: no other branch may route itself to production."""
        site = self.site
        if not site.routes_from_repository:
            return routes_of(site)
        at = commit if branch == site.default_branch else self.repositories.tip(site.id, site.default_branch)
        raw = self.repositories.read(site.id, at, FILE, MOST) if at is not None else None
        try:
            given = parse_toml(raw.decode()).get("routes") if raw is not None else None
        except (ValueError, RecursionError):
            raise HeadwayError("build.config_invalid", f"{FILE} of {site.default_branch} is not TOML.") from None
        if given is None:
            return routes_of(site)
        if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
            raise HeadwayError("build.config_invalid", f"{FILE}: routes is a list of tables.")
        try:
            return read_routes(given)
        except HeadwayError as error:
            raise HeadwayError("build.config_invalid", f"{FILE}: {error.param}: {error.message}") from None

    def _started(self, session: Session, site: Site, accepted: AcceptedPush, target: str) -> Started:
        session.flush()
        new = (accepted.making, None if accepted.attached else accepted.job)
        jobs = [job for job in new if job is not None]
        url = None
        if (environment := accepted.environment) is not None:
            names = hostnames_of(session, [environment.id])[environment.id]
            row = environment_row(environment, site, names, self.parts.addresses)
            url = row["preview_url"] or row["url"]
        return Started(accepted, target, url, tuple((job, labels_of_job(session, job)) for job in jobs))
