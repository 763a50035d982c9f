"""Variables and secrets of environments, and their defaults on sites: each set makes a version that never changes.

An owner is an environment (its own values) or a site (defaults for all its environments). A name is one or the other
of variable and secret per owner. The value is hidden before it becomes a row, and no digest of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, bindparam, delete, exists, func
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, or_, select, update

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Environment, Release, Site, utcnow
from store.models_configuration import ConfigEntry, ConfigValue
from store.paging import Page, fetch_page

Json = dict[str, Any]
NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
RESERVED: Final = frozenset(
    (
        *("PATH", "PORT", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL"),
        *("_", "IFS", "ENV", "BASH_ENV", "GCONV_PATH", "GLIBC_TUNABLES"),
    )
)
RESERVED_PREFIXES: Final = ("HEADWAY_", "LD_")
MAX_VALUE: Final = 64 << 10
MAX_NAMES: Final = 200
MAX_TOTAL: Final = 512 << 10
KEPT_VERSIONS: Final = 100
_CURRENT: Final = (
    select(ConfigValue)
    .where(col(ConfigValue.owner_id).in_((bindparam("site_id"), bindparam("id"))), col(ConfigValue.current).is_(True))
    .order_by(col(ConfigValue.name))
)


class Hidden(Protocol):
    """What a value is in a row."""

    @property
    def ciphertext(self) -> bytes: ...

    @property
    def wrapped_key(self) -> bytes: ...

    @property
    def key_id(self) -> str: ...


class Hides(Protocol):
    """The writing half of the vault (adapters/config/vault.py)."""

    def hide(self, value: str, bound_to: str) -> Hidden: ...


class Opens(Protocol):
    """The reading half."""

    def open(self, ciphertext: bytes, wrapped_key: bytes, key_id: str, bound_to: str) -> str: ...


@dataclass(frozen=True)
class Owner:
    """Whose values: an environment's, else the site's defaults."""

    site_id: str
    env_id: str | None = None

    @classmethod
    def of(cls, site: Site, environment: Environment | None = None) -> Owner:
        return cls(site.id, environment.id if environment else None)

    @property
    def id(self) -> str:
        return self.env_id or self.site_id

    @property
    def owners(self) -> tuple[str, ...]:
        """Where a value may come from, the one that wins first."""
        return (self.env_id, self.site_id) if self.env_id else (self.site_id,)


def noun(secret: bool) -> str:
    return "secret" if secret else "variable"


def bound_to(row: ConfigValue) -> str:
    """What a hidden value is tied to: put into another row, it does not open."""
    return f"{row.id} {row.owner_id} {row.name}"


def open_value(vault: Opens, row: ConfigValue) -> str:
    """Raises config.unreadable; a version that was withdrawn has no value any more."""
    if row.ciphertext is None or row.wrapped_key is None or row.key_id is None:
        raise HeadwayError("config.unreadable", f"Version {row.version} of {row.name} has been withdrawn.")
    return vault.open(row.ciphertext, row.wrapped_key, row.key_id, bound_to(row))


def check_name(name: str) -> str:
    """Raises request.invalid_parameter: not a name, or one that the platform sets itself."""
    if not NAME.fullmatch(name):
        message = "A name has 1 to 128 of A-Z, 0-9 and _, and does not begin with a digit."
        raise HeadwayError("request.invalid_parameter", message, param="key")
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        raise HeadwayError("request.invalid_parameter", f"{name} is the platform's own name.", param="key")
    return name


def set_value(
    session: Session, vault: Hides, owner: Owner, name: str, value: str, actor: Json, *, secret: bool
) -> ConfigValue:
    """The next version of a name, current from now on. What runs keeps what it has until its next rollout.

    Raises request.invalid_parameter, config.kind_taken and quota.exceeded.
    """
    check_name(name)
    _check_value(value, secret=secret)
    _lock(session, owner)
    # Locked before it is hidden: whoever changes the key waits for this row (store/config_keys.py).
    rows = session.exec(
        select(ConfigValue).where(ConfigValue.owner_id == owner.id, col(ConfigValue.current)).with_for_update()
    ).all()
    before = next((row for row in rows if row.name == name), None)
    _check_room(rows, name, value)
    if before is not None:
        if before.secret != secret:
            message = f"{name} is a {noun(before.secret)} here: unset it before it becomes a {noun(secret)}."
            raise HeadwayError("config.kind_taken", message, param="key")
        _end(before, actor)
        session.flush()
    made = ConfigValue(
        id=new_id("cfg"),
        site_id=owner.site_id,
        owner_id=owner.id,
        name=name,
        secret=secret,
        version=_last_version(session, owner, name) + 1,
        actor=actor,
    )
    hidden = vault.hide(value, bound_to(made))
    made.ciphertext, made.wrapped_key, made.key_id = hidden.ciphertext, hidden.wrapped_key, hidden.key_id
    session.add(made)
    session.flush()
    _forget_versions(session, owner, name, made.version - KEPT_VERSIONS)
    return made


def unset_value(session: Session, owner: Owner, name: str, actor: Json, *, secret: bool) -> ConfigValue:
    """The name is gone from the next rollout on; its versions stay for the releases that froze them.

    Raises secret.not_found or variable.not_found, also for what is only the site's default.
    """
    row = _own(session, owner, name, secret=secret)
    if row is None:
        raise _missing(session, owner, name, secret=secret)
    _end(row, actor)
    session.add(row)
    return row


def revoke_value(session: Session, owner: Owner, name: str, value_id: str, actor: Json) -> ConfigValue:
    """Withdraw one version of a secret for good: its value is destroyed, and nothing goes back to it. Idempotent.

    Of the current version it unsets the name too. Raises secret.not_found.
    """
    row = session.get(ConfigValue, value_id, with_for_update=True)
    if row is None or (row.owner_id, row.name, row.secret) != (owner.id, name, True):
        raise HeadwayError("secret.not_found", f"There is no version {value_id} of {name} here.", param="version_id")
    if row.revoked_at is None:
        _end(row, actor)
        row.revoked_at = utcnow()
        row.ciphertext = row.wrapped_key = row.key_id = None
        session.add(row)
    return row


def value_of(session: Session, owner: Owner, name: str, *, secret: bool) -> ConfigValue:
    """What the next rollout gives this name. Raises secret.not_found or variable.not_found."""
    query = select(ConfigValue).where(*_effective(owner), ConfigValue.name == name)
    found = session.exec(query).first()
    if found is None or found.secret != secret:
        raise _missing(session, owner, name, secret=secret)
    return found


def list_values(session: Session, owner: Owner, page: Page, *, secret: bool) -> tuple[Sequence[ConfigValue], bool]:
    """What the next rollout takes: an environment's own values, and the site's defaults that they do not replace."""
    query = select(ConfigValue).where(*_effective(owner), ConfigValue.secret == secret)
    return fetch_page(session, query, page, time=ConfigValue.created_at, id=ConfigValue.id)


def list_versions(
    session: Session, owner: Owner, name: str, page: Page, *, secret: bool
) -> tuple[Sequence[ConfigValue], bool]:
    """Every version that this owner has had, withdrawn ones too. Raises secret.not_found or variable.not_found."""
    query = select(ConfigValue).where(
        ConfigValue.owner_id == owner.id, ConfigValue.name == name, ConfigValue.secret == secret
    )
    rows, more = fetch_page(session, query, page, time=ConfigValue.created_at, id=ConfigValue.id)
    if not rows and page.after is None:
        raise _missing(session, owner, name, secret=secret)
    return rows, more


def effective_values(session: Session, owner: Owner) -> Sequence[ConfigValue]:
    """All of it, variables and secrets, by name: the environment's own before the site's defaults."""
    rows = session.exec(_CURRENT, params={"site_id": owner.site_id, "id": owner.id}).all()
    own = {row.name for row in rows if row.owner_id == owner.id}
    return [row for row in rows if row.owner_id == owner.id or row.name not in own]


def live_ids(session: Session, owner: Owner) -> frozenset[str]:
    """The versions that a current release was given: of the environment, else of any of the site's."""
    query = (
        select(ConfigEntry.value_id)
        .join(Release, (col(Release.env_id) == col(ConfigEntry.env_id)) & col(Release.current))
        .where(ConfigEntry.config_version == Release.config_version, Release.site_id == owner.site_id)
    )
    if owner.env_id is not None:
        query = query.where(Release.env_id == owner.env_id)
    return frozenset(session.exec(query).all())


def destroy_values(session: Session, *, owner_id: str) -> None:
    """The owner is gone: so are its values. Names and versions stay for the record."""
    statement = update(ConfigValue).where(col(ConfigValue.owner_id) == owner_id)
    session.execute(statement.values(current=False, ciphertext=None, wrapped_key=None, key_id=None))


def _lock(session: Session, owner: Owner) -> None:
    """One writer per owner: names and numbers are counted."""
    table = Environment if owner.env_id is not None else Site
    session.get(table, owner.id, with_for_update={"key_share": True})


def _end(row: ConfigValue, actor: Json) -> None:
    row.current, row.ended_at, row.ended_by = False, utcnow(), actor


def _effective(owner: Owner) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [col(ConfigValue.owner_id).in_(owner.owners), col(ConfigValue.current).is_(True)]
    if owner.env_id is not None:
        other = aliased(ConfigValue)
        own = exists().where(
            col(other.owner_id) == owner.env_id, col(other.current), col(other.name) == col(ConfigValue.name)
        )
        found.append(or_(col(ConfigValue.owner_id) == owner.env_id, ~own))
    return found


def _own(session: Session, owner: Owner, name: str, *, secret: bool) -> ConfigValue | None:
    query = select(ConfigValue).where(
        ConfigValue.owner_id == owner.id,
        ConfigValue.name == name,
        ConfigValue.secret == secret,
        col(ConfigValue.current),
    )
    return session.exec(query.with_for_update()).first()


def _missing(session: Session, owner: Owner, name: str, *, secret: bool) -> HeadwayError:
    message = f"There is no {noun(secret)} {name} here."
    if owner.env_id is not None and _own(session, Owner(owner.site_id), name, secret=secret) is not None:
        message = f"{name} is the site's default: there is no value of the environment's own."
    return HeadwayError(f"{noun(secret)}.not_found", message, param="key")


def _check_value(value: str, *, secret: bool) -> None:
    if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE:
        message = f"A value has at most {MAX_VALUE >> 10} KiB of text without NUL."
        raise HeadwayError("request.invalid_parameter", message, param="value")
    if secret and not value:
        raise HeadwayError("request.invalid_parameter", "A secret is not empty: unset it instead.", param="value")


def _check_room(rows: Sequence[ConfigValue], name: str, value: str) -> None:
    others = [row for row in rows if row.name != name]
    if len(others) >= MAX_NAMES:
        raise HeadwayError("quota.exceeded", f"There are {MAX_NAMES} names here: unset one first.", param="key")
    if sum(len(row.ciphertext or b"") for row in others) + len(value.encode()) > MAX_TOTAL:
        message = f"All values here together have at most {MAX_TOTAL >> 10} KiB."
        raise HeadwayError("quota.exceeded", message, param="value")


def _last_version(session: Session, owner: Owner, name: str) -> int:
    query = select(func.max(ConfigValue.version)).where(ConfigValue.owner_id == owner.id, ConfigValue.name == name)
    return session.exec(query).one() or 0


def _forget_versions(session: Session, owner: Owner, name: str, up_to: int) -> None:
    """Old versions that no rollout ever froze."""
    if up_to > 0:
        frozen = exists().where(col(ConfigEntry.value_id) == col(ConfigValue.id))
        session.execute(
            delete(ConfigValue).where(
                col(ConfigValue.owner_id) == owner.id,
                col(ConfigValue.name) == name,
                col(ConfigValue.version) <= up_to,
                ~col(ConfigValue.current),
                ~frozen,
            )
        )
