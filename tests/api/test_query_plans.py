"""No request reads a whole table that grows: SQLite's own plan of every statement of the main ways says so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from tests.api import (
    test_audit,
    test_deployments,
    test_domains,
    test_environments,
    test_forges,
    test_idempotency,
    test_jobs,
    test_lists,
    test_policies,
    test_webhooks,
)
from tests.api.world import World, world

pytestmark = pytest.mark.anyio
CASES: list[Callable[[World], Awaitable[None]]] = [
    test_audit.test_filters_and_pages,
    test_deployments.test_a_rollout_has_the_next_number_and_becomes_a_release,
    test_deployments.test_promote_rolls_what_runs_there_without_a_build,
    test_deployments.test_rollback_goes_to_the_release_before_that_deployment,
    test_deployments.test_temporal_being_away_does_not_keep_work_from_being_accepted,
    test_domains.test_redirects_lead_to_names_of_the_same_environment,
    test_forges.test_a_push_to_production_deploys_that_commit_once,
    test_environments.test_canceling_what_has_not_started_puts_everything_back,
    test_idempotency.test_a_replay_is_the_same_job_as_it_is_now,
    test_jobs.test_a_stream_tells_the_job_its_lines_its_changes_and_its_end,
    test_lists.test_filters,
    test_lists.test_pages_go_on_while_rows_are_added,
    test_policies.test_approvals_let_it_go_and_two_keys_of_one_person_are_one,
    test_webhooks.test_test_deliveries_and_replay,
]
# Tables with a row for each job, release, file, event or entry; what is left has a row for each team, site or host.
GROWING = {
    "artifact", "artifact_pack", "audit_row", "build", "build_bill", "config_entry", "config_value", "delivery",
    "drift", "environment", "event", "forge_call", "idempotency_key", "job", "job_log", "ledger_entry", "ledger_head",
    "ledger_node", "pack", "pack_lease", "policy_decision", "push", "release", "rollout", "sandbox", "sandbox_file",
    "site",
}  # fmt: skip
# Read whole, but small or in the order that is asked for: what is open, what is live, what is newest.
READ_IN_ORDER = {"audit_created", "environment_slug", "job_created", "job_open", "release_current", "site_slug"}
# Once an hour.
SWEPT = re.compile(
    r"DELETE FROM (delivery|drift|forge_call|push) WHERE|.* WHERE (sandbox\.destroyed_at|job\.finished_at) < \?"
)


class Plans:
    """Asks for the plan of each new statement on the connection that is about to run it."""

    def __init__(self) -> None:
        self.scans: dict[str, str] = {}
        self._seen: set[str] = set()

    def look(self, connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if many or statement in self._seen or not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            return
        self._seen.add(statement)
        # A case counts rows by reading all of them.
        if "WHERE" not in statement or SWEPT.match(" ".join(statement.split())):
            return
        plan = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        for _, _, _, detail in plan:
            found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", detail)
            if found and found[1] in GROWING and found[2] not in READ_IN_ORDER:
                self.scans[statement] = detail


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.removeprefix("test_"))
async def test_no_statement_reads_a_whole_table(tmp_path: Path, case: Callable[[World], Awaitable[None]]) -> None:
    plans = Plans()
    async with world(tmp_path) as api:
        event.listen(api.store.engine, "before_cursor_execute", plans.look)
        await case(api)
    assert not plans.scans, "\n".join(
        f"{plan}: {' '.join(statement.split())}" for statement, plan in plans.scans.items()
    )
