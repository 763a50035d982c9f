"""Reports to forges: one try each, and the watch that starts what nobody looks after. Role `control`.

A job has ended, or goes on, whatever becomes of its reports. No token leaves this process but to its forge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlmodel import Session
from temporalio import activity
from temporalio.client import Client

from activities.outbox import Due, Outbox
from adapters.forges.forge import Forge, ForgeAway, ForgeRefused, Status
from adapters.forges.places import open_forge
from adapters.webhooks.targets import Targets
from headway.errors import HeadwayError
from headway.reporting import comment, description, mark, target_url
from store import reports
from store.config_values import Opens
from store.deliveries import Pace, Try
from store.forge_links import token_of
from store.models import Environment, Site, utcnow
from store.models_reports import ForgeReport
from store.reports import COMMENT, STATUS, Outcome, Sending
from store.session import Store
from temporal import names
from temporal.failures import mapped
from temporal.messages import Labels, Reported, ReportRef

BOUND = 60.0
ABSENT = "no pull request is open for this branch yet"
Opener = Callable[..., Forge]


class Reports(Outbox):
    """`api_url` is how a visitor of the forge reaches a job."""

    def __init__(
        self,
        store: Store,
        client: Client,
        vault: Opens,
        targets: Targets,
        api_url: str,
        pace: Pace | None = None,
        *,
        seconds: float = 10.0,
        opener: Opener = open_forge,
    ) -> None:
        self.store = store
        self.client = client
        self.vault = vault
        self.targets = targets
        self.api_url = api_url
        self.pace = pace or Pace()
        self.seconds = seconds
        self.opener = opener

    @activity.defn(name="forge.report")
    @mapped
    async def report(self, ref: ReportRef) -> Reported:
        sending = await self.rows(self._next, ref.report_id)
        if sending is None:
            return Reported(ref.report_id)
        at, began = utcnow(), time.monotonic()
        try:
            async with asyncio.timeout(BOUND):
                absent = not await self._say(sending)
            outcome = Outcome(_try(at, began, error=ABSENT if absent else None), absent=absent)
        except ForgeRefused as refusal:
            outcome = Outcome(_try(at, began, refusal.status, str(refusal)), final=True)
        except ForgeAway as away:
            outcome = Outcome(_try(at, began, away.status, str(away)), away.wait)
        except HeadwayError as error:
            outcome = Outcome(_try(at, began, error=error.message), final=True)
        except Exception as error:
            outcome = Outcome(_try(at, began, error=f"could not be told: {type(error).__name__}"))
        wait = await self.rows(self._keep, sending, outcome)
        return Reported(ref.report_id, sending.number, wait)

    def _next(self, report_id: str) -> Sending | None:
        return self.store.in_write(lambda session: reports.to_send(session, report_id))

    def _keep(self, sending: Sending, outcome: Outcome) -> float | None:
        id, rev = sending.report.id, sending.report.rev
        return self.store.in_write(lambda session: reports.keep_outcome(session, id, rev, outcome, self.pace))

    async def _say(self, sending: Sending) -> bool:
        """Whether there was something to say it about."""
        link, report = sending.link, sending.report
        forge = self.opener(
            self.targets,
            link.provider,
            link.api_url,
            link.repository,
            token_of(self.vault, link),
            seconds=self.seconds,
        )
        if report.kind == COMMENT:
            return await self._comment(forge, report)
        if report.kind != STATUS:
            await forge.check()
            return True
        wanted = report.wanted
        status = Status(
            wanted["commit"], wanted["context"], wanted["state"], description(wanted), target_url(wanted, self.api_url)
        )
        await forge.set_status(status, again=sending.again)
        return True

    async def _comment(self, forge: Forge, report: ForgeReport) -> bool:
        """One on each open pull request of the branch, and on those that had one already."""
        body = comment(report.wanted, report.site_id, self.api_url)
        pulls = list(dict.fromkeys([*await forge.pulls_of(report.subject), *report.comments]))
        for pull in pulls:
            await self._comment_on(forge, report, pull, body)
        return bool(pulls)

    async def _comment_on(self, forge: Forge, report: ForgeReport, pull: str, body: str) -> None:
        """Changed where it is known, found by its mark where it is not, made where there is none: never two."""
        known = report.comments.get(pull)
        if known is not None:
            if await forge.change_comment(pull, known, body):
                return
            await self._write(reports.forget_comment, report.id, pull, known)
        for found in await forge.comments_with(pull, mark(report.site_id)):
            if await forge.change_comment(pull, found, body):
                await self._write(reports.keep_comment, report.id, pull, found)
                return
        made = await forge.add_comment(pull, body)
        if await self._write(reports.keep_comment, report.id, pull, made) != made:
            await forge.delete_comment(pull, made)

    async def _write(self, work: Callable[..., str | None], *args: str) -> str | None:
        return await self.rows(self.store.in_write, lambda session: work(session, *args))

    def take(self) -> Sequence[Due]:
        with self.store.read() as session:
            if not reports.any_due(session, utcnow()):
                return []

        def take(session: Session) -> list[Due]:
            return [_due(row, _labels(session, row)) for row in reports.take_due(session, utcnow())]

        return self.store.in_write(take)

    def put_back(self, id: str) -> None:
        self.store.in_write(lambda session: reports.put_back(session, id, utcnow()))


def _try(at: datetime, began: float, status: int | None = None, error: str | None = None) -> Try:
    return Try(at, round((time.monotonic() - began) * 1000), status, error)


def _labels(session: Session, row: ForgeReport) -> Labels:
    site, environment = session.get(Site, row.site_id), session.get(Environment, row.env_id or "")
    return Labels(
        site=site.slug if site else "",
        environment=environment.slug if environment else "",
        job_type="forge.report",
        commit=str(row.wanted.get("commit", "")),
    )


def _due(row: ForgeReport, labels: Labels) -> Due:
    what = " ".join(filter(None, (row.kind, labels.site, labels.environment)))
    return Due(
        row.id,
        names.REPORT,
        names.report_workflow(row.id),
        ReportRef(row.id),
        f"tell the forge: {what}",
        names.NEWS,
        labels,
    )
