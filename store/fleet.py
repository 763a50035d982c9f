"""Which hosts serve an environment, which of them a rollout went to, and which have to catch up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import bindparam
from sqlmodel import Session, col, or_, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Environment, Release, Rollout, utcnow
from store.models_configuration import Host
from store.models_lifecycle import Drift

KIND: Final = "host"
# How long rows and hosts may tell different stories without either being wrong.
SETTLED: Final = timedelta(seconds=60)
BATCH: Final = 500
_OPEN: Final = select(Drift).where(
    Drift.env_id == bindparam("env_id"), Drift.kind == KIND, col(Drift.mended_at).is_(None)
)


def hosts_for(session: Session, environment: Environment) -> list[str]:
    """Where a rollout that is claimed now goes: the hosts that carry the environment's labels, or those it names."""
    if not environment.host_labels:
        return list(environment.hosts)
    known = session.exec(select(Host).where(Host.public_key != "").order_by(col(Host.id))).all()
    return [host.id for host in known if carries(host, environment)]


def carries(host: Host, environment: Environment) -> bool:
    return set(environment.host_labels) <= set(host.labels)


def choose_hosts(session: Session, environment: Environment, labels: Sequence[str]) -> None:
    """Rollouts go to every host with these labels from now on. Raises host.none_fits."""
    environment.host_labels = sorted(set(labels))
    if not hosts_for(session, environment):
        message = f"No host carries all of these labels: {', '.join(environment.host_labels)}."
        raise HeadwayError("host.none_fits", message, param="host_labels")
    session.add(environment)
    session.flush()
    for host in session.exec(select(Host).where(Host.public_key != "")).all():
        _expect(session, host, environment)


def hosts_of(session: Session, rollout: Rollout) -> list[str]:
    """The hosts that a claimed rollout goes to."""
    if rollout.hosts is not None:
        return rollout.hosts
    environment = session.get(Environment, rollout.env_id)
    return list(environment.hosts) if environment is not None else []


def require_part(session: Session, rollout: Rollout, host_id: str) -> None:
    """Raises deployment.not_found for a host that has no part in a rollout."""
    environment = session.get(Environment, rollout.env_id)
    on_it = environment.hosts if environment is not None else []
    if host_id not in hosts_of(session, rollout) and host_id not in on_it:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout.id} for the host {host_id}.")


def serves(session: Session, env_id: str, host_id: str) -> bool:
    """Whether an environment is on a host, or on its way there."""
    environment = session.get(Environment, env_id)
    if environment is None:
        return False
    running = select(Rollout).where(Rollout.env_id == env_id, Rollout.status == "running")
    return host_id in environment.hosts or any(host_id in hosts_of(session, one) for one in session.exec(running))


def leftovers(session: Session, host_id: str, env_ids: Collection[str]) -> list[str]:
    """Which of the environments on a host's disk have no business there. Of what no row knows nothing is said."""
    rows = session.exec(select(Environment).where(col(Environment.id).in_(env_ids))).all()
    return sorted(
        row.id for row in rows if row.deleted_at is not None or (row.hosts and not serves(session, row.id, host_id))
    )


def deleted_for(session: Session, env_ids: Sequence[str]) -> dict[str, float]:
    """Of the environments that are deleted, for how many seconds they have been."""
    found = dict[str, float]()
    for start in range(0, len(env_ids), BATCH):
        some = col(Environment.id).in_(env_ids[start : start + BATCH])
        gone = select(Environment).where(some, col(Environment.deleted_at).is_not(None))
        for row in session.exec(gone):
            found[row.id] = (utcnow() - row.deleted_at).total_seconds() if row.deleted_at is not None else 0.0
    return found


def serves_otherwise(session: Session, host_id: str, live: Mapping[str, int]) -> list[str]:
    """Environments of which a host serves another number than the current release's, none of their work being open.

    What was released just now may have been told too early, and is left to the next time.
    """
    settled = utcnow() - SETTLED
    current = (
        select(Environment, Release.seq)
        .join(Release, col(Release.id) == col(Environment.active_release_id))
        .where(Environment.status == "active", col(Release.deployed_at) < settled)
    )
    wrong = [env.id for env, seq in session.exec(current) if host_id in env.hosts and live.get(env.id, 0) != seq]
    busy = select(Rollout.env_id).where(
        col(Rollout.env_id).in_(wrong),
        or_(col(Rollout.status).in_(("queued", "running")), col(Rollout.finished_at) > settled),
    )
    return sorted(set(wrong) - set(session.exec(busy).all())) if wrong else []


def note_otherwise(session: Session, host_id: str, live: Mapping[str, int], env_ids: Iterable[str]) -> None:
    """What a host serves is brought to what the rows say by a rollout, in each environment's order."""
    for env_id in serves_otherwise(session, host_id, live):
        if env_id not in env_ids or any(drift.host_id == host_id for drift in _open(session, env_id)):
            continue
        environment = session.get_one(Environment, env_id)
        drift = _drift(env_id, environment.site_id, host_id)
        drift.seq, drift.what = live.get(env_id, 0), "it serves another release than the current one"
        # It speaks just now: there is nothing to wait for.
        drift.found_at = session.get_one(Host, host_id).last_seen_at
        session.add(drift)


def settle_hosts(session: Session, rollout: Rollout, away: Sequence[str]) -> None:
    """A rollout is live: on these hosts the environment is from now on. Who was away is to catch up, the rest have."""
    environment = session.get_one(Environment, rollout.env_id, with_for_update=True)
    # One that was forgotten meanwhile does not come back with the rollout that was on its way there.
    there = [
        one for one in hosts_of(session, rollout) if one in environment.hosts or session.get(Host, one) is not None
    ]
    environment.hosts = there or environment.hosts
    away = [one for one in away if one in there]
    rollout.hosts_away = sorted(away) or None
    session.add(environment)
    session.add(rollout)
    for drift in _open(session, rollout.env_id):
        if drift.host_id not in away:
            drift.mended_at = utcnow()
            session.add(drift)
    note_away(session, rollout, away, "it was away when this release was switched to")


def note_away(session: Session, rollout: Rollout, away: Sequence[str], what: str) -> None:
    """These hosts may serve something else than the environment's release: they catch up once they are seen again."""
    known = {drift.host_id: drift for drift in _open(session, rollout.env_id)} if away else {}
    for host_id in away:
        drift = known.get(host_id) or _drift(rollout.env_id, rollout.site_id, host_id)
        drift.seq, drift.what, drift.found_at, drift.job_id = rollout.apply_seq or 0, what, utcnow(), None
        session.add(drift)


def expect_host(session: Session, host: Host) -> None:
    """A host registers, or has other labels: what it should serve by them comes to it by a rollout of its own."""
    labelled = select(Environment).where(col(Environment.deleted_at).is_(None), Environment.active_release_id != None)  # noqa: E711
    for environment in session.exec(labelled).all():
        if environment.host_labels:
            _expect(session, host, environment)


def _expect(session: Session, host: Host, environment: Environment) -> None:
    if environment.active_release_id is None or host.id in environment.hosts or not carries(host, environment):
        return
    if any(drift.host_id == host.id for drift in _open(session, environment.id)):
        return
    drift = _drift(environment.id, environment.site_id, host.id)
    release = session.get(Release, environment.active_release_id)
    drift.seq, drift.what, drift.found_at = release.seq if release else 0, "it is new here", host.last_seen_at
    session.add(drift)


def may_catch_up(session: Session, env_id: str) -> bool:
    """Whether a host that has to catch up was seen since that is known."""
    return any(
        host is not None and host.last_seen_at >= drift.found_at
        for drift, host in ((one, session.get(Host, one.host_id)) for one in _open(session, env_id))
    )


def _open(session: Session, env_id: str) -> Sequence[Drift]:
    return session.exec(_OPEN, params={"env_id": env_id}).all()


def _drift(env_id: str, site_id: str, host_id: str) -> Drift:
    return Drift(
        id=new_id("drift"),
        site_id=site_id,
        env_id=env_id,
        host_id=host_id,
        kind=KIND,
        seq=0,
        what="",
        found_at=utcnow(),
    )
