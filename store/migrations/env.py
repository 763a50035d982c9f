"""Alembic's entry: one transaction on the engine that the rest of the store uses."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text
from sqlmodel import SQLModel

import store.models
import store.models_arrivals
import store.models_builders
import store.models_builds
import store.models_caches
import store.models_configuration
import store.models_domains
import store.models_integrity
import store.models_ledger
import store.models_lifecycle
import store.models_locks
import store.models_policy
import store.models_pushes
import store.models_reports
import store.models_repositories
import store.models_retention
import store.models_sandbox_env
import store.models_sandbox_packs
import store.models_sandboxes
import store.models_webhooks
import store.models_workspaces  # noqa: F401
from store.session import open_engine

LOCK = 4857201  # any fixed number: concurrent upgrades on PostgreSQL wait for each other

engine = open_engine(context.config.attributes["url"])
with engine.execution_options(headway_write=True).connect() as connection, connection.begin():
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    context.configure(
        connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True, transactional_ddl=True
    )
    context.run_migrations()
engine.dispose()
