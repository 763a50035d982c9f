"""The passwords of encrypted keys reach the signing worker, and nothing that is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.cli.up import _settings
from headway.supervisor.components import Options, embedded
from headway.supervisor.folder import open_folder
from headway.supervisor.plan import Plan
from headway.supervisor.ports import Block

CANARY = "correct-horse-battery-staple"
PASSWORDS = ("HEADWAY_SIGNING_PASSWORD", "HEADWAY_LEDGER_PASSWORD")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    for name in PASSWORDS:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("HEADWAY_LEDGER_HOST", "ledger.example.test")
    folder = open_folder(tmp_path / "data")
    made = embedded(Options(folder, Block(7070), "temporal", "weed", "caddy", settings=_settings()))
    made.write(folder)
    assert CANARY not in folder.plan.read_text()
    return made


def test_only_the_signing_worker_gets_them(plan: Plan, tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    for component in plan.components:
        given = component.environment(folder)
        assert CANARY not in " ".join(component.argv)
        assert [given.get(name) for name in PASSWORDS] == [CANARY if component.name == "signing" else None] * 2


def test_other_settings_of_the_ledger_reach_the_roles(plan: Plan) -> None:
    [signing] = [one for one in plan.components if one.name == "signing"]
    assert signing.env["HEADWAY_LEDGER_HOST"] == "ledger.example.test"
