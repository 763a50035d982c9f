"""What a rollout brings beside its code: the configuration frozen when it is claimed, by name and version id.

The moment is the claim, not the acceptance: then the numbers of an environment's rollouts and of its configurations
have one order, and a build that took an hour does not bring back what was changed in that hour. From the claim on it
is fixed: every host, every retry and every later rollback gets the same versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import bindparam, func
from sqlmodel import Session, and_, col, or_, select

from headway.errors import HeadwayError
from store.config_values import Owner, effective_values
from store.fleet import require_part
from store.models import Environment, Release, Rollout
from store.models_configuration import ConfigEntry, ConfigValue

Json = dict[str, Any]
# Kinds that bring the configuration of the release they go back to, or go on with.
KEEPS = ("rollback", "scale", "suspend", "resume", "repair")
_ENTRIES = (
    select(ConfigEntry, ConfigValue)
    .join(ConfigValue, col(ConfigValue.id) == col(ConfigEntry.value_id))
    .order_by(col(ConfigValue.name))
)
# On the path of every rollout: built once.
_OF_ONE: Final = _ENTRIES.where(
    ConfigEntry.env_id == bindparam("env_id"), ConfigEntry.config_version == bindparam("config_version")
)


@dataclass(frozen=True)
class Frozen:
    """A configuration: its values by name. `replaced`: what was withdrawn, and what was taken instead."""

    values: Sequence[ConfigValue] = ()
    replaced: list[Json] = field(default_factory=list)


def freeze(session: Session, rollout: Rollout) -> None:
    """Give a rollout its configuration; the environment's row is locked. See `KEEPS` for whose it is."""
    target = None
    if rollout.kind in KEEPS and not rollout.keep_config and rollout.source_release_id is not None:
        target = session.get(Release, rollout.source_release_id)
    if target is None:
        _take(session, rollout, Frozen(effective_values(session, Owner(rollout.site_id, rollout.env_id))))
    else:
        rollout.config_version = target.config_version
        thaw(session, rollout)


def thaw(session: Session, rollout: Rollout) -> None:
    """Replace what has been withdrawn from a rollout's configuration by the newest. Where nothing was, nothing changes.

    The environment's row is locked, or the rollout is being claimed.
    """
    values = values_of(session, rollout.env_id, rollout.config_version)
    if any(withdrawn(value) for value in values):
        _take(session, rollout, without_withdrawn(session, rollout, values))


def without_withdrawn(session: Session, rollout: Rollout, values: Sequence[ConfigValue]) -> Frozen:
    """The newest in place of what was withdrawn; a name of which there is no newest is left out."""
    newest = {row.name: row for row in effective_values(session, Owner(rollout.site_id, rollout.env_id))}
    kept = [value for value in values if not withdrawn(value)]
    replaced = []
    for value in values:
        if not withdrawn(value):
            continue
        instead = newest.get(value.name)
        replaced.append(
            {"name": value.name, "revoked": value.id, "version_id": instead.id if instead is not None else None}
        )
        if instead is not None:
            kept.append(instead)
    return Frozen(sorted(kept, key=lambda value: value.name), replaced)


def withdrawn(value: ConfigValue) -> bool:
    return value.ciphertext is None


def values_of(session: Session, env_id: str, config_version: int) -> Sequence[ConfigValue]:
    """One configuration's values, by name."""
    if config_version == 0:
        return []
    rows = session.exec(_OF_ONE, params={"env_id": env_id, "config_version": config_version})
    return [value for _, value in rows]


def configurations(session: Session, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Sequence[ConfigValue]]:
    """The values of several `(env_id, config_version)`, by name, in one question."""
    found: dict[tuple[str, int], list[ConfigValue]] = {key: [] for key in wanted}
    env, number = col(ConfigEntry.env_id), col(ConfigEntry.config_version)
    # Pair by pair: SQLite answers a list of pairs by reading the whole table.
    asked = [and_(env == env_id, number == version) for env_id, version in found if version]
    if asked:
        for entry, value in session.exec(_ENTRIES.where(or_(*asked))):
            found[entry.env_id, entry.config_version].append(value)
    return dict(found)


@dataclass(frozen=True)
class ToSeal:
    """What a host gets for a rollout. `stale`: the rollout's own record has to be put right first (`thaw`)."""

    rollout: Rollout
    values: Sequence[ConfigValue]
    stale: bool = False


def to_seal(session: Session, rollout_id: str, host_id: str) -> ToSeal:
    """For a rollout that is carried out now, or whose release is what runs: a host may come back with nothing.

    Raises deployment.not_found (also for a host that has no part in it) and attempt.stale.
    """
    rollout = session.get(Rollout, rollout_id)
    environment = session.get(Environment, rollout.env_id) if rollout is not None else None
    if rollout is None or environment is None:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout_id} for the host {host_id}.")
    require_part(session, rollout, host_id)
    running = rollout.status == "running" and rollout.apply_seq is not None
    release = session.get(Release, rollout.release_id) if rollout.release_id else None
    if not running and (release is None or not release.current):
        raise HeadwayError(
            "attempt.stale", f"The deployment {rollout_id} is {rollout.status}, and its release is over."
        )
    values = values_of(session, rollout.env_id, rollout.config_version)
    if not any(withdrawn(value) for value in values):
        return ToSeal(rollout, values)
    return ToSeal(rollout, without_withdrawn(session, rollout, values).values, stale=running)


def thaw_running(session: Session, rollout_id: str) -> None:
    """As `thaw`, for a rollout that was claimed before something of its configuration was withdrawn."""
    rollout = session.get(Rollout, rollout_id)
    if rollout is None or session.get(Environment, rollout.env_id, with_for_update=True) is None:
        return
    session.refresh(rollout, with_for_update=True)
    if rollout.status == "running":
        thaw(session, rollout)


def _take(session: Session, rollout: Rollout, frozen: Frozen) -> None:
    rollout.config_version = _number_of(session, rollout.env_id, frozen.values)
    rollout.config_replaced = [*(rollout.config_replaced or []), *frozen.replaced] or None


def _number_of(session: Session, env_id: str, values: Sequence[ConfigValue]) -> int:
    """The number of a configuration: the newest one's where that is the same, else the next; 0 is the empty one."""
    if not values:
        return 0
    newest = session.exec(select(func.max(ConfigEntry.config_version)).where(ConfigEntry.env_id == env_id)).one() or 0
    wanted = {value.id for value in values}
    held = select(ConfigEntry.value_id).where(ConfigEntry.env_id == env_id, ConfigEntry.config_version == newest)
    if newest and set(session.exec(held).all()) == wanted:
        return newest
    session.add_all(ConfigEntry(env_id=env_id, config_version=newest + 1, value_id=one) for one in sorted(wanted))
    session.flush()
    return newest + 1
