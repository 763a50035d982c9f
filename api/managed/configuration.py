"""Variables and secrets of environments, and their defaults on sites (contract section 14).

A secret's value is never shown again. PUT takes no Idempotency-Key: the fingerprint that is kept with one is a digest
of the body, and a digest of a value could be guessed. To set the same value once more does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from sqlmodel import Session
from starlette.responses import Response

from api.managed.answers import DeletedRow, SecretRow, VariableRow
from api.managed.call import Call, CallDep, KeyedDep, Paging, PagingDep
from api.managed.documents import gives, lists
from api.managed.environments import E, env_to_change, env_to_read
from api.managed.rows import value_row
from api.managed.schemas import SecretRevoke, SecretSet, VariableSet
from api.managed.sites import site_to_change, site_to_read
from store import config_values
from store.config_values import Owner
from store.models_configuration import ConfigValue
from store.paging import Page

router = APIRouter(tags=["configuration"])
Json = dict[str, Any]
Key = Annotated[str, Path(max_length=200, description="`[A-Z_][A-Z0-9_]*`, at most 128 characters.")]
S: Final = "/sites/{site_id}"


@dataclass(frozen=True)
class Noun:
    """`secret` or variable, with the scopes that it takes."""

    secret: bool
    reads: str
    writes: str


SECRETS: Final = Noun(True, "secrets:read", "secrets:write")
VARIABLES: Final = Noun(False, "environments:read", "environments:write")


def owner_to_read(call: Call, session: Session, noun: Noun, site_id: str, env_id: str | None) -> Owner:
    """404 before 403."""
    if env_id is None:
        return Owner.of(site_to_read(call, session, site_id, noun.reads))
    return Owner.of(*env_to_read(call, session, site_id, env_id, noun.reads))


def owner_to_change(call: Call, session: Session, noun: Noun, site_id: str, env_id: str | None) -> Owner:
    if env_id is None:
        return Owner.of(site_to_change(call, session, site_id, noun.writes))
    return Owner.of(*env_to_change(call, session, site_id, env_id, noun.writes))


def shown(call: Call, session: Session, owner: Owner, rows: Sequence[ConfigValue]) -> list[Json]:
    """Of secrets and of what was withdrawn there is no value to show."""
    live, vault = config_values.live_ids(session, owner), call.parts.vault
    values = [None if row.secret or row.ciphertext is None else config_values.open_value(vault, row) for row in rows]
    return [value_row(row, live=row.id in live, value=value) for row, value in zip(rows, values, strict=True)]


async def list_values(call: Call, paging: Paging, noun: Noun, site_id: str, env_id: str | None) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Any], bool]:
        owner = owner_to_read(call, session, noun, site_id, env_id)
        rows, more = config_values.list_values(session, owner, page, secret=noun.secret)
        return list(zip(rows, shown(call, session, owner, rows), strict=True)), more

    return await call.page(paging, fetch, lambda row: row[1], lambda row: (row[0].created_at, row[0].id))


async def list_versions(call: Call, paging: Paging, noun: Noun, site_id: str, env_id: str | None, key: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Any], bool]:
        owner = owner_to_read(call, session, noun, site_id, env_id)
        rows, more = config_values.list_versions(session, owner, key, page, secret=noun.secret)
        return list(zip(rows, shown(call, session, owner, rows), strict=True)), more

    return await call.page(paging, fetch, lambda row: row[1], lambda row: (row[0].created_at, row[0].id))


async def get_value(call: Call, noun: Noun, site_id: str, env_id: str | None, key: str) -> Response:
    def work(session: Session) -> Json:
        owner = owner_to_read(call, session, noun, site_id, env_id)
        return shown(call, session, owner, [config_values.value_of(session, owner, key, secret=noun.secret)])[0]

    return call.one(await call.read(work))


async def set_value(call: Call, noun: Noun, site_id: str, env_id: str | None, key: str, value: str) -> Response:
    def work(session: Session) -> Json:
        owner = owner_to_change(call, session, noun, site_id, env_id)
        row = config_values.set_value(
            session, call.parts.vault, owner, key, value, call.caller.actor, secret=noun.secret
        )
        return shown(call, session, owner, [row])[0]

    return call.one(await call.write(work))


async def unset_value(call: Call, noun: Noun, site_id: str, env_id: str | None, key: str) -> Response:
    def work(session: Session) -> Json:
        owner = owner_to_change(call, session, noun, site_id, env_id)
        row = config_values.unset_value(session, owner, key, call.caller.actor, secret=noun.secret)
        return {"id": row.id, "deleted": True}

    return call.one(await call.write(work))


async def revoke(call: Call, site_id: str, env_id: str | None, key: str, value_id: str) -> Response:
    def work(session: Session) -> Json:
        owner = owner_to_change(call, session, SECRETS, site_id, env_id)
        row = config_values.revoke_value(session, owner, key, value_id, call.caller.actor)
        return shown(call, session, owner, [row])[0]

    return call.one(await call.write(work))


@router.get(S + "/variables", **lists(VariableRow, "List a site's variables: defaults for its environments"))
async def list_site_variables(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    return await list_values(call, paging, VARIABLES, site_id, None)


@router.get(S + "/variables/{key}", **gives(VariableRow, "Get a variable among a site's defaults"))
async def get_site_variable(call: CallDep, site_id: str, key: Key) -> Response:
    return await get_value(call, VARIABLES, site_id, None, key)


@router.put(S + "/variables/{key}", **gives(VariableRow, "Set a variable among a site's defaults"))
async def set_site_variable(call: CallDep, site_id: str, key: Key, body: VariableSet) -> Response:
    return await set_value(call, VARIABLES, site_id, None, key, body.value)


@router.delete(S + "/variables/{key}", **gives(DeletedRow, "Unset a variable among a site's defaults"))
async def unset_site_variable(call: CallDep, site_id: str, key: Key) -> Response:
    return await unset_value(call, VARIABLES, site_id, None, key)


@router.get(
    S + "/variables/{key}/versions", **lists(VariableRow, "List versions of a variable among a site's defaults")
)
async def list_site_variable_versions(call: CallDep, paging: PagingDep, site_id: str, key: Key) -> Response:
    return await list_versions(call, paging, VARIABLES, site_id, None, key)


@router.get(S + "/secrets", **lists(SecretRow, "List a site's secrets: defaults for its environments"))
async def list_site_secrets(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    return await list_values(call, paging, SECRETS, site_id, None)


@router.get(S + "/secrets/{key}", **gives(SecretRow, "Get a secret among a site's defaults, without its value"))
async def get_site_secret(call: CallDep, site_id: str, key: Key) -> Response:
    return await get_value(call, SECRETS, site_id, None, key)


@router.put(S + "/secrets/{key}", **gives(SecretRow, "Set a secret among a site's defaults"))
async def set_site_secret(call: CallDep, site_id: str, key: Key, body: SecretSet) -> Response:
    return await set_value(call, SECRETS, site_id, None, key, body.value.get_secret_value())


@router.delete(S + "/secrets/{key}", **gives(DeletedRow, "Unset a secret among a site's defaults"))
async def unset_site_secret(call: CallDep, site_id: str, key: Key) -> Response:
    return await unset_value(call, SECRETS, site_id, None, key)


@router.get(S + "/secrets/{key}/versions", **lists(SecretRow, "List versions of a secret among a site's defaults"))
async def list_site_secret_versions(call: CallDep, paging: PagingDep, site_id: str, key: Key) -> Response:
    return await list_versions(call, paging, SECRETS, site_id, None, key)


@router.post(S + "/secrets/{key}/revoke", **gives(SecretRow, "Destroy a version of a secret among a site's defaults"))
async def revoke_site_secret(call: KeyedDep, site_id: str, key: Key, body: SecretRevoke) -> Response:
    return await revoke(call, site_id, None, key, body.version_id)


@router.get(E + "/variables", **lists(VariableRow, "List variables that the next rollout takes"))
async def list_environment_variables(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    return await list_values(call, paging, VARIABLES, site_id, env_id)


@router.get(E + "/variables/{key}", **gives(VariableRow, "Get a variable of an environment"))
async def get_environment_variable(call: CallDep, site_id: str, env_id: str, key: Key) -> Response:
    return await get_value(call, VARIABLES, site_id, env_id, key)


@router.put(E + "/variables/{key}", **gives(VariableRow, "Set a variable of an environment"))
async def set_environment_variable(call: CallDep, site_id: str, env_id: str, key: Key, body: VariableSet) -> Response:
    return await set_value(call, VARIABLES, site_id, env_id, key, body.value)


@router.delete(E + "/variables/{key}", **gives(DeletedRow, "Unset a variable of an environment"))
async def unset_environment_variable(call: CallDep, site_id: str, env_id: str, key: Key) -> Response:
    return await unset_value(call, VARIABLES, site_id, env_id, key)


@router.get(E + "/variables/{key}/versions", **lists(VariableRow, "List versions of a variable of an environment"))
async def list_environment_variable_versions(
    call: CallDep, paging: PagingDep, site_id: str, env_id: str, key: Key
) -> Response:
    return await list_versions(call, paging, VARIABLES, site_id, env_id, key)


@router.get(E + "/secrets", **lists(SecretRow, "List secrets that the next rollout takes"))
async def list_environment_secrets(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    return await list_values(call, paging, SECRETS, site_id, env_id)


@router.get(E + "/secrets/{key}", **gives(SecretRow, "Get a secret of an environment, without its value"))
async def get_environment_secret(call: CallDep, site_id: str, env_id: str, key: Key) -> Response:
    return await get_value(call, SECRETS, site_id, env_id, key)


@router.put(E + "/secrets/{key}", **gives(SecretRow, "Set a secret of an environment"))
async def set_environment_secret(call: CallDep, site_id: str, env_id: str, key: Key, body: SecretSet) -> Response:
    return await set_value(call, SECRETS, site_id, env_id, key, body.value.get_secret_value())


@router.delete(E + "/secrets/{key}", **gives(DeletedRow, "Unset a secret of an environment"))
async def unset_environment_secret(call: CallDep, site_id: str, env_id: str, key: Key) -> Response:
    return await unset_value(call, SECRETS, site_id, env_id, key)


@router.get(E + "/secrets/{key}/versions", **lists(SecretRow, "List versions of a secret of an environment"))
async def list_environment_secret_versions(
    call: CallDep, paging: PagingDep, site_id: str, env_id: str, key: Key
) -> Response:
    return await list_versions(call, paging, SECRETS, site_id, env_id, key)


@router.post(E + "/secrets/{key}/revoke", **gives(SecretRow, "Destroy a version of a secret of an environment"))
async def revoke_environment_secret(
    call: KeyedDep, site_id: str, env_id: str, key: Key, body: SecretRevoke
) -> Response:
    return await revoke(call, site_id, env_id, key, body.version_id)
