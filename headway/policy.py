"""What may go live where, and when: a policy as a document, and the judgement of one rollout by it. Pure.

A rule either refuses for good (who built it, from where, who asks) or holds for now (approvals, freezes, a pin): what
is held waits outside of the queue, and goes on by itself when the reason is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from headway.errors import HeadwayError

Json = dict[str, Any]
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# What brings other code onto an environment. A restart, a scale or a repair goes on with what was allowed before.
JUDGED: Final = ("deploy", "promote", "rollback")
Pattern = Annotated[str, Field(min_length=1, max_length=500)]
Name = Annotated[
    str, Field(min_length=1, max_length=320), AfterValidator(lambda name: name.lower() if "@" in name else name)
]
Names = Annotated[list[Name], Field(max_length=50)]
Patterns = Annotated[list[Pattern], Field(max_length=50)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Approvals(_Part):
    """`needed` of these accounts, each once, however many keys it has."""

    needed: int = Field(ge=1, le=10)
    accounts: Names = Field(description="Accounts by id or e-mail address.")
    author: bool = Field(default=False, description="Whether who asked for the build or the rollout may approve it.")
    expire_after: int = Field(default=86_400, ge=60, le=31_536_000, description="Seconds for which an approval counts.")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if len(set(self.accounts)) < self.needed:
            raise ValueError(f"{self.needed} approvals need at least {self.needed} different accounts")
        return self


class Freeze(_Part):
    """Nothing new goes live between two moments."""

    start: AwareDatetime
    end: AwareDatetime
    reason: str = Field(default="", max_length=500)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a freeze ends after it has started")
        try:
            self.end.astimezone(UTC)
        except OverflowError:
            raise ValueError("a freeze ends in the year 9999 at last, in UTC") from None
        return self

    def until(self, now: datetime) -> datetime | None:
        """When it ends, if it is on."""
        return self.end.astimezone(UTC) if self.start <= now < self.end else None


class WeeklyFreeze(_Part):
    """Nothing new goes live between two hours of these days, in a time zone. `end` may be 24:00."""

    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1, max_length=7)]
    start: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    end: str = Field(default="24:00", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")
    zone: str = Field(default="UTC", max_length=64)
    reason: str = Field(default="", max_length=500)

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {zone!r} on this machine") from None
        return zone

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a freeze ends after it has started: give two for one that spans midnight")
        return self

    def until(self, now: datetime) -> datetime | None:
        local = now.astimezone(ZoneInfo(self.zone))
        if DAYS[local.weekday()] not in self.days or not self.start <= local.strftime("%H:%M") < self.end:
            return None
        day = local.date() + timedelta(days=self.end == "24:00")
        hour = "00:00" if self.end == "24:00" else self.end
        return datetime.combine(day, time.fromisoformat(hour), ZoneInfo(self.zone)).astimezone(UTC)


class PolicyDocument(_Part):
    """A rule that is left out allows everything; an empty document is no policy."""

    builders: Patterns | None = Field(default=None, description="Builder ids that the provenance may name.")
    repositories: Patterns | None = Field(default=None, description="Patterns of the source's address.")
    refs: Patterns | None = Field(default=None, description="Patterns of the branch, or of `refs/tags/…`.")
    promote_from: Names | None = Field(
        default=None, description="Environments (slug or kind) whose promote is allowed whatever the ref."
    )
    minimum_release: str | None = Field(
        default=None, max_length=40, description="No artifact that is older than this release's."
    )
    actors: Names | None = Field(
        default=None, description="Who may ask: accounts by id or e-mail address, keys by id, or a kind of actor."
    )
    approvals: Approvals | None = None
    freezes: Annotated[list[Freeze], Field(max_length=50)] = []
    weekly_freezes: Annotated[list[WeeklyFreeze], Field(max_length=50)] = []
    break_glass: Names | None = Field(
        default=None, description="Accounts that may let a held rollout through; owners and admins if left out."
    )
    hold_rollbacks: bool = Field(default=False, description="Whether approvals and freezes hold rollbacks too.")

    def canonical(self) -> Json:
        """As it is stored: what was given, and nothing else."""
        return self.model_dump(mode="json", exclude_defaults=True)


def parse_policy(raw: Json) -> PolicyDocument:
    """Raises policy.invalid, with the field to blame."""
    try:
        return PolicyDocument.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or None
        text = str(first["msg"]).removeprefix("Value error, ")
        raise HeadwayError("policy.invalid", f"{where or 'The policy'}: {text}.", param=where) from None


def digest_of(document: Json) -> str:
    """The hex SHA-256 of a stored document: what a decision names."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Provenance:
    """What the signed statement of a build says."""

    builder: str
    repository: str
    ref: str


@dataclass(frozen=True)
class Given:
    """An approval, resolved to the names of who gave it."""

    account_id: str
    names: frozenset[str]
    at: datetime


@dataclass(frozen=True)
class Facts:
    """One rollout as the rows and the ledger tell it. `origin` names the environment that it was promoted from."""

    kind: str
    provenance: Sequence[Provenance]
    origin: frozenset[str]
    built_at: datetime
    actor: frozenset[str]
    authors: frozenset[str]
    approvals: Sequence[Given] = ()
    pinned: str | None = None


@dataclass(frozen=True)
class Ruled:
    """One policy with what it refers to, resolved. `oldest` is when the minimum release's artifact was made."""

    id: str
    document: PolicyDocument
    oldest: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """Why not, or not now. `until` where the clock alone ends it."""

    rule: str
    message: str
    policy_id: str | None = None
    until: datetime | None = None
    needed: int | None = None
    given: int | None = None

    def as_dict(self) -> Json:
        shown: Json = {"rule": self.rule, "message": self.message}
        if self.until is not None:
            shown["until"] = self.until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rest = {"policy_id": self.policy_id, "needed": self.needed, "given": self.given}
        return shown | {name: value for name, value in rest.items() if value is not None}


@dataclass(frozen=True)
class Verdict:
    """Refused for good, held for now, or neither."""

    refused: tuple[Finding, ...] = ()
    held: tuple[Finding, ...] = ()
    approved_by: tuple[str, ...] = field(default=())


def judge(policies: Sequence[Ruled], facts: Facts, now: datetime) -> Verdict:
    """By all of these policies together: each may only narrow."""
    refused = [found for policy in policies for found in _refusals(policy, facts)]
    held = [found for policy in policies for found in _holds(policy, facts, now)]
    if facts.pinned is not None and facts.kind != "rollback":
        held.append(Finding("pin", f"The environment is pinned{_because(facts.pinned)}."))
    counted = {one for policy in policies for one in _counted(policy.document.approvals, facts, now)}
    return Verdict(tuple(refused), tuple(held), tuple(sorted(counted)))


def _refusals(policy: Ruled, facts: Facts) -> Iterator[Finding]:
    rules = policy.document
    promoted = bool(facts.origin & set(rules.promote_from or ()))
    # The same bytes may have been built more than once: one whole record has to do, not parts of several.
    found = [list(_of_source(policy, one, promoted)) for one in facts.provenance]
    if not found and (rules.builders is not None or rules.repositories is not None or rules.refs is not None):
        yield Finding("builders", "There is no record of a build of this artifact.", policy.id)
    yield from min(found, key=len, default=[])
    if rules.refs is None and rules.promote_from is not None and not promoted:
        message = f"Only a promote from {' or '.join(rules.promote_from)} may go there."
        yield Finding("promote_from", message, policy.id)
    if policy.oldest is not None and facts.built_at < policy.oldest:
        message = f"The artifact is older than that of the minimum release {rules.minimum_release}."
        yield Finding("minimum_release", message, policy.id)
    if rules.actors is not None and not facts.actor & set(rules.actors):
        yield Finding("actors", "Who asked is not among those who may.", policy.id)


def _of_source(policy: Ruled, given: Provenance, promoted: bool) -> Iterator[Finding]:
    rules = policy.document
    for rule, patterns, what, value in (
        ("builders", rules.builders, "The builder", given.builder),
        ("repositories", rules.repositories, "The repository", given.repository),
        ("refs", None if promoted else rules.refs, "The ref", short(given.ref)),
    ):
        if patterns is not None and not any(fnmatchcase(value, pattern) for pattern in patterns):
            otherwise = f", and it is no promote from {' or '.join(rules.promote_from)}" if rules.promote_from else ""
            message = f"{what} {value} is not among {', '.join(patterns)}{otherwise if rule == 'refs' else ''}."
            yield Finding(rule, message, policy.id)


def _holds(policy: Ruled, facts: Facts, now: datetime) -> Iterator[Finding]:
    rules = policy.document
    if facts.kind == "rollback" and not rules.hold_rollbacks:
        return
    freezes: list[Freeze | WeeklyFreeze] = [*rules.freezes, *rules.weekly_freezes]
    for freeze in freezes:
        if (until := freeze.until(now)) is not None:
            moment = until.strftime("%Y-%m-%dT%H:%M:%SZ")
            yield Finding("freeze", f"Frozen until {moment}{_because(freeze.reason)}.", policy.id, until)
    if rules.approvals is not None:
        needed, given = rules.approvals.needed, len(_counted(rules.approvals, facts, now))
        if given < needed:
            message = f"It has {given} of {needed} approvals by {', '.join(rules.approvals.accounts)}."
            yield Finding("approvals", message, policy.id, needed=needed, given=given)


def _counted(rule: Approvals | None, facts: Facts, now: datetime) -> set[str]:
    """The accounts whose approvals count."""
    if rule is None:
        return set()
    return {
        one.account_id
        for one in facts.approvals
        if one.names & set(rule.accounts)
        and one.at + timedelta(seconds=rule.expire_after) > now
        and (rule.author or one.account_id not in facts.authors)
    }


def short(ref: str) -> str:
    """A branch by its name; a tag keeps its full name, so that no tag is taken for a branch."""
    return ref.removeprefix("refs/heads/")


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
