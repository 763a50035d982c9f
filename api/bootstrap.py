"""The first rows and files of an installation. Every step may run again, at every start."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlmodel import Session, select

from api.scopes import ISOLATED
from headway.errors import HeadwayError
from headway.ids import new_id
from store.accounts import make_account, make_team
from store.keys import hashed, new_secret, shown_prefix
from store.models import Account, ApiKey, Team, utcnow
from store.session import Store

LOCK: Final = 4857202  # any fixed number: the migrations have another
ROLES: Final = ("builder", "host", "control", "signing")


def bootstrap(store: Store, data_dir: Path, *, secrets_dir: Path | None = None, admin_key: Path | None = None) -> None:
    """The operator's account, a team and a project to begin with, `DATA/admin.key`, and the broker's credentials.

    Files win over rows: a lost database knows the same operator's key again. Replicas that share the files agree.
    """
    broker_tokens(data_dir, secrets_dir)
    path = admin_key or data_dir / "admin.key"
    secret = _read(path)
    if secret is None:
        try:
            write_secret(path, new_secret("operator"))
        except PermissionError:
            message = f"{path} is missing, and its folder is not the API's: run `headway up` again, which makes it."
            raise HeadwayError("stack.folder_invalid", message) from None
        secret = _read(path) or ""
    store.in_write(lambda session: _rows(session, secret))


def broker_tokens(data_dir: Path, secrets_dir: Path | None = None) -> dict[str, str]:
    """The credential of each role, made where there is none: `DATA/secrets/broker-<role>.token`, mode 0600."""
    folder = secrets_dir or data_dir / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = {}
    for role in ROLES:
        path = folder / f"broker-{role}.token"
        token = _read(path)
        if token is None:
            write_secret(path, secrets.token_urlsafe(32))
            token = _read(path) or ""
        found[role] = token
    return found


def write_secret(path: Path, secret: str) -> None:
    """Whole or not at all, and readable by its owner alone; what is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            if path.stat().st_size == 0:
                os.replace(part, path)
                return
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def _rows(session: Session, secret: str) -> None:
    if session.get_bind().dialect.name == "postgresql":
        # Replicas that start together would each make the first rows.
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    operator = session.exec(select(Account).where(Account.operator)).first()
    if operator is None:
        operator = make_account(session, "Operator", None, operator=True)
    team = session.exec(select(Team).where(Team.slug == "default")).first()
    if team is None:
        team, _ = make_team(session, "Default", "default", operator)
    current = hashed(secret)
    for key in session.exec(select(ApiKey).where(ApiKey.kind == "operator")).all():
        if key.secret_sha256 == current and key.revoked_at is None:
            return
        key.revoked_at = key.revoked_at or utcnow()
    session.flush()
    known = session.exec(select(ApiKey).where(ApiKey.secret_sha256 == current)).first()
    if known is not None:
        known.revoked_at = None
        return
    session.add(
        ApiKey(
            id=new_id("key"),
            team_id=team.id,
            account_id=operator.id,
            kind="operator",
            name="operator",
            prefix=shown_prefix(secret),
            secret_sha256=current,
            scopes=["*", *sorted(ISOLATED)],
            ip_allowlist=[],
        )
    )
