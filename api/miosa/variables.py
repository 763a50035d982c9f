"""Variables of deployments, by environment (contract section 7.1): set here, never shown again by this dialect.

No Idempotency-Key is kept with them: its fingerprint is a digest of the body, and a digest of a value could be guessed.
To set the same value once more does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.miosa.answers import AnyRow, VariableRow
from api.miosa.call import Call, CallDep, KeyedDep
from api.miosa.deployments import D, site_of, site_to_change
from api.miosa.document import gives, lists
from api.miosa.publishing import target
from api.miosa.rows import stamp
from api.miosa.schemas import VariablesSet
from api.miosa.values import set_values
from headway.errors import HeadwayError
from store import config_values, environments
from store.config_values import Owner
from store.models import Environment, Job, Site
from store.models_configuration import ConfigValue

router = APIRouter(tags=["variables"])
Json = dict[str, Any]
MASK: Final = "••••"
Name = Annotated[str, Path(max_length=200)]
Where = Annotated[str, Query(max_length=63, description="An environment's name.")]


def shown(call: Call, session: Session, owner: Owner, environment: str) -> list[Json]:
    return [_row(call, row, environment) for row in config_values.effective_values(session, owner)]


def _row(call: Call, row: ConfigValue, environment: str) -> Json:
    """Of a plain variable the first two characters are shown, where that leaves most of it hidden."""
    preview = MASK
    if not row.secret:
        value = config_values.open_value(call.parts.vault, row)
        preview = f"{value[:2]}{MASK}" if len(value) > 8 else MASK
    return {
        "id": row.id,
        "name": row.name,
        "key": row.name,
        "preview": preview,
        "value": preview,
        "is_secret": row.secret,
        "environment": environment,
        "created_at": stamp(row.created_at),
        "updated_at": stamp(row.created_at),
    }


def _owner(call: Call, session: Session, site: Site, environment: str) -> Owner:
    found = environments.target(session, call.sight, site, environment, param="environment")
    return Owner.of(site, found)


@router.get(D + "/env", **lists(VariableRow, "List a deployment's variables, never their values"))
async def list_variables(call: CallDep, deployment_id: str, environment: Where = "production") -> Response:
    def work(session: Session) -> list[Json]:
        site = site_of(call, session, deployment_id)
        return shown(call, session, _owner(call, session, site, environment), environment)

    return call.whole(await call.read(work))


@router.post(D + "/env", **lists(VariableRow, "Set variables; what runs gets them with its next rollout"))
async def set_variables(call: KeyedDep, deployment_id: str, body: VariablesSet) -> Response:
    """The ones that are not named stay."""
    values, name = _given(body), body.environment

    def work(session: Session, _once: Once) -> Sequence[Job]:
        site = site_to_change(call, session, deployment_id)
        found = target(call, session, site, name)
        jobs = [found] if isinstance(found, Job) else []
        environment = session.get_one(Environment, found.env_id) if isinstance(found, Job) else found
        site_to_change(call, session, deployment_id, environment.id)
        set_values(call, session, Owner.of(site, environment), values, secret=body.is_secret)
        return jobs

    await call.accept_any(call.without_key().once(None), work)
    return await list_variables(call, deployment_id, name)


def _given(body: VariablesSet) -> dict[str, str]:
    """Raises request.missing_parameter."""
    values = dict(body.env or {})
    if body.key is not None:
        values[body.key] = body.value or ""
    if not values:
        raise HeadwayError("request.missing_parameter", "env is required.", param="env")
    return values


@router.delete(D + "/env/{key}", **gives(AnyRow, "Unset a variable"))
async def unset_variable(call: CallDep, deployment_id: str, key: Name, environment: Where = "production") -> Response:
    def work(session: Session) -> Json:
        site = site_to_change(call, session, deployment_id)
        owner = _owner(call, session, site, environment)
        site_to_change(call, session, deployment_id, owner.env_id)
        found = next((row for row in config_values.effective_values(session, owner) if row.name == key), None)
        secret = found.secret if found is not None else False
        config_values.unset_value(session, owner, key, call.caller.actor, secret=secret)
        return {"name": key, "key": key, "environment": environment, "deleted": True}

    return call.one(await call.write(work))
